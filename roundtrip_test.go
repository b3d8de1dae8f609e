package rms_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/openrms/rms"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
	"github.com/openrms/rms/rmstest"
)

// protect makes a document in memory.
func protect(t *testing.T, c *rms.Client, content []byte, o rms.ProtectOptions) (document []byte, made *rms.Protected) {
	t.Helper()
	var b bytes.Buffer
	made, err := c.Protect(t.Context(), &b, bytes.NewReader(content), o)
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), made
}

// open opens a document for VIEW and reads it.
func open(t *testing.T, c *rms.Client, document []byte, options ...rms.OpenOption) ([]byte, *rms.Document, error) {
	t.Helper()
	d, err := c.Open(t.Context(), bytes.NewReader(document), int64(len(document)), rms.RightView, options...)
	if err != nil {
		return nil, nil, err
	}
	defer d.Close()
	var b bytes.Buffer
	if _, err := d.WriteTo(&b); err != nil {
		return nil, nil, err
	}
	return b.Bytes(), d, nil
}

// content returns n bytes that are the same each time.
func content(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

func TestRoundTrip(t *testing.T) {
	svc := rmstest.Start(t)
	alice, bob := svc.Client("alice"), svc.Client("bob")
	const segment = 1 << 20
	for _, size := range []int{0, 1, 4096, segment - 57, segment - 56, segment - 55, segment, 2*segment + 7} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			want := content(size)
			modified := time.Date(2026, 11, 2, 3, 4, 5, 6_000_000, time.UTC)
			document, made := protect(t, alice, want, rms.ProtectOptions{
				Template: "finance-internal", Name: "../q3.pdf", MediaType: "application/pdf; v=1", ModTime: modified, Size: int64(size), Title: "Q3",
			})
			if made.Size != int64(size) || made.Written != int64(len(document)) {
				t.Errorf("size %d, written %d; want %d, %d", made.Size, made.Written, size, len(document))
			}
			if made.Record.GetTitle() != "Q3" || made.Event.IsZero() {
				t.Errorf("record %v, event %s", made.Record, made.Event)
			}
			if size >= 4096 && bytes.Contains(document, want[:64]) {
				t.Error("the document holds clear content")
			}
			for name, c := range map[string]*rms.Client{"alice": alice, "bob": bob} {
				got, d, err := open(t, c, document)
				if err != nil || !bytes.Equal(got, want) {
					t.Fatalf("%s: %d bytes, %v", name, len(got), err)
				}
				if d.Name != "q3.pdf" || d.MediaType != "application/pdf" || !d.ModTime.Equal(modified) || d.Size != int64(size) || d.License != made.License {
					t.Errorf("%s: %+v", name, d)
				}
				if !d.Rights.Has(rms.RightView) || d.Rights.Has(rms.RightExport) != (name == "alice") || !d.ExpireTime.After(time.Now()) || d.Event.IsZero() {
					t.Errorf("%s: rights %s until %s, event %s", name, d.Rights, d.ExpireTime, d.Event)
				}
			}
		})
	}
}

// A document far larger than what the client holds of it at once.
func TestConstantMemory(t *testing.T) {
	const size, most = 50 << 20, 24 << 20
	svc := rmstest.Start(t)
	alice := svc.Client("alice")
	path := filepath.Join(t.TempDir(), "large.rms")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	before := heap()
	in := sha256.New()
	source := io.TeeReader(io.LimitReader(rand.NewChaCha8([32]byte{2}), size), in)
	sink := &watchedWriter{w: f}
	if _, err := alice.Protect(t.Context(), sink, source, rms.ProtectOptions{Template: "finance-internal", Size: size}); err != nil {
		t.Fatal(err)
	}
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	out := sha256.New()
	back := &watchedWriter{w: out}
	d, err := alice.Unprotect(t.Context(), back, f, info.Size())
	if err != nil {
		t.Fatal(err)
	}
	if d.Size != size || !bytes.Equal(in.Sum(nil), out.Sum(nil)) {
		t.Error("what came back is not what was protected")
	}
	if grown := max(sink.most, back.most) - before; grown > most {
		t.Errorf("the heap grew by %d MiB, more than %d", grown>>20, most>>20)
	}
	if _, err := d.ReadAt(make([]byte, 1), 0); err == nil {
		t.Error("a closed document can be read")
	}
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// watchedWriter measures what is alive while something is written through it.
type watchedWriter struct {
	w           io.Writer
	since, most int64
}

func (w *watchedWriter) Write(b []byte) (int, error) {
	if w.since += int64(len(b)); w.since >= 8<<20 {
		w.since = 0
		w.most = max(w.most, heap())
	}
	return w.w.Write(b)
}

func TestRefused(t *testing.T) {
	svc := rmstest.Start(t)
	alice := svc.Client("alice")
	document, made := protect(t, alice, []byte("for finance"), rms.ProtectOptions{Template: "finance-internal"})
	board, _ := protect(t, alice, []byte("for the board"), rms.ProtectOptions{Template: "board-secret"})

	t.Run("no rights", func(t *testing.T) {
		_, _, err := open(t, svc.Client("mallory"), document)
		e, ok := errors.AsType[*rms.Error](err)
		if !ok || e.Reason != rms.ReasonNoRights || e.Event.IsZero() || e.Contact != "rights-help@contoso.test" {
			t.Errorf("%#v", err)
		}
	})
	t.Run("view without export", func(t *testing.T) {
		var out bytes.Buffer
		_, err := svc.Client("bob").Unprotect(t.Context(), &out, bytes.NewReader(document), int64(len(document)))
		if !errors.Is(err, rms.ReasonRightNotGranted) || out.Len() != 0 {
			t.Errorf("%v, %d bytes written", err, out.Len())
		}
	})
	t.Run("a service without a grant", func(t *testing.T) {
		if _, _, err := open(t, svc.ServiceClient(), board); !errors.Is(err, rms.ReasonNoRights) {
			t.Errorf("%v, want NO_RIGHTS", err)
		}
	})
	t.Run("no such template", func(t *testing.T) {
		_, err := alice.Protect(t.Context(), io.Discard, strings.NewReader("x"), rms.ProtectOptions{Template: "no-such"})
		if e, ok := errors.AsType[*rms.Error](err); !ok || e.Reason == rms.ReasonInternal {
			t.Errorf("%v", err)
		}
	})
	t.Run("revoked", func(t *testing.T) {
		name := alice.Tenant() + "/licenses/" + made.License.String()
		if _, err := alice.Licenses().RevokeLicense(t.Context(), &rmsv1.RevokeLicenseRequest{Name: name, Reason: "test"}); err != nil {
			t.Fatal(err)
		}
		if _, _, err := open(t, svc.Client("bob"), document); !errors.Is(err, rms.ReasonLicenseRevoked) {
			t.Errorf("%v, want LICENSE_REVOKED", err)
		}
	})
	t.Run("admin calls have reasons too", func(t *testing.T) {
		_, err := svc.Client("bob").Audit().GetCheckpoint(t.Context(), &rmsv1.GetCheckpointRequest{Parent: alice.Tenant()})
		if !errors.Is(err, rms.ReasonRoleRequired) {
			t.Errorf("%v, want ROLE_REQUIRED", err)
		}
		stream, err := svc.Client("bob").Audit().ExportEvents(t.Context(), &rmsv1.ExportEventsRequest{Parent: alice.Tenant()})
		if err == nil {
			_, err = stream.Recv()
		}
		if !errors.Is(err, rms.ReasonRoleRequired) {
			t.Errorf("stream: %v, want ROLE_REQUIRED", err)
		}
	})
}

func TestAdHoc(t *testing.T) {
	svc := rmstest.Start(t)
	alice := svc.Client("alice")
	viewer, err := rms.Level("viewer")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		policy *rmsv1.AdHocPolicy
		rights rms.Rights // some that bob has, and
		not    rms.Right  // one that he has not
	}{
		{"grants", rms.AdHoc(rms.Grant("user:bob@contoso.test", viewer)), viewer, rms.RightPrint},
		{"do not forward", rms.DoNotForward("user:bob@contoso.test"), rms.Rights(1<<rms.RightView | 1<<rms.RightReply), rms.RightForward},
		{"encrypt only", rms.EncryptOnly("user:bob@contoso.test"), rms.Rights(1<<rms.RightView | 1<<rms.RightForward), rms.RightExport},
		{"asked at every open", rms.Offline(rms.AdHoc(rms.Grant("user:bob@contoso.test", viewer)), 0), viewer, rms.RightEdit},
	} {
		t.Run(c.name, func(t *testing.T) {
			document, _ := protect(t, alice, []byte("x"), rms.ProtectOptions{AdHoc: c.policy, ExpireTime: time.Now().Add(time.Hour)})
			_, d, err := open(t, svc.Client("bob"), document)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range c.rights.List() {
				if !d.Rights.Has(r) {
					t.Errorf("bob has %s, not %s", d.Rights, r)
				}
			}
			if d.Rights.Has(c.not) {
				t.Errorf("bob has %s", c.not)
			}
			if _, _, err := open(t, svc.Client("carla"), document); !errors.Is(err, rms.ReasonNoRights) {
				t.Errorf("carla: %v", err)
			}
		})
	}
	if _, err := rms.Level("manager"); !errors.Is(err, rms.ReasonRequestInvalid) {
		t.Errorf("unknown level: %v", err)
	}
}

// A service signs in with its certificate, and opens for its users.
func TestServiceOpensForUser(t *testing.T) {
	svc := rmstest.Start(t)
	dlp := svc.ServiceClient()
	document, _ := protect(t, svc.Client("alice"), []byte("x"), rms.ProtectOptions{Template: "board-secret"})
	if _, _, err := open(t, dlp, document, rms.OnBehalfOf(svc.Token("alice")), rms.Because("preview")); err != nil {
		t.Errorf("for alice: %v", err)
	}
	if _, _, err := open(t, dlp, document, rms.OnBehalfOf(svc.Token("bob"))); !errors.Is(err, rms.ReasonNoRights) {
		t.Errorf("for bob: %v", err)
	}
	if _, _, err := open(t, svc.Client("bob"), document, rms.OnBehalfOf(svc.Token("alice"))); err == nil {
		t.Error("a person opened for another")
	}
	own, _ := protect(t, dlp, []byte("report"), rms.ProtectOptions{
		AdHoc: rms.AdHoc(rms.Grant("user:bob@contoso.test", rms.Rights(1<<rms.RightView))), Owner: "user:alice@contoso.test",
	})
	if _, _, err := open(t, svc.Client("alice"), own); err != nil {
		t.Errorf("the owner: %v", err)
	}
}

func TestGuest(t *testing.T) {
	svc := rmstest.Start(t)
	alice := svc.Client("alice")
	document, _ := protect(t, alice, []byte("x"), rms.ProtectOptions{AdHoc: rms.AdHoc(rms.Grant("user:dave@fabrikam.test", rms.Rights(1<<rms.RightView)))})
	if _, _, err := open(t, svc.Client("dave"), document); err == nil {
		t.Fatal("a guest opened before guests were let in")
	}
	if _, err := alice.Policy().UpdateSettings(t.Context(), &rmsv1.UpdateSettingsRequest{
		Settings:   &rmsv1.Settings{Name: alice.Tenant() + "/settings", GuestDomains: []string{"fabrikam.test"}, Etag: "*"},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"guest_domains"}},
	}); err != nil {
		t.Fatal(err)
	}
	if got, _, err := open(t, svc.Client("dave"), document); err != nil || string(got) != "x" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestRequestID(t *testing.T) {
	svc := rmstest.Start(t)
	o := rms.ProtectOptions{Template: "finance-internal", RequestID: "job 4711"}
	protect(t, svc.Client("alice"), []byte("x"), o)
	var out bytes.Buffer
	if _, err := svc.Client("alice").Protect(t.Context(), &out, strings.NewReader("x"), o); !errors.Is(err, rms.ReasonRequestIDReused) || out.Len() != 0 {
		t.Errorf("%v, %d bytes written", err, out.Len())
	}
}

func TestProtectRefusesBeforeWriting(t *testing.T) {
	svc := rmstest.Start(t)
	alice := svc.Client("alice")
	for name, o := range map[string]rms.ProtectOptions{
		"neither":       {},
		"both":          {Template: "finance-internal", AdHoc: rms.DoNotForward("user:bob@contoso.test")},
		"negative size": {Template: "finance-internal", Size: -1},
		"no recipients": {AdHoc: rms.DoNotForward()},
		"past":          {AdHoc: rms.DoNotForward("user:bob@contoso.test"), ExpireTime: time.Now().Add(-time.Hour)},
		"not a name":    {AdHoc: rms.DoNotForward("bob")},
	} {
		var out bytes.Buffer
		if _, err := alice.Protect(t.Context(), &out, strings.NewReader("x"), o); !errors.Is(err, rms.ReasonRequestInvalid) || out.Len() != 0 {
			t.Errorf("%s: %v, %d bytes written", name, err, out.Len())
		}
	}
	broken := errors.New("disk on fire")
	made, err := alice.Protect(t.Context(), io.Discard, io.MultiReader(strings.NewReader("x"), &failingReader{broken}), rms.ProtectOptions{Template: "finance-internal"})
	if !errors.Is(err, broken) || made == nil || made.License.IsZero() {
		t.Errorf("a source that fails: %v, %v", made, err)
	}
	if _, err := alice.Protect(t.Context(), io.Discard, strings.NewReader("longer"), rms.ProtectOptions{Template: "finance-internal", Size: 3}); !errors.Is(err, rms.ReasonRequestInvalid) {
		t.Errorf("a source of another size: %v", err)
	}
}

type failingReader struct{ err error }

func (r *failingReader) Read([]byte) (int, error) { return 0, r.err }

func TestDialRefuses(t *testing.T) {
	svc := rmstest.Start(t)
	good := func() rms.Config { return svc.Config("alice") }
	for _, c := range []struct {
		name   string
		change func(*rms.Config)
		want   rms.Reason
	}{
		{"no address", func(c *rms.Config) { c.Address = "" }, rms.ReasonConfigurationInvalid},
		{"an URL", func(c *rms.Config) { c.Address = "https://" + c.Address }, rms.ReasonConfigurationInvalid},
		{"no port", func(c *rms.Config) { c.Address = "127.0.0.1" }, rms.ReasonConfigurationInvalid},
		{"no tenant", func(c *rms.Config) { c.Tenant = "" }, rms.ReasonConfigurationInvalid},
		{"no identity", func(c *rms.Config) { c.Token = nil }, rms.ReasonTokenMissing},
		{"no pins", func(c *rms.Config) { c.Trust.RootKeyIDs = nil }, rms.ReasonConfigurationInvalid},
		{"no tenant ID", func(c *rms.Config) { c.Trust.TenantID = rms.TenantID{} }, rms.ReasonConfigurationInvalid},
		{"a long product", func(c *rms.Config) { c.Product = strings.Repeat("x", 65) }, rms.ReasonConfigurationInvalid},
		{"unverified TLS", func(c *rms.Config) { c.TLS = &tls.Config{InsecureSkipVerify: true} }, rms.ReasonConfigurationInvalid},
		{"TLS 1.2 at most", func(c *rms.Config) { c.TLS.MaxVersion = tls.VersionTLS12 }, rms.ReasonConfigurationInvalid},
		{"another root, bundle kept", func(c *rms.Config) { c.Trust.RootKeyIDs = [][32]byte{{1}} }, rms.ReasonTrustRootMismatch},
		{"another root, bundle fetched", func(c *rms.Config) { c.Trust.RootKeyIDs, c.Trust.Bundle = [][32]byte{{1}}, nil }, rms.ReasonTrustRootMismatch},
		{"another tenant behind the name", func(c *rms.Config) { c.Trust.TenantID, c.Trust.Bundle = rms.TenantID{1}, nil }, rms.ReasonTrustRootMismatch},
		{"an older bundle than seen", func(c *rms.Config) { c.Trust.BundleSeq++ }, rms.ReasonTrustRootMismatch},
		{"a server TLS does not trust", func(c *rms.Config) { c.TLS, c.Trust.Bundle = nil, nil }, rms.ReasonTrustRootMismatch},
		{"nobody there", func(c *rms.Config) { c.Address, c.Trust.Bundle = "127.0.0.1:1", nil }, rms.ReasonServerUnreachable},
	} {
		t.Run(c.name, func(t *testing.T) {
			config := good()
			c.change(&config)
			client, err := rms.Dial(t.Context(), config)
			if err == nil {
				client.Close()
			}
			if !errors.Is(err, c.want) {
				t.Errorf("%v, want %s", err, c.want)
			}
		})
	}
}

func TestFetchTrust(t *testing.T) {
	svc := rmstest.Start(t)
	info, err := rms.FetchTrust(t.Context(), svc.Address(), svc.TLS(), "")
	if err != nil {
		t.Fatal(err)
	}
	if info.Tenant != "contoso" || !info.Development || len(info.IdentityProviders) == 0 || info.LogKey == "" {
		t.Errorf("%+v", info)
	}
	if diff := cmp.Diff(svc.Trust().RootKeyIDs, info.Trust().RootKeyIDs); diff != "" {
		t.Error(diff)
	}
	if _, err := rms.FetchTrust(t.Context(), svc.Address(), svc.TLS(), "fabrikam"); err == nil {
		t.Error("trust of a tenant that is not there")
	}
	if _, err := rms.FetchTrust(t.Context(), svc.Address(), svc.TLS(), "../x"); !errors.Is(err, rms.ReasonConfigurationInvalid) {
		t.Errorf("%v", err)
	}
}

func TestTokenSource(t *testing.T) {
	svc := rmstest.Start(t)
	expired := svc.TokenWith("alice", map[string]any{"exp": time.Now().Add(-time.Hour).Unix()})
	own := &rms.Error{Reason: rms.ReasonTokenExpired, Message: "sign in again", Next: "rmsctl login"}
	for _, c := range []struct {
		name  string
		token func(context.Context) (string, error)
		want  rms.Reason
	}{
		{"expired", func(context.Context) (string, error) { return expired, nil }, rms.ReasonTokenExpired},
		{"empty", func(context.Context) (string, error) { return "", nil }, rms.ReasonTokenMissing},
		{"two lines", func(context.Context) (string, error) { return "a\r\nx: y", nil }, rms.ReasonTokenMissing},
		{"opaque", func(context.Context) (string, error) { return "opaque", nil }, rms.ReasonTokenInvalid},
		{"its own reason", func(context.Context) (string, error) { return "", own }, rms.ReasonTokenExpired},
		{"another error", func(context.Context) (string, error) { return "", io.ErrUnexpectedEOF }, rms.ReasonTokenMissing},
	} {
		t.Run(c.name, func(t *testing.T) {
			config := svc.Config("alice")
			config.Token = c.token
			client, err := rms.Dial(t.Context(), config)
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			_, err = client.Protect(t.Context(), io.Discard, strings.NewReader("x"), rms.ProtectOptions{Template: "finance-internal"})
			if !errors.Is(err, c.want) {
				t.Errorf("protect: %v, want %s", err, c.want)
			}
			_, err = client.Protection().ListUsableTemplates(t.Context(), &rmsv1.ListUsableTemplatesRequest{Parent: client.Tenant()})
			if !errors.Is(err, c.want) {
				t.Errorf("list: %v, want %s", err, c.want)
			}
			if c.name == "another error" && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%v lost its cause", err)
			}
		})
	}
}

// Whoever unprotects sees an error where the content was changed, and a failing
// writer's own error.
func TestUnprotectFailsHalfway(t *testing.T) {
	svc := rmstest.Start(t)
	alice := svc.Client("alice")
	document, _ := protect(t, alice, content(3<<20), rms.ProtectOptions{Template: "finance-internal"})
	broken := errors.New("disk full")
	if d, err := alice.Unprotect(t.Context(), &shortWriter{room: 1 << 20, err: broken}, bytes.NewReader(document), int64(len(document))); !errors.Is(err, broken) || d != nil {
		t.Errorf("a writer that fails: %v, %v", d, err)
	}
	if _, err := alice.Unprotect(t.Context(), &shortWriter{room: 1 << 20}, bytes.NewReader(document), int64(len(document))); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("a writer that writes less: %v", err)
	}
	document[len(document)/2] ^= 1
	var out bytes.Buffer
	if d, err := alice.Unprotect(t.Context(), &out, bytes.NewReader(document), int64(len(document))); !errors.Is(err, rms.ReasonContentChanged) || d != nil {
		t.Errorf("changed in the middle: %v, %v", d, err)
	}
	if want := content(3 << 20); !bytes.HasPrefix(want, out.Bytes()) {
		t.Error("something was written that was not protected")
	}
}

// shortWriter takes as much as it has room for, and then less or an error.
type shortWriter struct {
	room int
	err  error
}

func (w *shortWriter) Write(b []byte) (int, error) {
	n := min(len(b), w.room)
	w.room -= n
	if n < len(b) {
		return n, w.err
	}
	return n, nil
}

func TestWords(t *testing.T) {
	const id = "019a8c20-77f1-7000-8000-0123456789ab"
	tenant, err1 := rms.ParseTenantID(id)
	license, err2 := rms.ParseContentID(id)
	event, err3 := rms.ParseEventID(id)
	if err := errors.Join(err1, err2, err3); err != nil || tenant.String() != id || license.String() != id || event.String() != id {
		t.Errorf("%s %s %s, %v", tenant, license, event, err)
	}
	if r, err := rms.ParseRight("print"); err != nil || r != rms.RightPrint {
		t.Errorf("%s, %v", r, err)
	}
	g := rms.Grant("anyone", rms.Rights(1<<rms.RightView|1<<rms.RightOwner))
	if diff := cmp.Diff([]rmsv1.Right{rmsv1.Right_RIGHT_VIEW, rmsv1.Right_RIGHT_OWNER}, g.GetRights()); g.GetTo() != "anyone" || diff != "" {
		t.Errorf("%v", g)
	}
}
