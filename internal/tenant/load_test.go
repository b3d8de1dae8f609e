package tenant_test

import (
	"encoding/binary"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// BenchmarkLoad reads and verifies 10,000 groups and the caller's two, as
// opening the tenant does.
func BenchmarkLoad(b *testing.B) {
	s := serve(b)
	if err := s.PutGroups(b.Context(), s.call, groupsOf(10_000)); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := s.Load(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

// TestLoadProvesEveryResource alters one group among many so that it agrees with
// its event, the event with its stored hash, and only the tree with neither. It
// is found whichever group it is.
func TestLoadProvesEveryResource(t *testing.T) {
	var disk store.Store
	s := serveThrough(t, func(s store.Store) store.Store { disk = s; return s })
	groups := groupsOf(20)
	if err := s.PutGroups(t.Context(), s.call, groups); err != nil {
		t.Fatal(err)
	}
	// The newest event may be a subtree of its own: what alters that alters the
	// root, which a checkpoint contradicts.
	if err := s.PutGroups(t.Context(), s.call, map[string]record.Group{"newest@contoso.test": {}}); err != nil {
		t.Fatal(err)
	}
	if err := s.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	for address := range groups {
		restore := s.forge(t, disk, record.PrefixGroups+address)
		if err := s.Load(t.Context()); vocab.ReasonOf(err) != vocab.ReasonLogDamaged {
			t.Errorf("%s was altered with its event: %v, want LOG_DAMAGED", address, err)
		}
		restore()
	}
	if err := s.Load(t.Context()); err != nil {
		t.Errorf("with everything as it was: %v", err)
	}
}

// forge empties a group, with its event and the hash stored for that.
func (s *served) forge(t *testing.T, disk store.Store, name string) (restore func()) {
	t.Helper()
	tenantID := s.ID()
	type row struct {
		table      store.Table
		key, value []byte
	}
	var old []row
	set := func(tx store.Tx, r row) error {
		before, _, err := tx.Get(r.table, r.key)
		if err != nil {
			return err
		}
		old = append(old, row{r.table, r.key, before})
		return tx.Put(r.table, r.key, r.value)
	}
	at := func(n uint64) []byte { return binary.BigEndian.AppendUint64(tenantID[:], n) }
	if err := disk.Commit(t.Context(), func(tx store.Tx) error {
		g, err := record.GetResource(tx, tenantID, name)
		if err != nil {
			return err
		}
		key := append(tenantID[:], name...)
		before, _, err := tx.Get("resources", key)
		if err != nil {
			return err
		}
		old = append(old, row{"resources", key, before})
		entry, err := audit.Find(tx, tenantID, g.LastEvent)
		if err != nil {
			return err
		}
		if g.Body, err = (&record.Group{}).Encode(); err != nil {
			return err
		}
		if _, err := record.PutResource(tx, tenantID, g); err != nil {
			return err
		}
		if entry.Event.State, err = g.State(); err != nil {
			return err
		}
		leaf, err := entry.Event.Encode()
		if err != nil {
			return err
		}
		if err := set(tx, row{"audit-events", at(entry.Index), leaf}); err != nil {
			return err
		}
		hash := audit.HashLeaf(leaf)
		return set(tx, row{"audit-hashes", at(uint64(tlog.StoredHashIndex(0, int64(entry.Index)))), hash[:]})
	}); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := disk.Commit(t.Context(), func(tx store.Tx) error {
			for _, r := range old {
				if err := tx.Put(r.table, r.key, r.value); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
}
