package record

import (
	"bytes"

	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// License is the server's record of a document, and the only authority for
// its policy and key.
type License struct {
	Content      vocab.ContentID    `cbor:"1,keyasint"`
	Commitment   [32]byte           `cbor:"2,keyasint"`
	ContentSuite uint16             `cbor:"3,keyasint"`
	Issued       Millis             `cbor:"4,keyasint"`
	Generation   vocab.GenerationID `cbor:"5,keyasint"`
	Salt         [32]byte           `cbor:"6,keyasint"`
	// KeyBox holds the content key: see [license.KeyBox].
	KeyBox []byte `cbor:"7,keyasint"`
	// Wrap is the document's own generation, wrapped; strict only.
	Wrap []byte `cbor:"8,keyasint,omitempty"`
	// Policy is the encoded policy the key box is bound to.
	Policy []byte `cbor:"9,keyasint"`
	// Revision grows with every change, from 1.
	Revision uint32 `cbor:"10,keyasint"`
	Updated  Millis `cbor:"11,keyasint"`
	// Title and Contact are the owner's words, outside the key box.
	Title   string `cbor:"12,keyasint,omitempty"`
	Contact string `cbor:"13,keyasint,omitempty"`
	// Revoked is set while revoked. It lies outside the key box, so that a
	// license can be revoked while the custodian is away.
	Revoked *Revocation `cbor:"14,keyasint,omitempty"`
	// Tombstone is 1 after deletion: the content ID stays taken for ever.
	Tombstone uint8 `cbor:"15,keyasint,omitempty"`
	// LastEvent is the event of the last change.
	LastEvent vocab.EventID `cbor:"16,keyasint"`
}

// Revocation says since when, by whom and why a license is revoked.
type Revocation struct {
	At     Millis `cbor:"1,keyasint"`
	By     string `cbor:"2,keyasint"`
	Reason string `cbor:"3,keyasint,omitempty"`
}

// Custody returns the license's custody mode.
func (l *License) Custody() vocab.CustodyMode {
	if len(l.Wrap) > 0 {
		return vocab.CustodyStrict
	}
	return vocab.CustodyCached
}

// State is the hash of all of the record, which the event that wrote it holds
// too: see package audit. LastEvent, which names that event, is part of it.
func (l *License) State() ([32]byte, error) { return stateOf(tableLicenses, l) }

// DecodePolicy returns the policy.
func (l *License) DecodePolicy() (*policy.Policy, error) {
	p, err := license.DecodePolicy(l.Policy)
	if err != nil {
		return nil, damaged(tableLicenses, err)
	}
	return p, nil
}

// Box names everything the key box is bound to.
func (l *License) Box(t vocab.TenantID) license.KeyBox {
	return license.KeyBox{
		Tenant: t, Content: l.Content, ContentSuite: l.ContentSuite, Commitment: l.Commitment,
		Generation: l.Generation, Salt: l.Salt, PolicyHash: license.PolicyHash(l.Policy),
	}
}

// GetLicense returns the record of a document, tombstones included, or nil.
func GetLicense(r store.Reader, t vocab.TenantID, c vocab.ContentID) (*License, error) {
	l := new(License)
	ok, err := get(r, tableLicenses, key(t, c[:]), l)
	if err != nil || !ok {
		return nil, err
	}
	if l.Content != c {
		return nil, damaged(tableLicenses, nil)
	}
	return l, nil
}

// EachLicense calls fn with every license of a tenant in the order of their
// IDs, or with the error of one that cannot be read, until fn returns an error.
func EachLicense(r store.Reader, t vocab.TenantID, fn func(*License, error) error) error {
	for item, err := range r.Scan(tableLicenses, store.Range{Prefix: key(t)}) {
		if err != nil {
			return err
		}
		if len(item.Key) != 32 {
			err = damaged(tableLicenses, nil)
		}
		var l *License
		if err == nil {
			l, err = GetLicense(r, t, vocab.ContentID(item.Key[16:]))
		}
		if err := fn(l, err); err != nil {
			return err
		}
	}
	return nil
}

// PutLicense writes a license with its indexes, over the one that was there,
// whose policy is kept if the new one has another.
func PutLicense(tx store.Tx, t vocab.TenantID, l *License) error {
	old, err := GetLicense(tx, t, l.Content)
	if err != nil {
		return err
	}
	if old != nil {
		if err := eachIndex(t, old, func(table store.Table, prefix []byte) error {
			return unindex(tx, table, prefix, l.Content)
		}); err != nil {
			return err
		}
		if err := keepPolicy(tx, t, old, l); err != nil {
			return err
		}
	}
	if err := eachIndex(t, l, func(table store.Table, prefix []byte) error {
		return index(tx, table, prefix, l.Content)
	}); err != nil {
		return err
	}
	if old != nil {
		if err := noteMoved(tx, t, old, l); err != nil {
			return err
		}
	}
	return put(tx, tableLicenses, key(t, l.Content[:]), l)
}

// eachIndex calls fn with every index entry a license has.
func eachIndex(t vocab.TenantID, l *License, fn func(table store.Table, prefix []byte) error) error {
	p, err := l.DecodePolicy()
	if err != nil {
		return err
	}
	if l.Tombstone == 0 {
		if err := fn(tableByOwner, key(t, ownerKey(p.Owner))); err != nil {
			return err
		}
		if !p.Template.IsZero() {
			if err := fn(tableByTemplate, key(t, p.Template[:])); err != nil {
				return err
			}
			if err := fn(tableByCustody, key(t, p.Template[:], []byte{byte(l.Custody())})); err != nil {
				return err
			}
		}
	}
	if len(l.Wrap) == 0 {
		return fn(tableByGeneration, key(t, l.Generation[:]))
	}
	w, err := license.ParseWrap(l.Wrap)
	if err != nil {
		return damaged(tableLicenses, err)
	}
	return fn(tableByKeyVersion, key(t, w.Custodian[:], u32(w.L0Version)))
}

// ownerKey gives owners index keys of one length whatever their names.
func ownerKey(p vocab.Principal) []byte {
	h := canon.Hash([]byte(p.String()))
	return h[:16]
}

func index(tx store.Tx, table store.Table, prefix []byte, c vocab.ContentID) error {
	k := append(bytes.Clone(prefix), c[:]...)
	_, there, err := tx.Get(table, k)
	if err != nil || there {
		return err
	}
	if err := tx.Put(table, k, nil); err != nil {
		return err
	}
	return count(tx, table, prefix, +1)
}

func unindex(tx store.Tx, table store.Table, prefix []byte, c vocab.ContentID) error {
	k := append(bytes.Clone(prefix), c[:]...)
	_, there, err := tx.Get(table, k)
	if err != nil || !there {
		return err
	}
	if err := tx.Delete(table, k); err != nil {
		return err
	}
	return count(tx, table, prefix, -1)
}

// ListQuery selects licenses. At most one of Owner and Template is set; Match,
// if set, decides on what they leave.
type ListQuery struct {
	Owner    vocab.Principal
	Template vocab.TemplateUID
	// Before starts after this content ID (exclusive) going back in time.
	Before vocab.ContentID
	Limit  int
	Match  func(*License) bool
}

// ListLicenses returns licenses newest first and the content ID to go on
// before, zero at the end. It looks at no more than ten pages of candidates,
// so a page may be short, or empty, before the end.
func ListLicenses(r store.Reader, t vocab.TenantID, q ListQuery) (page []*License, next vocab.ContentID, err error) {
	table, prefix := tableLicenses, key(t)
	switch {
	case !q.Owner.IsZero():
		table, prefix = tableByOwner, key(t, ownerKey(q.Owner))
	case !q.Template.IsZero():
		table, prefix = tableByTemplate, key(t, q.Template[:])
	}
	rng := store.Range{Prefix: prefix, Reverse: true}
	if !q.Before.IsZero() {
		rng.From = append(bytes.Clone(prefix), q.Before[:]...)
	}
	seen := 0
	for item, err := range r.Scan(table, rng) {
		if err != nil {
			return nil, next, err
		}
		c := vocab.ContentID(item.Key[len(item.Key)-16:])
		if c == q.Before {
			continue
		}
		if len(page) == q.Limit || seen == 10*maxScan {
			return page, next, nil
		}
		seen++
		next = c
		l, err := GetLicense(r, t, c)
		if err != nil {
			return nil, next, err
		}
		if l == nil {
			return nil, next, damaged(table, nil)
		}
		if l.Tombstone == 0 && (q.Match == nil || q.Match(l)) {
			page = append(page, l)
		}
	}
	return page, vocab.ContentID{}, nil
}
