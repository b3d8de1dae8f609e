// Package record keeps the service's records in a store: tenants, licenses,
// templates, settings, resources, generations and what was given out, with their
// indexes and with what earlier decisions read. A record and its indexes are written in one transaction; [Check]
// finds any that disagree.
//
// Every function takes the transaction it works in and keeps no state, so
// that a caller composes checks, records and the event that tells of them into
// one durable step.
//
// The store is not trusted with policy: a license's policy is bound to its key
// box, a template's revision is signed, and licenses, settings and resources have a State
// that the log holds too. What this package reads it checks for form, and
// reports STORE_DAMAGED if the form is wrong; that it is what the service
// wrote, package tenant checks.
package record

import (
	"encoding/binary"
	"time"

	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// Schema is the layout of the tables below. A change to any of them is a new
// version with a migration.
var Schema = store.Schema{Version: 1}

// The tables. Keys of all but the first begin with the tenant ID.
const (
	tableTenants         store.Table = "tenants"                // name -> Tenant
	tableSettings        store.Table = "settings"               // -> Settings
	tableOldSettings     store.Table = "settings-history"       // revision -> Settings, earlier ones
	tableLicenses        store.Table = "licenses"               // content -> License
	tablePolicies        store.Table = "policies"               // content, hash -> the policy of an earlier revision
	tableByOwner         store.Table = "licenses-by-owner"      // H(owner), content -> nothing
	tableByTemplate      store.Table = "licenses-by-template"   // template, content -> nothing
	tableByGeneration    store.Table = "licenses-by-generation" // generation, content -> nothing; not of strict ones
	tableByKeyVersion    store.Table = "licenses-by-version"    // custodian, version, content -> nothing; strict ones only
	tableByCustody       store.Table = "licenses-by-custody"    // template, custody mode, content -> nothing
	tableCounts          store.Table = "counts"                 // index prefix -> number of entries
	tableTemplates       store.Table = "templates"              // uid -> TemplateHead
	tableSlugs           store.Table = "template-slugs"         // slug -> uid
	tableRevisions       store.Table = "template-revisions"     // uid, revision -> signed envelope
	tableUses            store.Table = "uses"                   // content, not after, event -> whose
	tableUsesByPrincipal store.Table = "uses-by-principal"      // H(principal), not after, event -> content
	tableUsesByDay       store.Table = "uses-by-day"            // day of not after, content -> nothing; what sweeping goes by
	tableRequests        store.Table = "requests"               // caller, request -> Request
	tableRequestsByTime  store.Table = "requests-by-time"       // time, caller, request -> nothing
	tableBundles         store.Table = "bundles"                // -> newest trust bundle
	tableTransitions     store.Table = "bundle-transitions"     // seq -> a trust bundle with another current root than the one before
	tableResources       store.Table = "resources"              // name -> Resource
	tableEpochs          store.Table = "epochs"                 // -> number of changes of resources
	tableProgress        store.Table = "operation-progress"     // operation -> Progress; of those that go on
	tableKeyUses         store.Table = "key-uses"               // generation, or custodian and version -> KeyUse
)

// maxScan bounds what one call goes through, in rows.
const maxScan = 1000

// key concatenates a tenant and parts into a table key.
func key(t vocab.TenantID, parts ...[]byte) []byte {
	k := append(make([]byte, 0, 64), t[:]...)
	for _, p := range parts {
		k = append(k, p...)
	}
	return k
}

func u32(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }
func u64(v uint64) []byte { return binary.BigEndian.AppendUint64(nil, v) }

// put encodes v deterministically.
func put(tx store.Tx, table store.Table, k []byte, v any) error {
	b, err := canon.Marshal(v)
	if err != nil {
		return vocab.Errorf(vocab.ReasonInternal, "a record of %s cannot be encoded", table).Because(err)
	}
	return tx.Put(table, k, b)
}

// get decodes into v and reports whether there is a record.
func get(r store.Reader, table store.Table, k []byte, v any) (bool, error) {
	b, ok, err := r.Get(table, k)
	if err != nil || !ok {
		return false, err
	}
	if err := canon.Unmarshal(b, v); err != nil {
		return false, damaged(table, err)
	}
	return true, nil
}

// stateOf hashes a record's stored form.
func stateOf(table store.Table, v any) ([32]byte, error) {
	b, err := canon.Marshal(v)
	if err != nil {
		return [32]byte{}, vocab.Errorf(vocab.ReasonInternal, "a record of %s cannot be encoded", table).Because(err)
	}
	return canon.Hash(b), nil
}

func damaged(table store.Table, cause error) *vocab.Error {
	return vocab.Errorf(vocab.ReasonStoreDamaged, "a record of table %s cannot be read", table).
		WithNext("Stop the daemon, run rmsd fsck, and restore the store from a backup").Because(cause)
}

// Millis is a time as records and formats store it: milliseconds since 1970,
// UTC; zero for none.
type Millis uint64

// ToMillis converts; the zero time gives zero.
func ToMillis(t time.Time) Millis {
	if t.IsZero() {
		return 0
	}
	return Millis(t.UnixMilli())
}

// Time converts back.
func (m Millis) Time() time.Time {
	if m == 0 {
		return time.Time{}
	}
	return time.UnixMilli(int64(m)).UTC()
}
