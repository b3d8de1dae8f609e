package record

import (
	"encoding/binary"
	"strings"

	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/operation"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// Resource is what administrators manage and decisions read beside licenses
// and templates: a group, the holders of a role, a disabled principal, a
// revocation, an operation, the approvers, a tenant key, a generation. All are kept alike: under their name in the API, in
// one table, bound to the log, and never removed, so that one that is missing is
// one that somebody took out.
type Resource struct {
	// Name is the name in the API without the tenant: groups/ADDRESS,
	// roles/ROLE, principals/PRINCIPAL, keys/NAME. It is the target of its events too.
	Name string `cbor:"1,keyasint"`
	// Revision grows with every change, from 1.
	Revision uint32 `cbor:"2,keyasint"`
	Updated  Millis `cbor:"3,keyasint"`
	// LastEvent is the event of the last change.
	LastEvent vocab.EventID `cbor:"4,keyasint"`
	// Gone is 1 after deletion; the body is then empty.
	Gone uint8 `cbor:"5,keyasint,omitempty"`
	// Body is what it says, encoded as its kind.
	Body []byte `cbor:"6,keyasint,omitempty"`
}

// State is the hash of the resource as it is stored, which the event that
// wrote it holds too.
func (s *Resource) State() ([32]byte, error) { return stateOf(tableResources, s) }

// Encode returns the stored form: what State is the hash of.
func (s *Resource) Encode() ([]byte, error) { return encodeBody(s) }

// ParseResource reads the stored form of a resource of any name, and of its body
// only that it is one of its kind. The error is STORE_DAMAGED.
func ParseResource(b []byte) (*Resource, error) {
	s := new(Resource)
	if err := canon.Unmarshal(b, s); err != nil {
		return nil, damaged(tableResources, err)
	}
	return s, s.check()
}

// GetResource returns a resource, tombstones included, or nil.
func GetResource(r store.Reader, t vocab.TenantID, name string) (*Resource, error) {
	b, ok, err := r.Get(tableResources, key(t, []byte(name)))
	if err != nil || !ok {
		return nil, err
	}
	return decodeResource(name, b)
}

// decodeResource reads the stored form of the resource that is kept under a name.
func decodeResource(name string, b []byte) (*Resource, error) {
	s := new(Resource)
	if err := canon.Unmarshal(b, s); err != nil {
		return nil, damaged(tableResources, err)
	}
	if s.Name != name {
		return nil, damaged(tableResources, nil)
	}
	return s, nil
}

// PutResource writes a resource over the one that was there, and returns the
// tenant's new epoch.
func PutResource(tx store.Tx, t vocab.TenantID, s *Resource) (epoch uint64, err error) {
	if err := put(tx, tableResources, key(t, []byte(s.Name)), s); err != nil {
		return 0, err
	}
	if epoch, err = Epoch(tx, t); err != nil {
		return 0, err
	}
	epoch++
	return epoch, tx.Put(tableEpochs, key(t), u64(epoch))
}

// Epoch counts the changes of a tenant's resources: what was decided on them
// holds while it is the same.
func Epoch(r store.Reader, t vocab.TenantID) (uint64, error) {
	b, ok, err := r.Get(tableEpochs, key(t))
	if err != nil || !ok {
		return 0, err
	}
	if len(b) != 8 {
		return 0, damaged(tableEpochs, nil)
	}
	return binary.BigEndian.Uint64(b), nil
}

// ListResources calls fn with the resources whose names begin with prefix and
// follow the name after, tombstones included, in the order of their names, until
// fn returns false.
func ListResources(r store.Reader, t vocab.TenantID, prefix, after string, fn func(*Resource) (bool, error)) error {
	rng := store.Range{Prefix: key(t, []byte(prefix))}
	if after != "" {
		rng.From = key(t, []byte(after))
	}
	for item, err := range r.Scan(tableResources, rng) {
		if err != nil {
			return err
		}
		name := string(item.Key[16:])
		if name == after {
			continue
		}
		s, err := decodeResource(name, item.Value)
		if err != nil {
			return err
		}
		if more, err := fn(s); err != nil || !more {
			return err
		}
	}
	return nil
}

// ID is the last part of the name.
func (s *Resource) ID() string {
	_, id, _ := strings.Cut(s.Name, "/")
	return id
}

// check reports whether the body is one of its kind.
func (s *Resource) check() (err error) {
	switch {
	case s.Name == NameApprovers: // a tombstone is none
		_, err = operation.DecodeApprovers(s.Body)
	case s.Gone != 0:
		if len(s.Body) > 0 {
			err = damaged(tableResources, nil)
		}
	case strings.HasPrefix(s.Name, PrefixGroups):
		_, err = DecodeGroup(s.Body)
	case strings.HasPrefix(s.Name, PrefixRoles):
		_, err = DecodeHolders(s.Body)
	case strings.HasPrefix(s.Name, PrefixPrincipals):
		_, err = DecodeDisabled(s.Body)
	case strings.HasPrefix(s.Name, PrefixRevocations):
		_, err = DecodeRevocationRule(s.Body)
	case strings.HasPrefix(s.Name, PrefixOperations):
		_, err = operation.Decode(s.Body)
	case s.Name == NameResidence:
		_, err = DecodeResidence(s.Body)
	case strings.HasPrefix(s.Name, PrefixKeys), strings.HasPrefix(s.Name, PrefixGenerations):
		err = s.checkKey()
	case strings.HasPrefix(s.Name, PrefixBackups):
		err = checkBackup(s.Name, s.Body)
	}
	return err
}
