package bench

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/daemon"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/store/bolt"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
	"github.com/openrms/rms/test/rmsdtest"
)

// licenses is how BenchmarkLicenses is asked for.
var licenses = flag.Int("licenses", 0, "run BenchmarkLicenses on a store with so many licenses, which is made for it: 1000000 take minutes and gigabytes")

const (
	followed    = "followed" // the template of every seeded license
	seedOwners  = 1000
	seedRevoked = 100    // one in so many is revoked
	seedBatch   = 10_000 // licenses in a transaction
)

// BenchmarkLicenses measures, in a tenant with -licenses licenses that follow
// one template, what an administrator asks before an edit of it, and openings.
func BenchmarkLicenses(b *testing.B) {
	if *licenses == 0 {
		b.Skip("-licenses says of how many; see its help")
	}
	_ = syncTime(b) // ends it where nothing is durable
	w := seeded(b, *licenses)
	w.protectAll(b, followed, documents)
	policies := rmsv1.NewPolicyServiceClient(w.alice.conn)
	tmpl, err := policies.GetTemplate(b.Context(), &rmsv1.GetTemplateRequest{Name: rmsdtest.Parent + "/templates/" + followed}, w.alice.sign)
	if err != nil {
		b.Fatal(err)
	}
	edited := proto.CloneOf(tmpl)
	edited.Grants = edited.GetGrants()[1:]
	for _, c := range []struct {
		name string
		call func(ctx context.Context, n uint64) error
	}{
		{"check-an-edit", func(ctx context.Context, _ uint64) error {
			_, err := policies.UpdateTemplate(ctx, &rmsv1.UpdateTemplateRequest{Template: edited, ValidateOnly: true}, w.alice.sign)
			return err
		}},
		{"preview-an-edit", func(ctx context.Context, _ uint64) error {
			p, err := policies.PreviewTemplate(ctx, &rmsv1.PreviewTemplateRequest{Template: edited}, w.alice.sign)
			if got, want := p.GetCurrent().GetLicenseCount(), int64(*licenses+documents+1); err == nil && (got != want || p.GetChangeCount() != 1) {
				err = fmt.Errorf("a preview of %d changes and %d licenses, want one and %d", p.GetChangeCount(), got, want)
			}
			return err
		}},
		{"count-before-deleting", func(ctx context.Context, _ uint64) error {
			_, err := policies.DeleteTemplate(ctx, &rmsv1.DeleteTemplateRequest{Name: tmpl.GetName(), Etag: "*"}, w.alice.sign)
			if want := fmt.Sprintf("%d licenses", *licenses+documents+1); err == nil || !strings.Contains(err.Error(), want) {
				return fmt.Errorf("want a refusal that counts %s, got %w", want, err)
			}
			return nil
		}},
		{"list-a-page", func(ctx context.Context, _ uint64) error {
			page, err := rmsv1.NewLicenseServiceClient(w.alice.conn).ListLicenses(ctx,
				&rmsv1.ListLicensesRequest{Parent: rmsdtest.Parent, Template: tmpl.GetName()}, w.alice.sign)
			if err == nil && len(page.GetLicenses()) != 100 {
				err = fmt.Errorf("a page of %d licenses", len(page.GetLicenses()))
			}
			return err
		}},
		{"acquire", func(ctx context.Context, n uint64) error {
			_, err := w.acquire(ctx, followed, n)
			return err
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			cpu, n := w.cpu(), uint64(0)
			for ; b.Loop(); n++ {
				if err := c.call(b.Context(), n); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64((w.cpu()-cpu).Microseconds())/float64(n), "rmsd-cpu-µs/op")
		})
	}
	say("peak memory of rmsd with %d licenses: %s", *licenses, w.peakMemory())
}

// seeded starts the service on a store with n licenses that follow one template.
func seeded(b testing.TB, n int) *world { return seededWith(b, n, false) }

// seededWith is seeded with licenses that can be opened, if asked for.
func seededWith(b testing.TB, n int, openable bool) *world {
	b.Helper()
	if *inprocess {
		b.Skip("the store is made while the service is stopped: not with -inprocess")
	}
	w := start(b, rmsdtest.Embedded)
	w.signIn(b)
	if err := w.makeTemplate(b.Context(), followed, rmsv1.CustodyMode_CUSTODY_MODE_CACHED, grants); err != nil {
		b.Fatal(err)
	}
	w.protectAll(b, followed, 1)
	pl, err := w.site.Verifier.VerifyPL(w.docs[followed][0].pl)
	if err != nil {
		b.Fatal(err)
	}
	began := time.Now()
	w.restartWith(b, func(s store.Store) (err error) {
		var sealed *sealing
		if openable {
			if sealed, err = newSealing(b.Context(), w.site.Data, s, w.site.TenantID); err != nil {
				return err
			}
		}
		return seed(b.Context(), s, w.site.TenantID, pl.Content, n, sealed)
	})
	say("%d licenses made and rmsd restarted in %s", n, time.Since(began).Round(time.Second/10))
	return w
}

// restartWith stops the service, has fill add to its store, and starts it again.
func (w *world) restartWith(b testing.TB, fill func(store.Store) error) {
	b.Helper()
	if err := w.daemon.Stop(); err != nil {
		b.Fatal(err)
	}
	path := filepath.Join(w.site.Data, "rms.db")
	s, err := bolt.Open(bolt.Options{Path: path, Stamp: store.Production, Schema: record.Schema})
	if err != nil {
		b.Fatal(err)
	}
	if err := errors.Join(fill(s), s.Close()); err != nil {
		b.Fatal(err)
	}
	st, err := os.Stat(path)
	if err != nil {
		b.Fatal(err)
	}
	began := time.Now()
	w.startProcess(b)
	say("rmsd serves a store of %d MiB after %s", st.Size()>>20, time.Since(began).Round(time.Millisecond))
	w.signIn(b)
}

// seed adds n licenses to a store that no daemon has, with their indexes and
// events, as if each had been published: like the one that is the pattern, for
// one of a thousand owners, one in a hundred revoked since. Without sealed nobody
// can open them: only the service, or who has its keyring, can seal content keys.
func seed(ctx context.Context, s store.Store, tenant vocab.TenantID, pattern vocab.ContentID, n int, sealed *sealing) error {
	f := &seeder{log: audit.New(s), tenant: tenant, sealed: sealed}
	if err := f.learn(ctx, s, pattern); err != nil {
		return err
	}
	for made := 0; made < n; {
		batch := min(seedBatch, n-made)
		if err := s.Commit(ctx, func(tx store.Tx) error {
			for i := range batch {
				if err := f.add(tx, made+i); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			return err
		}
		if made += batch; made%100_000 == 0 {
			say("%d licenses", made)
		}
	}
	return nil
}

// seeder makes licenses like one that the service made.
type seeder struct {
	log      *audit.Log
	tenant   vocab.TenantID
	license  record.License
	event    audit.Event
	policies [][]byte // by owner
	sealed   *sealing // nil: content keys are noise
}

func (f *seeder) learn(ctx context.Context, s store.Store, pattern vocab.ContentID) error {
	err := s.View(ctx, func(r store.Reader) error {
		l, err := record.GetLicense(r, f.tenant, pattern)
		if err != nil {
			return err
		}
		f.license = *l
		return nil
	})
	if err != nil {
		return err
	}
	entry, err := f.log.Get(ctx, f.tenant, f.license.LastEvent)
	if err != nil {
		return err
	}
	f.event = *entry.Event
	f.event.Decision = nil // names the policy of the pattern
	p, err := f.license.DecodePolicy()
	if err != nil {
		return err
	}
	for i := range seedOwners {
		p.Owner = vocab.Principal{Kind: vocab.KindUser, Value: fmt.Sprintf("owner-%d@contoso.test", i)}
		b, err := license.EncodePolicy(p)
		if err != nil {
			return err
		}
		f.policies = append(f.policies, b)
	}
	return nil
}

// add makes the i-th license.
func (f *seeder) add(tx store.Tx, i int) error {
	l, e := f.license, f.event
	l.Content, l.Policy, l.KeyBox = vocab.NewContentID(), f.policies[i%len(f.policies)], slices.Clone(l.KeyBox)
	for _, b := range [][]byte{l.Commitment[:], l.Salt[:], l.KeyBox} {
		_, _ = rand.Read(b)
	}
	if f.sealed != nil {
		if err := f.sealed.seal(f.tenant, &l); err != nil {
			return err
		}
	}
	now := time.Now().UTC().Truncate(time.Millisecond)
	l.Issued, e.Time = record.ToMillis(now), now
	e.Content = l.Content
	if err := f.write(tx, &l, &e); err != nil || i%seedRevoked != 0 {
		return err
	}
	e.Kind = audit.KindLicenseRevoked
	l.Revision, l.Revoked = l.Revision+1, &record.Revocation{At: l.Issued, By: "alice@contoso.test", Reason: "a test"}
	return f.write(tx, &l, &e)
}

// write writes a revision of a license with its event.
func (f *seeder) write(tx store.Tx, l *record.License, e *audit.Event) (err error) {
	e.ID, e.LicenseRevision = vocab.NewEventID(), l.Revision
	l.LastEvent, l.Updated = e.ID, record.ToMillis(e.Time)
	if e.State, err = l.State(); err != nil {
		return err
	}
	if err := record.PutLicense(tx, f.tenant, l); err != nil {
		return err
	}
	return f.log.Append(tx, e)
}

// TestSeed has the service and its own check look at what [seed] and
// [seedGroups] made.
func TestSeed(t *testing.T) {
	const n = 300
	w := seeded(t, n)
	w.makeBobsGroups(t)
	w.restartWith(t, func(s store.Store) error { return seedGroups(t.Context(), s, w.site.TenantID, n) })
	within, err := rmsv1.NewPeopleServiceClient(w.alice.conn).GetGroup(t.Context(),
		&rmsv1.GetGroupRequest{Name: rmsdtest.Parent + "/groups/" + seedGroup(0)}, w.alice.sign)
	if err != nil || !slices.Equal(within.GetWithin(), []string{seedGroup(10)}) {
		t.Errorf("the first group is in %v (%v), want %s", within.GetWithin(), err, seedGroup(10))
	}
	w.protectAll(t, followed, 1)
	if _, err := w.acquire(t.Context(), followed, 0); err != nil {
		t.Error(err)
	}
	_, err = rmsv1.NewPolicyServiceClient(w.alice.conn).DeleteTemplate(t.Context(),
		&rmsv1.DeleteTemplateRequest{Name: rmsdtest.Parent + "/templates/" + followed, Etag: "*"}, w.alice.sign)
	if want := fmt.Sprintf("%d licenses", n+2); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("deleting the template gave %v, want a refusal that counts %s", err, want)
	}
	if err := w.daemon.Stop(); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := daemon.Fsck(t.Context(), w.site.Data, false, &out); err != nil {
		t.Errorf("%v\n%s", err, &out)
	}
}
