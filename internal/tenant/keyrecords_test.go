package tenant

import (
	"context"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/keys/custodiantest"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/store/bolt"
	"github.com/openrms/rms/internal/vocab"
)

// registering registers a key before its first mark is set, as a tenant does
// when it is opened.
type registering struct{ *keyRecords }

func (r registering) SetMark(ctx context.Context, m keys.Mark) error {
	if err := r.store.Commit(ctx, func(tx store.Tx) error {
		if k, err := record.GetKey(tx, r.id, m.Custodian); err != nil || k != nil {
			return err
		}
		return record.PutKey(tx, r.id, &record.Key{ID: m.Custodian, Name: "root", Kind: "embedded", Place: "test", Registered: 1})
	}); err != nil {
		return err
	}
	return r.keyRecords.SetMark(ctx, m)
}

// TestKeyRecords holds the tenant's records to what a ring expects of them.
func TestKeyRecords(t *testing.T) {
	custodiantest.RunRecords(t, func(t *testing.T) keys.Records {
		s, err := bolt.Open(bolt.Options{
			Path: filepath.Join(t.TempDir(), "rms.db"), Stamp: store.Development, Schema: record.Schema, MinFree: -1,
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
		return registering{(*keyRecords)(&Tenant{
			id: vocab.NewTenantID(), store: s, log: audit.New(s), logger: slog.New(slog.DiscardHandler), now: time.Now,
		})}
	})
}
