package rmsctl

import (
	"testing"
	"time"

	"github.com/openrms/rms"
	"github.com/openrms/rms/internal/contexts"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/vocab"
)

// A person compares one root. A server that shows the genuine one first and
// signs with another behind it must not get that one pinned.
func TestOneRootIsPinned(t *testing.T) {
	genuine, evil := newTestSigner(), newTestSigner()
	tenant := vocab.TenantID{1}
	bundle := func(state license.RootState, signers ...license.Signer) []byte {
		t.Helper()
		now := time.Now().UTC().Truncate(time.Millisecond)
		b, err := license.SignBundle(t.Context(), license.Bundle{
			Tenant: tenant, IssuedAt: now, Seq: 1, Suites: license.DefaultSuites(), NextUpdate: now.Add(time.Hour),
			Roots: []license.Root{
				{Key: genuine.PublicKey(), Version: 1, State: state},
				{Key: evil.PublicKey(), Version: 2, State: license.RootCurrent},
			},
		}, signers[0], signers[1:]...)
		if err != nil {
			t.Fatal(err)
		}
		return b.Raw()
	}
	id := func(s testSigner) [32]byte { return license.KeyIDOf(s.PublicKey()) }
	for name, tt := range map[string]struct {
		bundle  []byte
		offered [][32]byte
		root    string
		refused bool
		pinned  int
	}{
		"signed by the other":            {bundle(license.RootPrevious, evil), [][32]byte{id(genuine), id(evil)}, "", true, 0},
		"signed by the other, named":     {bundle(license.RootPrevious, evil), [][32]byte{id(evil), id(genuine)}, contexts.KeyID(id(genuine)).String(), true, 0},
		"named and not offered":          {bundle(license.RootPrevious, evil), [][32]byte{id(evil)}, contexts.KeyID(id(genuine)).String(), true, 0},
		"rotated, both signed":           {bundle(license.RootPrevious, evil, genuine), [][32]byte{id(evil), id(genuine)}, contexts.KeyID(id(genuine)).String(), false, 2},
		"nothing offered":                {bundle(license.RootPrevious, evil), nil, "", true, 0},
		"rotated after being found out":  {bundle(license.RootCompromised, evil), [][32]byte{id(evil)}, "", false, 1},
		"named in another form of words": {bundle(license.RootPrevious, evil, genuine), [][32]byte{id(evil)}, "abc", true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			a := &app{folder: contexts.At(t.TempDir())}
			info := &rms.TrustInfo{Tenant: "contoso", TenantID: tenant, RootKeyIDs: tt.offered, Bundle: tt.bundle, BundleSeq: 1}
			c, err := a.firstContact(&contexts.Context{Server: "localhost:1"}, info, loginFlags{root: tt.root})
			if err == nil {
				_, err = adopt(c, info)
			}
			if (err != nil) != tt.refused {
				t.Fatalf("got %v", err)
			}
			if err == nil && len(c.Roots) != tt.pinned {
				t.Errorf("pinned %v", c.Roots)
			}
		})
	}
}
