package record

import (
	"iter"
	"testing"
	"time"

	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// nothing is a store without rows.
type nothing struct{}

func (nothing) Get(store.Table, []byte) ([]byte, bool, error) { return nil, false, nil }
func (nothing) Scan(store.Table, store.Range) iter.Seq2[store.Item, error] {
	return func(func(store.Item, error) bool) {}
}

// memory is a transaction over an empty store that is never committed: all a
// test of records needs.
func memory() store.Tx { return store.NewBuffer(nothing{}) }

var (
	tenantA = vocab.TenantID{15: 0xaa}
	tenantB = vocab.TenantID{15: 0xbb}
	start   = time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)
)

// fatal is what testing.T and rapid.T share.
type fatal interface {
	Helper()
	Fatal(args ...any)
}

func user(t fatal, name string) vocab.Principal {
	t.Helper()
	p, err := vocab.ParsePrincipal("user:" + name + "@contoso.test")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// shape is what indexes depend on.
type shape struct {
	owner      string
	template   vocab.TemplateUID  // zero: ad hoc
	generation vocab.GenerationID // of cached licenses
	custodian  vocab.CustodianID  // of strict ones, zero otherwise
	version    uint32
	deleted    bool
}

// licenseOf returns a license of a shape.
func licenseOf(t fatal, c vocab.ContentID, s shape) *License {
	t.Helper()
	p := &policy.Policy{
		Owner: user(t, s.owner), Issuer: policy.Issuer{Issuer: "https://issuer.test", Subject: s.owner}, Template: s.template,
	}
	if s.template.IsZero() {
		p.AdHoc = &policy.AdHoc{Kind: policy.AdHocGrants, Grants: []policy.Grant{{To: p.Owner, Rights: vocab.AllRights}}}
	}
	encoded, err := license.EncodePolicy(p)
	if err != nil {
		t.Fatal(err)
	}
	l := &License{
		Content: c, ContentSuite: 1, Issued: ToMillis(start), Generation: s.generation, KeyBox: []byte("TEST-box"), Policy: encoded,
		Revision: 1, Updated: ToMillis(start), LastEvent: vocab.EventID{1},
	}
	if !s.custodian.IsZero() {
		w := license.Wrap{Custodian: s.custodian, L0Type: license.L0Embedded, L0Version: s.version, Ciphertext: make([]byte, 92)}
		l.Wrap = w.Encode()
	}
	if s.deleted {
		l.Tombstone = 1
	}
	return l
}

func mustPut(t fatal, tx store.Tx, tenant vocab.TenantID, l *License) {
	t.Helper()
	if err := PutLicense(tx, tenant, l); err != nil {
		t.Fatal(err)
	}
}

// findings returns what Check finds.
func findings(t fatal, r store.Reader, tenant vocab.TenantID) (problems []string, records int64) {
	t.Helper()
	records, err := Check(r, tenant, func(err error) { problems = append(problems, err.Error()) })
	if err != nil {
		t.Fatal(err)
	}
	return problems, records
}

func reasonOf(t *testing.T, err error, want vocab.Reason) {
	t.Helper()
	if got := vocab.ReasonOf(err); got != want {
		t.Errorf("error %v has reason %q, want %q", err, got, want)
	}
}
