package tenant_test

import (
	"testing"
	"testing/synctest"

	"github.com/openrms/rms/internal/evidence"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/tenant"
)

// roots are what a client of the tenant has pinned.
func (o *house) roots() (out []license.KeyID) {
	o.t.Helper()
	trust, err := o.Trust(o.t.Context())
	o.check(err)
	return trust.Roots
}

// evidence makes evidence and verifies it as an auditor does.
func (o *house) evidence(scope tenant.EvidenceScope) *evidence.Verified {
	o.t.Helper()
	b, _, err := o.Evidence(o.t.Context(), person("carla"), scope)
	o.check(err)
	v, err := evidence.Verify(b, o.roots(), nil)
	o.check(err)
	return v
}

func TestEvidenceHoldsTheLifeOfTheKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newHouse(t)
		v := o.evidence(tenant.EvidenceScope{})
		t.Logf("%d events, %d facts", len(v.Events), len(v.Facts))
	})
}
