package tenant_test

import (
	"bytes"
	"errors"
	"io"
	"path/filepath"
	"testing"
	"time"

	"github.com/openrms/rms/internal/archive"
	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/operation"
	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/store/bolt"
	"github.com/openrms/rms/internal/tenant"
	"github.com/openrms/rms/internal/tenant/tenanttest"
	"github.com/openrms/rms/internal/vocab"
)

// freeze has the tenant frozen for its move to a key.
func (o *house) freeze(key *license.RecipientKey) *tenant.OperationView {
	o.t.Helper()
	v, _, err := o.RequestExport(o.t.Context(), person("carla"), tenant.ExportRequest{KEM: license.XWing, Recipient: key.Public(), Reason: "we leave"})
	o.check(err)
	done := o.mustApprove(person("alice"), v)
	if done.State != operation.Succeeded {
		o.t.Fatalf("the export is %s: %s", done.State, done.Message)
	}
	return done
}

// takeOut returns an archive of the frozen tenant.
func (o *house) takeOut(id vocab.OperationID) ([]byte, *tenant.TakenOut) {
	o.t.Helper()
	var file bytes.Buffer
	began := false
	out, err := o.Export(o.t.Context(), person("carla"), id, "test", &file, func(tenant.Takeout) { began = true })
	o.check(err)
	if !began || int64(file.Len()) != out.Bytes {
		o.t.Fatalf("begun %v, %d bytes of %d", began, file.Len(), out.Bytes)
	}
	return file.Bytes(), out
}

// moved is the tenant at another service: another store, another keyring.
func (o *house) moved(file []byte, key *license.RecipientKey, root license.KeyID) (*house, *tenant.Imported) {
	o.t.Helper()
	next := &house{t: o.t, dir: o.t.TempDir(), custodian: new(moody), file: o.file, to: o.to}
	next.file.ID = "contoso"
	out, err := next.arrive(file, key, root)
	o.check(err)
	next.open()
	o.t.Cleanup(next.shut)
	return next, out
}

// arrive imports an archive into the directory.
func (o *house) arrive(file []byte, key *license.RecipientKey, root license.KeyID) (*tenant.Imported, error) {
	o.t.Helper()
	s, err := bolt.Open(bolt.Options{Path: filepath.Join(o.dir, "rms.db"), Stamp: store.Development, Schema: record.Schema, MinFree: -1})
	o.check(err)
	out, err := tenant.Import(o.t.Context(), o.importConfig(s, file, key, root))
	o.check(s.Close())
	return out, err
}

func (o *house) importConfig(s store.Store, file []byte, key *license.RecipientKey, root license.KeyID) tenant.ImportConfig {
	return tenant.ImportConfig{
		File: o.file, Store: s, Log: audit.New(s),
		Custodians: tenanttest.Embedded(func(id vocab.CustodianID) (keys.Custodian, error) { return o.keyring(id, "keyring") }),
		Open:       func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(file)), nil },
		Key:        key, Root: root,
	}
}

func newMoveKey(t *testing.T) *license.RecipientKey {
	t.Helper()
	key, secret, public, err := archive.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	again, err := archive.ReadKey(bytes.NewReader(secret))
	if err != nil || again.Hash() != key.Hash() {
		t.Fatalf("the key's file: %v", err)
	}
	to, _, err := archive.ReadRecipient(bytes.NewReader([]byte(public)))
	if err != nil || to.Hash() != key.Hash() {
		t.Fatalf("the recipient's file: %v", err)
	}
	return key
}

// What opened opens at the other service, with another keyring, and what was
// refused is refused for the same reason; the first service and its keyring are
// gone.
func TestATenantMoves(t *testing.T) {
	inOffice(t, func(t *testing.T, o *house) {
		o.mustWrite(person("grace"), "finance", o.template("finance", 0, user("bob")))
		o.mustWrite(person("grace"), "secret", o.template("secret", vocab.CustodyStrict, user("bob")))
		docs := map[string]*tenant.Published{
			"cached": o.publish("alice", "", "bob"), "template": o.publish("alice", "finance"), "strict": o.publish("alice", "secret"),
			"revoked": o.publish("alice", "", "bob"), "not for bob": o.publish("alice", ""),
		}
		_, _, err := o.RevokeLicense(t.Context(), person("alice"), docs["revoked"].License.Record.Content, "a test", func(vocab.Principal) error { return nil })
		o.check(err)
		soon := tenant.PublishRequest{To: o.to, NotAfter: time.Now().Add(time.Hour), AdHoc: &policy.AdHoc{
			Kind: policy.AdHocGrants, Grants: []policy.Grant{{To: user("bob"), Rights: vocab.RightsOf(vocab.RightView)}},
		}}
		docs["expired"], err = o.Publish(t.Context(), person("alice"), soon)
		o.check(err)
		time.Sleep(2 * time.Hour)
		want := map[string]vocab.Reason{}
		for name, d := range docs {
			_, want[name] = o.acquire(person("bob"), item(d))
		}
		if want["expired"] != vocab.ReasonLicenseExpired || want["revoked"] != vocab.ReasonLicenseRevoked || want["strict"] != "" {
			t.Fatalf("the test begins otherwise: %v", want)
		}
		key := newMoveKey(t)
		v := o.freeze(key)
		for name, d := range docs {
			if _, got := o.acquire(person("bob"), item(d)); want[name] == "" && got != vocab.ReasonTenantFrozen || want[name] != "" && got != want[name] {
				t.Errorf("frozen, %s: %s", name, got)
			}
		}
		file, out := o.takeOut(v.ID)
		o.shut()

		n, in := o.moved(file, key, out.Signer)
		if in.SHA256 != out.SHA256 || in.Size != out.LogSize || in.Licenses != 6 || in.Secrets != out.Secrets || in.Lost != 0 || len(in.Closed) != 0 {
			t.Errorf("%+v came of %+v", in, out)
		}
		for name, d := range docs {
			n.opens(person("bob"), item(d), want[name])
		}
		n.publish("alice", "secret")
		n.publish("alice", "finance")
		n.checkStore()
		n.restart()
		for name, d := range docs {
			n.opens(person("bob"), item(d), want[name])
		}
		if _, err := n.arriveAgain(file, key, out.Signer); !errors.Is(err, vocab.ReasonResourceExists) {
			t.Errorf("imported twice: %v", err)
		}
	})
}

// arriveAgain imports into a store that is served already.
func (o *house) arriveAgain(file []byte, key *license.RecipientKey, root license.KeyID) (*tenant.Imported, error) {
	return tenant.Import(o.t.Context(), o.importConfig(o.store, file, key, root))
}
