package custody_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/openrms/rms/internal/vaulttest"
	"github.com/openrms/rms/internal/vaulttest/realvault"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
	"github.com/openrms/rms/test/rmsdtest"
)

// custodianOf are the custodians of a tenant's file: its keys in a Vault, or
// in one behind an address. more is YAML that is added to the Vault's.
func custodianOf(v *realvault.Server, place *realvault.Tenant, address, ca, more string) string {
	return fmt.Sprintf(
		"{contoso-vault: {vault: {address: %q, ca: %q, mount: %s, cluster_id: %s%s}, approle: {role: %s, role_id_file: %q, secret_id_file: %q, wrapped: true}}}",
		address, ca, place.Mount, v.ClusterID, more, place.Role, place.RoleIDFile, place.SecretIDFile)
}

// prepare gives a tenant its TTL, and a template of custody mode strict.
func prepare(t *testing.T, site *rmsdtest.Site) {
	t.Helper()
	conn, signed := site.Caller(t, "alice").Conn()
	policies := rmsv1.NewPolicyServiceClient(conn)
	if _, err := policies.UpdateSettings(t.Context(), &rmsv1.UpdateSettingsRequest{
		Settings:   &rmsv1.Settings{Name: site.Parent() + "/settings", Etag: "*", CacheTtl: durationpb.New(ttl)},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"cache_ttl"}},
	}, signed); err != nil {
		t.Fatal(err)
	}
	if _, err := policies.CreateTemplate(t.Context(), &rmsv1.CreateTemplateRequest{
		Parent: site.Parent(), TemplateId: "strict", Template: &rmsv1.Template{
			State: rmsv1.Template_STATE_PUBLISHED, CustodyMode: rmsv1.CustodyMode_CUSTODY_MODE_STRICT,
			DisplayNames: map[string]string{"en": "Strict"},
			Grants:       []*rmsv1.Grant{{To: "user:bob@" + site.Name + ".test", Rights: []rmsv1.Right{rmsv1.Right_RIGHT_VIEW}}},
		},
	}, signed); err != nil {
		t.Fatal(err)
	}
}

// world is a daemon with two tenants. What is done is done to contoso, whose
// Vault is behind a proxy; the other has a mount in a Vault that nothing is
// done to.
type world struct {
	*testing.T
	row    row
	binary string

	vault       *realvault.Server
	tenant      *realvault.Tenant
	proxy       *vaulttest.Proxy
	before      *realvault.Snapshot // of the Vault, before the daemon first saw it; where a fault asks for it
	site        *rmsdtest.Site
	process     *rmsdtest.Process
	life        process
	alice, bob  *rmsdtest.Caller
	erin        *rmsdtest.Caller
	strict      []*rmsdtest.Document
	cached      []*rmsdtest.Document
	spared      []*rmsdtest.Document // open throughout
	lost        map[*rmsdtest.Document]vocab.Reason
	refusals    []*rmsdtest.Reply
	copied      time.Time // the copy of contoso's generation is not older
	other       *rmsdtest.Site
	otherTenant *realvault.Tenant
	otherStrict *rmsdtest.Document
	otherCached *rmsdtest.Document
	stopServing context.CancelFunc
	serving     sync.WaitGroup
	otherServed int

	// Of single faults.
	stranger *realvault.Server
	edited   atomic.Int64 // answers with several results that were changed
	putBack  func()
}

func newWorld(t *testing.T, shared *realvault.Server, binary string, r row, f fault) *world {
	w := &world{T: t, row: r, binary: binary, vault: shared, lost: map[*rmsdtest.Document]vocab.Reason{}}
	if f.own {
		w.vault = vaulttest.Start(t)
	}
	w.tenant = vaulttest.Tenant(t, w.vault, "contoso-"+r.Name)
	w.otherTenant = vaulttest.Tenant(t, shared, "fabrikam-"+r.Name)
	if f.snapshot {
		before, err := w.vault.Snapshot(t.Context())
		w.must(err)
		w.before = before
	}
	w.proxy = vaulttest.NewProxy(t, w.vault)
	w.site = rmsdtest.New(t, w.custodian(""))
	w.other = w.site.AddTenant(t, "fabrikam", custodianOf(shared, w.otherTenant, shared.Address, shared.CAFile, ""))
	w.process = w.site.Start(t, binary)
	w.process.AwaitServing(t, w.site, w.other)
	w.connect()
	for _, s := range []*rmsdtest.Site{w.site, w.other} {
		prepare(t, s)
	}
	w.copied = time.Now() // soon enough: the copy was made when the daemon started
	publish := func(who *rmsdtest.Caller, template string) *rmsdtest.Document {
		r := who.Publish(t.Context(), template)
		if r.Outcome != rmsdtest.Received {
			t.Fatal(r.Err)
		}
		return r.Document
	}
	for range 4 {
		w.strict = append(w.strict, publish(w.alice, "strict"))
	}
	for range 2 {
		w.cached = append(w.cached, publish(w.alice, ""))
	}
	frank := w.other.Caller(t, "alice")
	w.otherStrict, w.otherCached = publish(frank, "strict"), publish(frank, "")
	w.life = status(t, w.site)
	w.serveOther()
	return w
}

func (w *world) custodian(more string) string {
	return custodianOf(w.vault, w.tenant, w.proxy.Address, w.proxy.CAFile, more)
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *world) connect() {
	w.alice, w.bob, w.erin = w.site.Caller(w.T, "alice"), w.site.Caller(w.T, "bob"), w.site.Caller(w.T, "erin")
}

// restart stops the daemon, does something, and starts it again. It waits for
// the other tenant only.
func (w *world) restart(meanwhile func()) {
	w.Helper()
	w.pauseOther()
	if err := w.process.Stop(); err != nil {
		w.Fatalf("%v\n%s", err, w.process.LogEnd())
	}
	w.must(w.tenant.Deliver(w.Context()))
	w.must(w.otherTenant.Deliver(w.Context()))
	meanwhile()
	w.process = w.site.Start(w.T, w.binary)
	w.process.AwaitServing(w.T, w.other)
	w.connect()
	w.life = status(w.T, w.site)
	w.serveOther()
}

// serveOther opens and publishes for the other tenant until pauseOther.
func (w *world) serveOther() {
	ctx, stop := context.WithCancel(w.Context())
	w.stopServing = stop
	w.Cleanup(w.pauseOther)
	alice, bob := w.other.Caller(w.T, "alice"), w.other.Caller(w.T, "bob")
	w.serving.Go(func() {
		for ctx.Err() == nil {
			for what, r := range map[string]*rmsdtest.Reply{
				"a strict document does not open":       bob.Acquire(w.Context(), w.otherStrict),
				"a cached document does not open":       bob.Acquire(w.Context(), w.otherCached),
				"a strict document cannot be published": alice.Publish(w.Context(), "strict"),
				"a cached document cannot be published": alice.Publish(w.Context(), ""),
			} {
				if r.Outcome != rmsdtest.Received && w.Context().Err() == nil {
					w.Errorf("the other tenant: %s: %v", what, r.Err)
					return
				}
				w.otherServed++
			}
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
		}
	})
}

func (w *world) pauseOther() {
	w.stopServing()
	w.serving.Wait()
}

// open opens a document of contoso's.
func (w *world) open(d *rmsdtest.Document) *rmsdtest.Reply {
	return w.noted(w.bob.Acquire(w.Context(), d))
}

// publish publishes one, of custody mode strict or cached.
func (w *world) publish(kind string) *rmsdtest.Reply {
	if kind == "cached" {
		kind = ""
	}
	return w.noted(w.alice.Publish(w.Context(), kind))
}

func (w *world) noted(r *rmsdtest.Reply) *rmsdtest.Reply {
	w.Helper()
	if err := r.BadAnswer(); err != nil {
		w.Errorf("an answer that no client may accept: %v", err)
	}
	if r.Outcome == rmsdtest.Refused {
		w.refusals = append(w.refusals, r)
	}
	return r
}

// newStrict publishes a strict document that opens throughout.
func (w *world) newStrict() *rmsdtest.Document {
	w.Helper()
	r := w.publish("strict")
	if r.Outcome != rmsdtest.Received {
		w.Fatal(r.Err)
	}
	w.spared = append(w.spared, r.Document)
	return r.Document
}

// asked returns how often, at most, Vault was asked to unwrap one key by what
// do does; the daemon's own checks have keys of their own. For the same key the
// daemon signs in at most once.
func (w *world) asked(do func()) (most int) {
	w.Helper()
	w.proxy.Asked()
	do()
	times, logins := map[string]int{}, 0
	for _, a := range w.proxy.Asked() {
		if strings.HasSuffix(a.Path, "/login") {
			logins++
		}
		if a.Path == w.tenant.Mount+"/decrypt/root" {
			for _, item := range a.Items {
				times[item]++
				most = max(most, times[item])
			}
		}
	}
	if logins > max(most, 1) {
		w.Errorf("the daemon signed in %d times", logins)
	}
	return most
}

// look makes the daemon look at its custodian soon: one call contradicts what
// it last found.
func (w *world) look() {
	w.Helper()
	w.proxy.Set(vaulttest.Fault{Of: w.transit("decrypt"), Status: 503})
	if r := w.open(w.strict[0]); r.Reason != vocab.ReasonCustodianUnreachable {
		w.Fatalf("a call that Vault does not answer: %v", r.Err)
	}
	w.proxy.Set(vaulttest.Fault{})
}

// transit says which paths are these uses of contoso's root key.
func (w *world) transit(ops ...string) func(path string) bool {
	return func(path string) bool {
		op, in := strings.CutPrefix(path, w.tenant.Mount+"/")
		op, root := strings.CutSuffix(op, "/root")
		return in && root && slices.Contains(ops, op)
	}
}

// await polls until is is true, and fails the test if that takes too long.
func (w *world) await(what string, within time.Duration, is func() bool) {
	w.Helper()
	for deadline := time.Now().Add(within); !is(); wait(w.T, 50*time.Millisecond) {
		if time.Now().After(deadline) {
			w.Fatalf("%s: not within %s\n%s", what, within, w.process.LogEnd())
		}
	}
}

// events returns contoso's events of the given kinds; all if there are none.
func (w *world) events(kinds ...string) (out []*rmsv1.Event) {
	w.Helper()
	conn, signed := w.erin.Conn()
	req := &rmsv1.ListEventsRequest{Parent: w.site.Parent(), PageSize: 1000, Filter: &rmsv1.EventFilter{Kinds: kinds}}
	for {
		page, err := rmsv1.NewAuditServiceClient(conn).ListEvents(w.Context(), req, signed)
		w.must(err)
		out = append(out, page.GetEvents()...)
		if req.PageToken = page.GetNextPageToken(); req.PageToken == "" {
			return out
		}
	}
}

// statusReason is what rmsd status says of contoso.
func (w *world) statusReason() vocab.Reason {
	w.Helper()
	out, err := exec.CommandContext(w.Context(), w.binary, "status", "-c", w.site.Config, "-o", "json").Output()
	w.must(err)
	var s struct {
		Tenants []struct {
			Tenant string       `json:"tenant"`
			Reason vocab.Reason `json:"reason"`
		} `json:"tenants"`
	}
	w.must(json.Unmarshal(out, &s))
	for _, t := range s.Tenants {
		if t.Tenant == w.site.Parent() {
			return t.Reason
		}
	}
	w.Fatalf("rmsd status does not know the tenant: %s", out)
	return ""
}
