package keys

import (
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/vocab"
)

// Standing is how the key of a license stands: what a decision's record says of
// it. It gives no right to use the key.
type Standing struct {
	// Number is that of the tenant's generation; 0 for a document's own, and
	// for one that is not there.
	Number uint32
	// Version is that of the tenant key which wraps it.
	Version uint32
	// State is the generation's; 0 for a document's own.
	State State
	// VersionState is the version's, or the whole key's if that says more; 0 if
	// none was set, which makes it usable.
	VersionState State
}

// Usable reports whether content may be opened with a key that stands so, as
// far as its states say.
func (s Standing) Usable() bool {
	return (s.State == 0 || s.State.Opens()) && (s.VersionState == 0 || s.VersionState.Opens())
}

// Standing looks up a license's key: its generation, or for custody strict the
// wrap of its own. It does no I/O and does not block.
func (r *Ring) Standing(id vocab.GenerationID, own *license.Wrap) (s Standing) {
	r.mu.Lock()
	defer r.mu.Unlock()
	w := own
	if w == nil {
		g := r.byID[id]
		if g == nil {
			return s
		}
		s.Number, s.State, w = g.Number, g.State, &g.Wrap
	}
	k := r.states[w.Custodian]
	s.Version, s.VersionState = w.L0Version, k.Versions[w.L0Version]
	if k.State != 0 && !k.State.Opens() {
		s.VersionState = k.State
	}
	return s
}
