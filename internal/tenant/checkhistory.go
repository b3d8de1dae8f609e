package tenant

import (
	"context"
	"fmt"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/decision"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// historyCheck looks, event by event, whether what decisions rested on is
// still there: without it nobody can say any more why somebody was let in.
type historyCheck struct {
	store  store.Store
	tenant vocab.TenantID
	found  func(error)
	seen   map[policyKey]struct{}
}

type policyKey struct {
	content vocab.ContentID
	hash    [32]byte
}

// maxSeen bounds what the check remembers to have looked at.
const maxSeen = 100_000

// event checks one event.
func (h *historyCheck) event(ctx context.Context, e *audit.Event) error {
	if len(e.Decision) == 0 {
		return nil
	}
	in, err := decision.Decode(e.Decision, e.Principal.Name)
	if err != nil {
		return report(err, h.found)
	}
	if in.License != nil {
		if err := h.policy(ctx, e.ID, policyKey{e.Content, in.License.Policy}); err != nil {
			return err
		}
	}
	if in.Publish == nil {
		return nil
	}
	for _, p := range in.Publish.Parents {
		if p.License == nil {
			continue
		}
		if err := h.policy(ctx, e.ID, policyKey{p.Content, p.License.Policy}); err != nil {
			return err
		}
	}
	return nil
}

func (h *historyCheck) policy(ctx context.Context, e vocab.EventID, k policyKey) error {
	if _, done := h.seen[k]; done {
		return nil
	}
	if h.seen == nil || len(h.seen) >= maxSeen {
		h.seen = map[policyKey]struct{}{}
	}
	h.seen[k] = struct{}{}
	return h.store.View(ctx, func(r store.Reader) error {
		b, err := record.GetPolicy(r, h.tenant, k.content, k.hash)
		if err == nil && b == nil {
			err = contradicts(fmt.Sprintf("the policy of license %s that decided event %s, which is missing,", k.content, e))
		}
		return report(err, h.found)
	})
}

// settings compares every earlier revision of the settings with the event that
// wrote it.
func (h *historyCheck) settings(r store.Reader, now uint32) error {
	for n := uint32(1); n < now; n++ {
		s, known, err := record.GetSettingsRevision(r, h.tenant, n)
		if err == nil && known { // that one is missing, the check of the records finds
			err = verifySettings(r, h.tenant, s)
		}
		if err := report(err, h.found); err != nil {
			return err
		}
	}
	return nil
}
