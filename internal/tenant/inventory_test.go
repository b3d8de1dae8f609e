package tenant_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/tenant"
	"github.com/openrms/rms/internal/vocab"
)

// sum is what depends on one version or generation.
type sum struct {
	Strict, Cached int64
	First, Last    vocab.ContentID
}

func (a *sum) add(l *record.License) {
	if len(l.Wrap) > 0 {
		a.Strict++
	} else {
		a.Cached++
	}
	if a.First.IsZero() || l.Content.Compare(a.First) < 0 {
		a.First = l.Content
	}
	if l.Content.Compare(a.Last) > 0 {
		a.Last = l.Content
	}
}

// scan reads every license and sees for itself what it needs.
func (o *house) scan() (versions, generations map[string]sum) {
	o.t.Helper()
	versions, generations = map[string]sum{}, map[string]sum{}
	add := func(m map[string]sum, name string, l *record.License) {
		a := m[name]
		a.add(l)
		m[name] = a
	}
	o.check(o.store.View(o.t.Context(), func(r store.Reader) error {
		wraps, numbers := map[vocab.GenerationID]*license.Wrap{}, map[vocab.GenerationID]uint32{}
		if err := record.ListGenerations(r, o.ID(), func(g *record.Generation) error {
			signed, err := license.ParseGeneration(g.Signed)
			if err == nil {
				numbers[signed.ID] = g.Number
				wraps[signed.ID], err = license.ParseWrap(g.Wrap)
			}
			return err
		}); err != nil {
			return err
		}
		return record.EachLicense(r, o.ID(), func(l *record.License, err error) error {
			if err != nil {
				return err
			}
			w := wraps[l.Generation]
			if len(l.Wrap) > 0 {
				if w, err = license.ParseWrap(l.Wrap); err != nil {
					return err
				}
			} else {
				add(generations, fmt.Sprint("g", numbers[l.Generation]), l)
			}
			add(versions, fmt.Sprint(w.Custodian, " v", w.L0Version), l)
			return nil
		})
	}))
	return versions, generations
}

// TestInventoryIsWhatAScanFinds publishes, edits, revokes, rotates, moves to
// another key and back, rewraps and raises floors in any order: the inventory, its
// pages and its verification always agree with a scan of all licenses.
func TestInventoryIsWhatAScanFinds(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			inVault(t, func(t *testing.T, o *vault) {
				dice := rand.New(rand.NewPCG(seed, 7))
				var docs []*tenant.Published
				o.mustWrite(person("alice"), "rising", o.template("rising", vocab.CustodyCached, user("bob")))
				acts := []func(){
					func() { docs = append(docs, o.publish("alice", "", "bob")) },
					func() { docs = append(docs, o.publish("alice", "rising")) },
					func() { docs = append(docs, o.strictly()) },
					func() { o.house.rotate("second") },
					func() { o.rotate() },
					func() { o.activate([]string{"second", "archive", "root"}[dice.IntN(3)]) },
					func() { o.settle() },
					func() {
						if len(docs) > 0 {
							_, _, err := o.RevokeLicense(t.Context(), person("alice"), docs[dice.IntN(len(docs))].License.Record.Content, "a test", anyone)
							o.check(err)
						}
					},
				}
				o.addKeyring("second")
				o.register("second", "second")
				for range 25 {
					acts[dice.IntN(len(acts))]()
				}
				o.mustWrite(person("alice"), "rising", o.template("rising", vocab.CustodyStrict, user("bob")))
				time.Sleep(time.Hour) // what the floor reseals
				synctest.Wait()

				versions, generations := o.scan()
				gotVersions, gotGenerations := map[string]sum{}, map[string]sum{}
				inv := o.survey()
				for _, v := range inv.Versions {
					if v.Strict+v.Cached > 0 {
						gotVersions[fmt.Sprint(v.Custodian, " v", v.Number)] = sum{v.Strict, v.Cached, v.First, v.Last}
					}
				}
				for _, g := range inv.Generations {
					if g.Licenses > 0 {
						gotGenerations[fmt.Sprint("g", g.Number)] = sum{0, g.Licenses, g.First, g.Last}
					}
				}
				if diff := cmp.Diff(versions, gotVersions); diff != "" {
					t.Errorf("versions (-scan +inventory):\n%s", diff)
				}
				if diff := cmp.Diff(generations, gotGenerations); diff != "" {
					t.Errorf("generations (-scan +inventory):\n%s", diff)
				}
				o.pagesAgree(inv)
				if problems, n, err := o.VerifyInventory(t.Context()); err != nil || len(problems) > 0 || n < int64(len(docs)) {
					t.Errorf("verified %d records: %q, %v", n, problems, err)
				}
				o.checkStore()
			})
		})
	}
}

// pagesAgree compares the pages of what depends on each version with its counts.
func (o *house) pagesAgree(inv *tenant.Inventory) {
	o.t.Helper()
	for _, v := range inv.Versions {
		var a sum
		target := version(v.Key, v.Number)
		for after := (vocab.ContentID{}); ; {
			page, next, err := o.ListDependants(o.t.Context(), target, after, 3)
			o.check(err)
			for _, d := range page {
				if d.Content.Compare(a.Last) <= 0 {
					o.t.Errorf("%s: %s comes after %s", target, d.Content, a.Last)
				}
				l := &record.License{Content: d.Content}
				if d.Generation == 0 {
					l.Wrap = []byte{1}
				}
				if a.add(l); d.Key != v.Key || d.Version != v.Number || d.Owner != user("alice") {
					o.t.Errorf("%s: a dependant of %s v%d of %s", target, d.Key, d.Version, d.Owner)
				}
			}
			if after = next; after.IsZero() {
				break
			}
		}
		if want := (sum{v.Strict, v.Cached, v.First, v.Last}); a != want {
			o.t.Errorf("%s: its pages have %+v, want %+v", target, a, want)
		}
	}
}

// Drift between licenses and what is counted by is found, and nothing else is
// said to be wrong.
func TestVerifyInventoryFindsDrift(t *testing.T) {
	inOffice(t, func(t *testing.T, o *house) {
		p := o.publish("alice", "", "bob")
		o.check(o.store.Commit(t.Context(), func(tx store.Tx) error {
			return tx.Delete("licenses-by-generation", append(append(append([]byte{}, idBytes(o.ID())...), idBytes(p.License.Record.Generation)...), idBytes(p.License.Record.Content)...))
		}))
		problems, _, err := o.VerifyInventory(t.Context())
		if err != nil || len(problems) != 1 {
			t.Errorf("problems %q, %v, want one", problems, err)
		}
	})
}

func idBytes[K any](id vocab.ID[K]) []byte { return id[:] }

// When something was last used survives a restart, and a crash but for the last
// minutes; use is an opening, by a copy in memory too, and a publication.
func TestLastUseSurvives(t *testing.T) {
	inOffice(t, func(t *testing.T, o *house) {
		cached, strict := o.publish("alice", "", "bob"), o.strictly()
		look := func() (g, v time.Time) { return o.generationLine(1).LastUsed, o.versionLine("root", 1).LastUsed }
		time.Sleep(time.Hour)
		o.opens(person("bob"), item(cached), "")
		opened := time.Now()
		if g, v := look(); !g.Equal(opened) || !v.Equal(opened) {
			t.Errorf("used at %s and %s, want %s", g, v, opened)
		}
		// At the end of serving, however little time is over.
		o.restart()
		if g, v := look(); opened.Sub(g) > time.Millisecond || opened.Sub(v) > time.Millisecond {
			t.Errorf("after a restart used at %s and %s, want %s", g, v, opened)
		}

		// A strict document uses the version only.
		time.Sleep(time.Hour)
		o.opens(person("bob"), item(strict), "")
		if g, v := look(); !g.Before(time.Now()) || !v.Equal(time.Now()) {
			t.Errorf("a strict opening: used at %s and %s, want the version alone at %s", g, v, time.Now())
		}
		noted := time.Now()
		time.Sleep(10 * time.Minute) // it is noted by then
		o.opens(person("bob"), item(cached), "")
		o.store.kill(0)
		o.restart()
		if _, v := look(); noted.Sub(v) > time.Millisecond {
			t.Errorf("after a crash used at %s, want %s or later", v, noted)
		}
		// A revocation, an edit and a look at the inventory use nothing.
		before, _ := look()
		_, _, err := o.RevokeLicense(t.Context(), person("alice"), cached.License.Record.Content, "a test", anyone)
		o.check(err)
		if g, _ := look(); !g.Equal(before) {
			t.Errorf("a revocation used the key at %s", g)
		}
	})
}

func anyone(vocab.Principal) error { return nil }
