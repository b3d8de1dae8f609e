package record

import (
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// TemplateHead points at a template's current revision. A deleted template
// keeps its head, so that its slug stays taken and it can be restored.
type TemplateHead struct {
	Slug     string `cbor:"1,keyasint"`
	Revision uint32 `cbor:"2,keyasint"`
}

// GetTemplate returns the head of a template, or nil.
func GetTemplate(r store.Reader, t vocab.TenantID, uid vocab.TemplateUID) (*TemplateHead, error) {
	h := new(TemplateHead)
	ok, err := get(r, tableTemplates, key(t, uid[:]), h)
	if err != nil || !ok {
		return nil, err
	}
	return h, nil
}

// FindTemplate returns the template of a slug, zero if there is none.
func FindTemplate(r store.Reader, t vocab.TenantID, slug string) (vocab.TemplateUID, error) {
	b, ok, err := r.Get(tableSlugs, key(t, []byte(slug)))
	if err != nil || !ok {
		return vocab.TemplateUID{}, err
	}
	if len(b) != 16 {
		return vocab.TemplateUID{}, damaged(tableSlugs, nil)
	}
	return vocab.TemplateUID(b), nil
}

// GetTemplateRevision returns the signed envelope of a revision, or nil.
func GetTemplateRevision(r store.Reader, t vocab.TenantID, uid vocab.TemplateUID, revision uint32) ([]byte, error) {
	b, ok, err := r.Get(tableRevisions, key(t, uid[:], u32(revision)))
	if err != nil || !ok {
		return nil, err
	}
	return b, nil
}

// PutTemplateRevision writes a revision and makes it the current one. The
// caller has checked that it follows the current one, and that the slug is
// free or the template's own.
func PutTemplateRevision(tx store.Tx, t vocab.TenantID, uid vocab.TemplateUID, h TemplateHead, envelope []byte) error {
	if err := tx.Put(tableRevisions, key(t, uid[:], u32(h.Revision)), envelope); err != nil {
		return err
	}
	if err := tx.Put(tableSlugs, key(t, []byte(h.Slug)), uid[:]); err != nil {
		return err
	}
	return put(tx, tableTemplates, key(t, uid[:]), &h)
}

// ListTemplates calls fn with every template after the slug "after", in the
// order of slugs, until fn returns false.
func ListTemplates(r store.Reader, t vocab.TenantID, after string, fn func(slug string, uid vocab.TemplateUID) (bool, error)) error {
	rng := store.Range{Prefix: key(t)}
	if after != "" {
		rng.From = key(t, []byte(after))
	}
	for item, err := range r.Scan(tableSlugs, rng) {
		if err != nil {
			return err
		}
		slug := string(item.Key[16:])
		if slug == after {
			continue
		}
		if len(item.Value) != 16 {
			return damaged(tableSlugs, nil)
		}
		if more, err := fn(slug, vocab.TemplateUID(item.Value)); err != nil || !more {
			return err
		}
	}
	return nil
}
