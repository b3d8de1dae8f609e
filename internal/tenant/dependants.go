package tenant

import (
	"bytes"
	"context"
	"slices"

	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// Dependant is a license that something opens: whom the loss of it would hit.
// Titles are not among what custodians of keys see.
type Dependant struct {
	Content vocab.ContentID
	Owner   vocab.Principal
	// Key and Version are what opens it, Generation the number of the generation
	// it is under; 0: one of its own.
	Key        string
	Version    uint32
	Generation uint32
	Revoked    bool
}

// ListDependants returns up to limit licenses that a key, a version or a
// generation opens, after a content ID (zero: from the oldest), oldest first, and
// the ID to go on after, zero at the end.
func (t *Tenant) ListDependants(ctx context.Context, target KeyTarget, after vocab.ContentID, limit int) (out []Dependant, next vocab.ContentID, err error) {
	err = t.store.View(ctx, func(r store.Reader) error {
		out, next = nil, vocab.ContentID{}
		inv, err := t.survey(r)
		if err != nil {
			return err
		}
		refs, err := inv.refs(target)
		if err != nil {
			return err
		}
		var ids []vocab.ContentID
		for _, ref := range refs {
			some, err := record.NextDependants(r, t.id, ref, after, limit+1)
			if err != nil {
				return err
			}
			ids = append(ids, some...)
		}
		slices.SortFunc(ids, func(a, b vocab.ContentID) int { return bytes.Compare(a[:], b[:]) })
		if len(ids) > limit {
			ids, next = ids[:limit], ids[limit-1]
		}
		for _, id := range ids {
			d, err := t.dependant(r, inv, id)
			if err != nil {
				return err
			}
			out = append(out, d)
		}
		return nil
	})
	return out, next, err
}

// refs are what licenses of a target depend on directly.
func (inv *Inventory) refs(target KeyTarget) (refs []record.KeyRef, err error) {
	if target.Generation > 0 {
		for i := range inv.Generations {
			if g := &inv.Generations[i]; g.Number == target.Generation {
				return []record.KeyRef{record.GenerationRef(g.ID)}, nil
			}
		}
		return nil, vocab.Errorf(vocab.ReasonResourceNotFound, "there is no such generation").WithNext("See rmsctl key inventory")
	}
	if inv.keys[target.Key] == nil {
		return nil, noKey()
	}
	for i := range inv.Versions {
		v := &inv.Versions[i]
		if v.Key != target.Key || target.Version > 0 && v.Number != target.Version {
			continue
		}
		refs = append(refs, record.VersionRef(v.Custodian, v.Number))
		for j := range inv.Generations {
			if g := &inv.Generations[j]; g.Custodian == v.Custodian && g.Version == v.Number {
				refs = append(refs, record.GenerationRef(g.ID))
			}
		}
	}
	if len(refs) == 0 && target.Version > 0 {
		err = vocab.Errorf(vocab.ReasonResourceNotFound, "the key has no version %d", target.Version).WithNext("See rmsctl key inventory")
	}
	return refs, err
}

// dependant reads a license that an index names.
func (t *Tenant) dependant(r store.Reader, inv *Inventory, id vocab.ContentID) (d Dependant, err error) {
	l, err := record.GetLicense(r, t.id, id)
	if err == nil && l == nil {
		err = contradicts("license " + id.String())
	}
	if err != nil {
		return d, err
	}
	p, err := l.DecodePolicy()
	if err != nil {
		return d, err
	}
	d = Dependant{Content: id, Owner: p.Owner, Revoked: l.Revoked != nil}
	if len(l.Wrap) > 0 {
		w, err := license.ParseWrap(l.Wrap)
		if err != nil {
			return d, vocab.Errorf(vocab.ReasonStoreDamaged, "the wrapped key of license %s cannot be read", id).Because(err)
		}
		v := inv.version(w.Custodian, w.L0Version)
		d.Key, d.Version = v.Key, w.L0Version
		return d, nil
	}
	for i := range inv.Generations {
		if g := &inv.Generations[i]; g.ID == l.Generation {
			d.Key, d.Version, d.Generation = g.Key, g.Version, g.Number
		}
	}
	return d, nil
}
