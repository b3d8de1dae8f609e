package custody_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/openrms/rms/internal/evidence"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/vaulttest"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
	"github.com/openrms/rms/test/evidencetest"
	"github.com/openrms/rms/test/rmsdtest"
)

const verifier = "../../examples/python/verify_evidence.py"

// staffed is a site whose tenant has two administrators.
func staffed(t *testing.T, custodians string) *rmsdtest.Site {
	t.Helper()
	site := rmsdtest.New(t, custodians)
	path := filepath.Join(site.Dir, "tenants.d", site.Name+".yaml")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(b), `admins: ["user:alice@contoso.test"]`, `admins: ["user:alice@contoso.test", "user:grace@contoso.test"]`, 1)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return site
}

// lived is a running daemon whose keys have lived, and what an auditor saved
// before that.
type lived struct {
	site  *rmsdtest.Site
	as    func(string) evidencetest.Person
	saved *rmsv1.Checkpoint
	root  license.KeyID
}

func live(t *testing.T, site *rmsdtest.Site, rotate func(evidencetest.Person)) *lived {
	t.Helper()
	site.Start(t, rmsdtest.Build(t, "")).AwaitServing(t)
	l := &lived{site: site, as: func(name string) evidencetest.Person {
		conn, as := site.Caller(t, name).Conn()
		return evidencetest.Person{Conn: conn, As: as}
	}}
	if r := site.Caller(t, "alice").Publish(t.Context(), ""); r.Err != nil { // pins the root
		t.Fatal(r.Err)
	}
	l.root = site.Verifier.Bundle().Signers()[0]
	erin := l.as("erin")
	var err error
	if l.saved, err = rmsv1.NewAuditServiceClient(erin.Conn).GetCheckpoint(t.Context(), &rmsv1.GetCheckpointRequest{Parent: rmsdtest.Parent}, erin.As); err != nil {
		t.Fatal(err)
	}
	evidencetest.Live(t, l.as, func() { rotate(l.as("carla")) })
	return l
}

// take has erin take evidence that continues what she saved.
func (l *lived) take(t *testing.T) []byte {
	t.Helper()
	return evidencetest.Take(t.Context(), t, l.as("erin"), &rmsv1.GetEvidenceRequest{FromSize: l.saved.GetSize()})
}

// TestEvidence has evidence of a running daemon verified by the service's own
// verifier and by a script that was written from docs/formats.md alone; and edits
// it as a forger would, and as a thief of all the daemon's keys could.
func TestEvidence(t *testing.T) {
	v := evidencetest.NewVerifiers(t, verifier)
	t.Run("embedded", func(t *testing.T) {
		l := live(t, staffed(t, rmsdtest.Embedded), func(p evidencetest.Person) {
			if _, err := rmsv1.NewCustodyServiceClient(p.Conn).RotateKey(t.Context(), &rmsv1.RotateKeyRequest{Name: rmsdtest.Parent + "/keys/root"}, p.As); err != nil {
				t.Fatal(err)
			}
		})
		evidencetest.Attack(t, v, l.take(t), l.root, []byte(l.saved.GetNote()))
	})
	t.Run("vault", func(t *testing.T) {
		server := vaulttest.Start(t)
		place := vaulttest.Tenant(t, server, rmsdtest.Tenant)
		l := live(t, staffed(t, custodianOf(server, place, server.Address, server.CAFile, "")), func(evidencetest.Person) {
			if err := place.Rotate(t.Context(), "root"); err != nil {
				t.Fatal(err)
			}
		})
		b := l.take(t)
		evidencetest.Attack(t, v, b, l.root, []byte(l.saved.GetNote()))

		// And Vault really said so: its own audit file has the reads.
		held, err := evidence.Verify(b, []license.KeyID{l.root}, nil)
		if err != nil {
			t.Fatal(err)
		}
		f := held.Facts[0]
		if f.Cluster != server.ClusterID || f.Root.Latest != 2 || f.Root.Attributes != evidence.Derived || len(f.Requests) < 2 {
			t.Errorf("the facts are %+v %+v", f, f.Root)
		}
		entries, err := server.ReadAudit()
		if err != nil {
			t.Fatal(err)
		}
		read := map[string]string{}
		for _, e := range entries {
			if e.Type == "response" && e.Error == "" {
				read[e.Request.ID] = e.Request.Operation + " " + e.Request.Path
			}
		}
		want := map[string]bool{"read " + place.Mount + "/keys/root": true, "read " + place.Mount + "/keys/sign": true}
		for _, id := range f.Requests {
			delete(want, read[id])
		}
		if len(want) > 0 {
			t.Errorf("Vault's audit file has none of %v under %v", want, f.Requests)
		}
	})
}
