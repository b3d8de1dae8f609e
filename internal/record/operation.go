package record

import (
	"slices"

	"github.com/openrms/rms/internal/operation"
	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// OperationName is the name of an operation's resource.
func OperationName(id vocab.OperationID) string { return PrefixOperations + id.String() }

// ListOperations calls fn with the operations before an ID (zero: from the
// newest), newest first, until fn returns false.
func ListOperations(r store.Reader, t vocab.TenantID, before vocab.OperationID, fn func(*Resource, *operation.Operation) (bool, error)) error {
	rng := store.Range{Prefix: key(t, []byte(PrefixOperations)), Reverse: true}
	if !before.IsZero() {
		rng.From = key(t, []byte(OperationName(before)))
	}
	for item, err := range r.Scan(tableResources, rng) {
		if err != nil {
			return err
		}
		name := string(item.Key[16:])
		if !before.IsZero() && name == OperationName(before) {
			continue
		}
		s, err := GetResource(r, t, name)
		if err != nil {
			return err
		}
		o, err := operation.Decode(s.Body)
		if err != nil {
			return err
		}
		if more, err := fn(s, o); err != nil || !more {
			return err
		}
	}
	return nil
}

// Progress is how far an operation is that works through many licenses. It is
// written in the transaction of the licenses it counts, and removed at the end,
// when the operation itself says how it went. It is not bound to the log: the
// licenses are, each with its own event.
type Progress struct {
	// After is the last license that was looked at.
	After vocab.ContentID `cbor:"1,keyasint"`
	// Total is how many there were at the start.
	Total    uint64 `cbor:"2,keyasint,omitempty"`
	Done     uint64 `cbor:"3,keyasint,omitempty"`
	Failures uint64 `cbor:"4,keyasint,omitempty"`
	// Failed are the first of the licenses that could not be worked on.
	Failed []operation.ItemError `cbor:"5,keyasint,omitempty"`
	// Finished is 1 when nothing is left, of an operation that goes on all the
	// same.
	Finished uint8 `cbor:"6,keyasint,omitempty"`
	// Scope is the [LicenseScope.Name] of the scope that After is of, for those
	// that have several.
	Scope []byte `cbor:"7,keyasint,omitempty"`
	// Known are those that failed when the scopes were gone through before: they
	// are not tried again.
	Known []operation.ItemError `cbor:"10,keyasint,omitempty"`
	// Generations are how many generations are done, of a rewrap, and
	// FailedGenerations those that could not be.
	Generations       uint64   `cbor:"8,keyasint,omitempty"`
	FailedGenerations []uint32 `cbor:"9,keyasint,omitempty"`
}

// GetProgress returns how far an operation is; the zero value if it has not
// begun.
func GetProgress(r store.Reader, t vocab.TenantID, id vocab.OperationID) (*Progress, error) {
	p := new(Progress)
	_, err := get(r, tableProgress, key(t, id[:]), p)
	return p, err
}

// PutProgress writes how far an operation is.
func PutProgress(tx store.Tx, t vocab.TenantID, id vocab.OperationID, p *Progress) error {
	return put(tx, tableProgress, key(t, id[:]), p)
}

// DeleteProgress forgets how far an operation was.
func DeleteProgress(tx store.Tx, t vocab.TenantID, id vocab.OperationID) error {
	return tx.Delete(tableProgress, key(t, id[:]))
}

// LicenseScope selects licenses for an operation to work through. Exactly one
// of Owner, Template, Generation and Key is set.
type LicenseScope struct {
	Owner    vocab.Principal
	Template vocab.TemplateUID
	// Custody, with Template, selects those that are kept in this mode; 0: all.
	Custody vocab.CustodyMode
	// Generation selects those that are sealed under a generation of the
	// tenant's, Key and Version strict ones by what wraps their own.
	Generation vocab.GenerationID
	Key        vocab.CustodianID
	Version    uint32
}

// table returns the index the scope is read from.
func (s *LicenseScope) table(t vocab.TenantID) (store.Table, []byte) {
	switch {
	case !s.Owner.IsZero():
		return tableByOwner, key(t, ownerKey(s.Owner))
	case s.Custody != 0:
		return tableByCustody, key(t, s.Template[:], []byte{byte(s.Custody)})
	case !s.Generation.IsZero():
		return tableByGeneration, key(t, s.Generation[:])
	case !s.Key.IsZero():
		return tableByKeyVersion, key(t, s.Key[:], u32(s.Version))
	}
	return tableByTemplate, key(t, s.Template[:])
}

// Name tells a scope from the others of one operation, and orders them.
func (s *LicenseScope) Name() []byte {
	table, prefix := s.table(vocab.TenantID{})
	return append(append([]byte(table), 0), prefix[16:]...)
}

// holds reports whether a license that the index names is one: the index of
// owners holds hashes.
func (s *LicenseScope) holds(p *policy.Policy) bool { return s.Owner.IsZero() || p.Owner == s.Owner }

// CountScope returns how many licenses a scope has, by its index's count.
func CountScope(r store.Reader, t vocab.TenantID, s LicenseScope) (int64, error) {
	return readCount(r, countKey(s.table(t)))
}

// Listed is a license of a scope, or why it cannot be read.
type Listed struct {
	Content vocab.ContentID
	License *License
	Policy  *policy.Policy
	Err     error
}

// NextLicenses returns up to limit licenses of a scope after a content ID, in
// the order of their IDs, which is that of their publication. Fewer than limit
// are the last.
func NextLicenses(r store.Reader, t vocab.TenantID, s LicenseScope, after vocab.ContentID, limit int) (out []Listed, err error) {
	table, prefix := s.table(t)
	rng := store.Range{Prefix: prefix, From: append(slices.Clone(prefix), after[:]...)}
	for item, err := range r.Scan(table, rng) {
		if err != nil {
			return nil, err
		}
		next := Listed{Content: vocab.ContentID(item.Key[len(item.Key)-16:])}
		if next.Content == after {
			continue
		}
		if len(out) == limit {
			break
		}
		next.License, next.Err = GetLicense(r, t, next.Content)
		if next.Err == nil && next.License == nil {
			next.Err = damaged(table, nil)
		}
		if next.Err == nil {
			next.Policy, next.Err = next.License.DecodePolicy()
		}
		if next.Err != nil || s.holds(next.Policy) {
			out = append(out, next)
		}
	}
	return out, nil
}
