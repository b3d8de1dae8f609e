package daemon_test

import (
	"bytes"
	"context"
	"log/slog"
	"sync"
	"testing"

	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/openrms/rms/internal/config"
	"github.com/openrms/rms/internal/daemon"
	"github.com/openrms/rms/internal/daemon/daemontest"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

const parent = "tenants/" + daemontest.Tenant

// start serves a site until the test ends; log may be nil.
func start(t *testing.T, site *daemontest.Site, log *slog.Logger) *daemon.Daemon {
	t.Helper()
	cfg, err := config.Load(site.Config)
	if err != nil {
		t.Fatal(err)
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	d, err := daemon.Start(t.Context(), cfg, daemon.Options{Log: log})
	if err != nil {
		t.Fatal(err)
	}
	closeOnce := sync.OnceFunc(func() {
		if err := d.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(closeOnce)
	if err := d.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	return d
}

// publish protects a document for bob, and for the service if told so.
func publish(t *testing.T, c *daemontest.Client, who daemontest.Who, alsoTo ...string) *daemontest.Document {
	t.Helper()
	req := daemontest.ForBob()
	for _, to := range alsoTo {
		req.GetAdHoc().Grants = append(req.GetAdHoc().Grants, &rmsv1.Grant{To: to, Rights: []rmsv1.Right{rmsv1.Right_RIGHT_VIEW}})
	}
	doc, err := c.Publish(t.Context(), who, req)
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// event reads an event as the auditor.
func event(t *testing.T, site *daemontest.Site, c *daemontest.Client, id string) *rmsv1.Event {
	t.Helper()
	e, err := rmsv1.NewAuditServiceClient(c.Conn).GetEvent(t.Context(),
		&rmsv1.GetEventRequest{Name: parent + "/events/" + id}, site.Person(t, "erin").As())
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// wantReason checks why a call was refused.
func wantReason(t *testing.T, err error, want vocab.Reason) {
	t.Helper()
	if got := daemontest.Reason(err); err == nil || got != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestServiceOpens(t *testing.T) {
	site := daemontest.NewSite(t)
	d := start(t, site, nil)
	people := site.Client(t, d.Addr())
	alice, service := site.Person(t, "alice"), daemontest.Service(daemontest.DLP)
	scanner := site.Client(t, d.Addr(), daemontest.ServiceCertificate(t, site.Authority, daemontest.DLP))

	template := &rmsv1.Template{
		DisplayNames: map[string]string{"en": "Scanned"}, State: rmsv1.Template_STATE_PUBLISHED,
		Grants: []*rmsv1.Grant{{To: "service:dlp-scanner", Rights: []rmsv1.Right{rmsv1.Right_RIGHT_VIEW}}},
	}
	if _, err := rmsv1.NewPolicyServiceClient(people.Conn).CreateTemplate(t.Context(),
		&rmsv1.CreateTemplateRequest{Parent: parent, TemplateId: "scanned", Template: template}, alice.As()); err != nil {
		t.Fatal(err)
	}
	doc, err := people.Publish(t.Context(), alice, &rmsv1.PublishRequest{Policy: &rmsv1.PublishRequest_Template{Template: "scanned"}})
	if err != nil {
		t.Fatal(err)
	}

	got, err := scanner.Acquire(t.Context(), service, doc.PL, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !got.Key.Equal(doc.Key) || len(got.Rights) != 1 || got.Rights[0] != rmsv1.Right_RIGHT_VIEW {
		t.Errorf("the service got %v", got.Rights)
	}
	e := event(t, site, people, got.Event)
	if e.GetKind() != "released" || e.GetPrincipal() != "service:dlp-scanner" || e.GetActor() != "" {
		t.Errorf("the event: %v", e)
	}

	// What names nothing to it is refused, as to anybody.
	other := publish(t, people, alice)
	_, err = scanner.Acquire(t.Context(), service, other.PL, nil)
	wantReason(t, err, vocab.ReasonNoRights)

	// A certificate proves who a service is to the tenant, not that it is one
	// of its own: no name, no way in.
	stranger := site.Client(t, d.Addr(), daemontest.ServiceCertificate(t, site.Authority, "spiffe://contoso.test/unknown"))
	_, err = stranger.Acquire(t.Context(), daemontest.Service("spiffe://contoso.test/unknown"), doc.PL, nil)
	wantReason(t, err, vocab.ReasonCertificateNotMapped)

	// Neither certificate nor token.
	_, err = people.Acquire(t.Context(), daemontest.Who{}, doc.PL, nil)
	wantReason(t, err, vocab.ReasonTokenMissing)

	// Another authority's word does not count at all: TLS ends.
	forger, err := daemontest.NewAuthority("test authority")
	if err != nil {
		t.Fatal(err)
	}
	forged := site.Client(t, d.Addr(), daemontest.ServiceCertificate(t, forger, daemontest.DLP))
	if _, err = forged.Acquire(t.Context(), service, doc.PL, nil); status.Code(err) != codes.Unavailable || daemontest.Reason(err) != "" {
		t.Errorf("with a certificate of another authority: %v", err)
	}
}

func TestServiceActsForAPerson(t *testing.T) {
	site := daemontest.NewSite(t)
	d := start(t, site, nil)
	people := site.Client(t, d.Addr())
	scanner := site.Client(t, d.Addr(), daemontest.ServiceCertificate(t, site.Authority, daemontest.DLP))
	service := daemontest.Service(daemontest.DLP)
	alice, bob, mallory := site.Person(t, "alice"), site.Person(t, "bob"), site.Person(t, "mallory")
	doc := publish(t, people, alice)

	// The person's rights count, the service's do not, and both are recorded.
	got, err := scanner.Acquire(t.Context(), service, doc.PL, &bob)
	if err != nil {
		t.Fatal(err)
	}
	if !got.Key.Equal(doc.Key) {
		t.Error("another content key came")
	}
	e := event(t, site, people, got.Event)
	if e.GetPrincipal() != "bob@contoso.test" || e.GetActor() != "service:dlp-scanner" {
		t.Errorf("recorded as %q by %q", e.GetPrincipal(), e.GetActor())
	}
	_, err = scanner.Acquire(t.Context(), service, doc.PL, &mallory)
	wantReason(t, err, vocab.ReasonNoRights)
	forService := publish(t, people, alice, "service:dlp-scanner")
	_, err = scanner.Acquire(t.Context(), service, forService.PL, &mallory)
	wantReason(t, err, vocab.ReasonNoRights)

	// Only services act for others.
	_, err = people.Acquire(t.Context(), alice, doc.PL, &bob)
	wantReason(t, err, vocab.ReasonRoleRequired)
	_, err = people.Acquire(t.Context(), mallory, doc.PL, &bob)
	wantReason(t, err, vocab.ReasonRoleRequired)

	// A token that is not one does not fall back to the service's own rights.
	claims := site.People.Claims("bob")
	claims["aud"] = []string{"somebody-else"}
	raw, err := site.People.Sign(claims, nil)
	if err != nil {
		t.Fatal(err)
	}
	wrong, err := daemontest.Person(raw)
	if err != nil {
		t.Fatal(err)
	}
	_, err = scanner.Acquire(t.Context(), service, forService.PL, &wrong)
	wantReason(t, err, vocab.ReasonTokenInvalid)
}

// Keys in the clear need the tenant's consent and the service's own connection.
func TestClearKeys(t *testing.T) {
	site := daemontest.NewSite(t)
	d := start(t, site, nil)
	people := site.Client(t, d.Addr())
	scanner := site.Client(t, d.Addr(), daemontest.ServiceCertificate(t, site.Authority, daemontest.DLP))
	alice, bob := site.Person(t, "alice"), site.Person(t, "bob")
	doc := publish(t, people, alice, "service:dlp-scanner")
	// A service that is known by its token.
	inClear := func(c *daemontest.Client, who daemontest.Who, subject string) ([]byte, error) {
		resp, err := rmsv1.NewProtectionServiceClient(c.Conn).Acquire(t.Context(), &rmsv1.AcquireRequest{
			Parent: parent, Document: &rmsv1.AcquireRequest_PublishingLicense{PublishingLicense: doc.PL}, Right: rmsv1.Right_RIGHT_VIEW,
			Delivery: &rmsv1.KeyDelivery{How: &rmsv1.KeyDelivery_Clear{Clear: &rmsv1.Clear{}}}, SubjectToken: subject,
		}, who.As())
		return resp.GetContentKey().GetClear(), err
	}
	service := daemontest.Service(daemontest.DLP)
	_, err := inClear(scanner, service, "")
	wantReason(t, err, vocab.ReasonClearKeyNotAllowed)

	if _, err := rmsv1.NewPolicyServiceClient(people.Conn).UpdateSettings(t.Context(), &rmsv1.UpdateSettingsRequest{
		Settings:   &rmsv1.Settings{Name: parent + "/settings", ClearKeys: rmsv1.Settings_CLEAR_KEYS_MTLS, Etag: "*"},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"clear_keys"}},
	}, alice.As()); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		client  *daemontest.Client
		who     daemontest.Who
		subject string
		want    vocab.Reason
	}{
		{"a service with its certificate", scanner, service, "", ""},
		{"a service with its certificate, for a person", scanner, service, bob.Token(), ""},
		{"a person with a token", people, bob, "", vocab.ReasonClearKeyNotAllowed},
		{"a person with a token on a service's connection", scanner, bob, "", vocab.ReasonClearKeyNotAllowed},
	} {
		t.Run(c.name, func(t *testing.T) {
			key, err := inClear(c.client, c.who, c.subject)
			if c.want != "" {
				wantReason(t, err, c.want)
				if key != nil {
					t.Error("a key came with the refusal")
				}
			} else if err != nil || !bytes.Equal(key, doc.Key.Reveal()) {
				t.Errorf("not the key: %v", err)
			}
		})
	}
}

// The operator's service is not on the network, and the network's services are
// not on the operator's socket.
func TestOperatorServiceIsLocal(t *testing.T) {
	site := daemontest.NewSite(t)
	d := start(t, site, nil)
	alice := site.Person(t, "alice")
	network := rmsv1.NewOperatorServiceClient(site.Client(t, d.Addr()).Conn)
	scanner := rmsv1.NewOperatorServiceClient(site.Client(t, d.Addr(), daemontest.ServiceCertificate(t, site.Authority, daemontest.DLP)).Conn)
	for _, c := range []rmsv1.OperatorServiceClient{network, scanner} {
		for name, call := range map[string]func() error{
			"Status":     func() error { _, err := c.Status(t.Context(), &rmsv1.StatusRequest{}, alice.As()); return err },
			"Reload":     func() error { _, err := c.Reload(t.Context(), &rmsv1.ReloadRequest{}, alice.As()); return err },
			"CheckStore": func() error { _, err := c.CheckStore(t.Context(), &rmsv1.CheckStoreRequest{}, alice.As()); return err },
		} {
			if err := call(); status.Code(err) != codes.Unimplemented {
				t.Errorf("%s over the network: %v", name, err)
			}
		}
	}
	local, err := daemontest.DialSocket(site.Data + "/operator.sock")
	if err != nil {
		t.Fatal(err)
	}
	defer local.Close()
	s, err := rmsv1.NewOperatorServiceClient(local).Status(t.Context(), &rmsv1.StatusRequest{})
	if err != nil || len(s.GetTenants()) != 1 || !s.GetTenants()[0].GetServing() {
		t.Errorf("over the socket: %v, %v", s, err)
	}
	if r, err := rmsv1.NewOperatorServiceClient(local).CheckStore(t.Context(), &rmsv1.CheckStoreRequest{}); err != nil || len(r.GetProblems()) > 0 || r.GetEvents() == 0 {
		t.Errorf("the store of a running daemon: %v, %v", r, err)
	}
	if _, err := rmsv1.NewProtectionServiceClient(local).GetTrust(t.Context(), &rmsv1.GetTrustRequest{}); status.Code(err) != codes.Unimplemented {
		t.Errorf("GetTrust over the socket: %v", err)
	}
}

// Nothing of a daemon outlives it.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Load balancers ask without a sign-in, and learn of no tenant.
func TestHealth(t *testing.T) {
	site := daemontest.NewSite(t)
	d := start(t, site, nil)
	health := healthpb.NewHealthClient(site.Client(t, d.Addr()).Conn)
	watch, err := health.Watch(t.Context(), &healthpb.HealthCheckRequest{Service: "rms.v1.ProtectionService"})
	if err != nil {
		t.Fatal(err)
	}
	for serves := false; !serves; {
		got, err := watch.Recv()
		if err != nil {
			t.Fatal(err)
		}
		serves = got.GetStatus() == healthpb.HealthCheckResponse_SERVING
	}
	if got, err := health.Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil || got.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("the daemon: %v, %v", got, err)
	}
	if _, err := health.Check(t.Context(), &healthpb.HealthCheckRequest{Service: "tenants/contoso"}); status.Code(err) != codes.NotFound {
		t.Errorf("of a tenant: %v", err)
	}
	if err := d.Close(context.WithoutCancel(t.Context())); err != nil {
		t.Fatal(err)
	}
	// A watch does not hold up the end, and says nothing good any more.
	for {
		got, err := watch.Recv()
		if err != nil {
			break
		}
		if got.GetStatus() != healthpb.HealthCheckResponse_NOT_SERVING {
			t.Errorf("while it stops: %s", got.GetStatus())
		}
	}
}
