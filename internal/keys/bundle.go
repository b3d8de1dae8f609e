package keys

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/vocab"
)

// BundleLife is how far ahead a trust bundle promises its successor.
const BundleLife = 7 * 24 * time.Hour

// NewBundle builds a tenant's next trust bundle from the facts of its active
// custodian and has it signed by the current root and, as long as the custodian
// still signs with it, by the one before, so that clients that pinned that one
// follow. template gives everything but roots and times; its Seq must be above
// every earlier one's. prior is the bundle before, nil for the first: its roots
// are carried over, also those of another custodian the tenant moved from.
// previous signs for such a root; nil lets the active custodian do it.
func NewBundle(ctx context.Context, c Custodian, f *Facts, m Mark, template license.Bundle, prior *license.Bundle, previous license.Signer, now time.Time) (*license.Bundle, error) {
	if err := f.Safe(); err != nil {
		return nil, err
	}
	compromised := make(map[license.KeyID]bool)
	if prior != nil {
		for _, r := range prior.Roots {
			compromised[r.ID()] = r.State == license.RootCompromised
		}
	}
	for _, r := range template.Roots {
		if r.State == license.RootCompromised {
			compromised[r.ID()] = true
		}
	}
	current, err := RootKeyOf(c, f, 0)
	if err != nil {
		return nil, err
	}
	if compromised[license.KeyIDOf(current.PublicKey())] {
		return nil, vocab.Errorf(vocab.ReasonKeyState, "the current root is marked as compromised").WithNext("Rotate it first")
	}
	b := template
	b.Roots = Roots(f, m, compromised)
	if prior != nil {
		for _, r := range prior.Roots {
			if !slices.ContainsFunc(b.Roots, func(have license.Root) bool { return have.ID() == r.ID() }) {
				if r.State == license.RootCurrent {
					r.State = license.RootPrevious
				}
				b.Roots = append(b.Roots, r)
			}
		}
	}
	b.IssuedAt = now.UTC().Truncate(time.Millisecond)
	b.NextUpdate = b.IssuedAt.Add(BundleLife)

	if previous == nil {
		if p := newestPrevious(b.Roots, f); p != nil {
			if k, err := RootKeyOf(c, f, p.Version); err == nil && k.PublicKey().Equal(p.Key) {
				previous = k
			}
		}
	}
	if previous != nil && !compromised[license.KeyIDOf(previous.PublicKey())] {
		return license.SignBundle(ctx, b, current, previous)
	}
	return license.SignBundle(ctx, b, current)
}

// newestPrevious is the root that clients are most likely to have pinned.
func newestPrevious(roots []license.Root, f *Facts) *license.Root {
	var best *license.Root
	for i, r := range roots {
		if r.State == license.RootPrevious && r.Version < f.Sign.Latest && (best == nil || cmp.Compare(r.Version, best.Version) > 0) {
			best = &roots[i]
		}
	}
	return best
}
