package bench

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/directory"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
	"github.com/openrms/rms/test/rmsdtest"
)

// makeBobsGroups makes the groups that the caller is in: three, each in the next.
func (w *world) makeBobsGroups(b testing.TB) {
	b.Helper()
	member := "user:bob@contoso.test"
	for _, address := range []string{"team@contoso.test", "unit@contoso.test", "staff@contoso.test"} {
		if _, err := rmsv1.NewPeopleServiceClient(w.alice.conn).CreateGroup(b.Context(), &rmsv1.CreateGroupRequest{
			Parent: rmsdtest.Parent, GroupId: address, Group: &rmsv1.Group{Members: []string{member}},
		}, w.alice.sign); err != nil {
			b.Fatal(err)
		}
		member = "group:" + address
	}
}

// groupBatch is how many groups are made in a transaction.
const groupBatch = 500

// seedGroups adds n groups of others to a store that no daemon has, with their
// events, as if each had been created. Ten stand in each eleventh.
func seedGroups(ctx context.Context, s store.Store, t vocab.TenantID, n int) error {
	log := audit.New(s)
	for made := 0; made < n; made += groupBatch {
		if err := s.Commit(ctx, func(tx store.Tx) error {
			for i := made; i < min(made+groupBatch, n); i++ {
				if err := addGroup(tx, log, t, i); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}

func seedGroup(i int) string { return fmt.Sprintf("others-%d@contoso.test", i) }

// addGroup makes the i-th group.
func addGroup(tx store.Tx, log *audit.Log, t vocab.TenantID, i int) error {
	var g record.Group
	for j := range 3 {
		g.Members = append(g.Members, vocab.Principal{Kind: vocab.KindUser, Value: fmt.Sprintf("member-%d@contoso.test", 2*i+j)})
	}
	if i%11 == 10 {
		for j := i - 10; j < i; j++ {
			g.Members = append(g.Members, directory.Group(seedGroup(j)))
		}
	}
	slices.SortFunc(g.Members, vocab.Principal.Compare)
	body, err := g.Encode()
	if err != nil {
		return err
	}
	e := &audit.Event{
		ID: vocab.NewEventID(), Tenant: t, Time: time.Now().UTC().Truncate(time.Millisecond), Kind: audit.KindGroupChanged,
		Principal: audit.Principal{Name: "alice@contoso.test"}, Target: record.PrefixGroups + seedGroup(i), Detail: "created",
	}
	made := &record.Resource{Name: e.Target, Revision: 1, Updated: record.ToMillis(e.Time), LastEvent: e.ID, Body: body}
	if e.State, err = made.State(); err != nil {
		return err
	}
	if _, err := record.PutResource(tx, t, made); err != nil {
		return err
	}
	return log.Append(tx, e)
}
