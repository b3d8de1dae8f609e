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

func (r registering) SetMark(ctx context.Context, m keys.Mark, f *keys.Facts) error {
	if name, _ := r.live.keyByID(m.Custodian); name == "" {
		e := r.tenant().newEvent(audit.KindKeyRegistered, Call{}, r.now())
		e.Target = record.KeyName("root")
		if _, _, err := r.tenant().changeResourceBy(ctx, e, func(store.Reader, *record.Resource, *audit.Event) ([]byte, error) {
			return (&record.TenantKey{ID: m.Custodian, Custodian: "test", Kind: "embedded", Root: "root", Sign: "sign", Registered: 1}).Encode()
		}, false); err != nil {
			return err
		}
	}
	return r.keyRecords.SetMark(ctx, m, f)
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
