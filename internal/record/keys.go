package record

import (
	"encoding/binary"

	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// Generation is a generation of the tenant's: the signed record that never
// changes, and beside it what does.
type Generation struct {
	Number  uint32 `cbor:"1,keyasint"` // from 1, as people say it: g1
	Signed  []byte `cbor:"2,keyasint"`
	Wrap    []byte `cbor:"3,keyasint"`
	State   uint8  `cbor:"4,keyasint"`
	Created Millis `cbor:"5,keyasint"`
}

// ListGenerations returns a tenant's generations by number.
func ListGenerations(r store.Reader, t vocab.TenantID) (out []Generation, err error) {
	for item, err := range r.Scan(tableGenerations, store.Range{Prefix: key(t)}) {
		if err != nil {
			return nil, err
		}
		var g Generation
		ok, err := get(r, tableGenerations, item.Key, &g)
		if err != nil {
			return nil, err
		}
		if !ok || len(item.Key) != 20 || g.Number != binary.BigEndian.Uint32(item.Key[16:]) {
			return nil, damaged(tableGenerations, nil)
		}
		out = append(out, g)
	}
	return out, nil
}

// GetGeneration returns a generation by number, or nil.
func GetGeneration(r store.Reader, t vocab.TenantID, number uint32) (*Generation, error) {
	g := new(Generation)
	ok, err := get(r, tableGenerations, key(t, u32(number)), g)
	if err != nil || !ok {
		return nil, err
	}
	if g.Number != number {
		return nil, damaged(tableGenerations, nil)
	}
	return g, nil
}

// PutGeneration writes a generation.
func PutGeneration(tx store.Tx, t vocab.TenantID, g *Generation) error {
	return put(tx, tableGenerations, key(t, u32(g.Number)), g)
}

// Key is a custodian's key that is registered as a tenant key.
type Key struct {
	ID vocab.CustodianID `cbor:"1,keyasint"`
	// Name is the key's name among people: tenants/T/keys/NAME.
	Name string `cbor:"2,keyasint"`
	// Kind and Place say which key it is: embedded or vault, and the
	// custodian's address, mount and key name. A key that moved is another.
	Kind  string `cbor:"3,keyasint"`
	Place string `cbor:"4,keyasint"`
	// Cluster is the custodian's identity when it was registered.
	Cluster    string `cbor:"5,keyasint,omitempty"`
	Registered Millis `cbor:"6,keyasint"`
	// Active is 1 for the one key that wraps what is new.
	Active uint8 `cbor:"7,keyasint,omitempty"`
	// Mark is the high-water mark of what the custodian said of the key, in
	// the encoding of package tenant.
	Mark []byte `cbor:"8,keyasint,omitempty"`
}

// ListKeys returns a tenant's registered keys.
func ListKeys(r store.Reader, t vocab.TenantID) (out []Key, err error) {
	for item, err := range r.Scan(tableKeys, store.Range{Prefix: key(t)}) {
		if err != nil {
			return nil, err
		}
		var k Key
		ok, err := get(r, tableKeys, item.Key, &k)
		if err != nil {
			return nil, err
		}
		if !ok || string(k.ID[:]) != string(item.Key[16:]) {
			return nil, damaged(tableKeys, nil)
		}
		out = append(out, k)
	}
	return out, nil
}

// GetKey returns a registered key, or nil.
func GetKey(r store.Reader, t vocab.TenantID, id vocab.CustodianID) (*Key, error) {
	k := new(Key)
	ok, err := get(r, tableKeys, key(t, id[:]), k)
	if err != nil || !ok {
		return nil, err
	}
	if k.ID != id {
		return nil, damaged(tableKeys, nil)
	}
	return k, nil
}

// PutKey writes a registered key.
func PutKey(tx store.Tx, t vocab.TenantID, k *Key) error {
	return put(tx, tableKeys, key(t, k.ID[:]), k)
}

// VersionState is the state of a version of a registered key.
type VersionState struct {
	Custodian vocab.CustodianID
	Version   uint32
	State     uint8
}

// ListVersionStates returns the states that were set; a version without one is
// usable.
func ListVersionStates(r store.Reader, t vocab.TenantID) (out []VersionState, err error) {
	for item, err := range r.Scan(tableVersionStates, store.Range{Prefix: key(t)}) {
		if err != nil {
			return nil, err
		}
		if len(item.Key) != 36 || len(item.Value) != 1 {
			return nil, damaged(tableVersionStates, nil)
		}
		out = append(out, VersionState{
			Custodian: vocab.CustodianID(item.Key[16:32]), Version: binary.BigEndian.Uint32(item.Key[32:]), State: item.Value[0],
		})
	}
	return out, nil
}

// PutVersionState sets the state of a version.
func PutVersionState(tx store.Tx, t vocab.TenantID, v VersionState) error {
	return tx.Put(tableVersionStates, key(t, v.Custodian[:], u32(v.Version)), []byte{v.State})
}
