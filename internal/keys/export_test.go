package keys

import "github.com/openrms/rms/internal/vocab"

// Held returns the unwrapped copies in memory themselves, so that tests see
// them zeroed.
func (r *Ring) Held() []*vocab.Secret {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []*vocab.Secret
	for _, g := range r.byNumber {
		if g.copy != nil {
			out = append(out, g.copy.secret)
		}
	}
	return out
}
