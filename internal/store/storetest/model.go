package storetest

import (
	"errors"
	"maps"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/openrms/rms/internal/store"
)

// model compares the store with a sorted map under random transactions, some
// of which are dropped, in groups and alone, across reopening.
func model(t *testing.T, open Open) {
	tables := []store.Table{tableA, tableB}
	key := rapid.SliceOfN(rapid.SampledFrom([]byte{0, 1, 'a', 'b', 0xfe, 0xff}), 1, 4)
	value := rapid.OneOf(rapid.SliceOfN(rapid.Byte(), 0, 8), rapid.SliceOfN(rapid.Byte(), 1500, 1500))
	type state = map[store.Table]map[string]string
	copyState := func(s state) state {
		out := state{}
		for k, v := range s {
			out[k] = maps.Clone(v)
		}
		return out
	}
	drawRange := func(rt *rapid.T) store.Range {
		var r store.Range
		if rapid.Bool().Draw(rt, "prefixed") {
			r.Prefix = key.Draw(rt, "prefix")
		}
		if rapid.Bool().Draw(rt, "started") {
			r.From = key.Draw(rt, "from")
		}
		r.Reverse = rapid.Bool().Draw(rt, "reverse")
		return r
	}
	expect := func(s state, table store.Table, r store.Range) []string {
		var keys []string
		for k := range s[table] {
			if len(k) < len(r.Prefix) || k[:len(r.Prefix)] != string(r.Prefix) {
				continue
			}
			if from := string(r.From); from != "" && (!r.Reverse && k < from || r.Reverse && k > from) {
				continue
			}
			keys = append(keys, k)
		}
		slices.Sort(keys)
		if r.Reverse {
			slices.Reverse(keys)
		}
		var out []string
		for _, k := range keys {
			out = append(out, k+"="+s[table][k])
		}
		return out
	}
	// compare draws what to look at, and returns the look: what is drawn
	// inside a transaction would be drawn on the store's goroutine.
	compare := func(rt *rapid.T, what string) func(store.Reader, state) error {
		table, rng, k := rapid.SampledFrom(tables).Draw(rt, "table"), drawRange(rt), key.Draw(rt, "key")
		return func(r store.Reader, s state) error {
			got, err := dump(r, table, rng)
			if err != nil {
				return err
			}
			if diff := cmp.Diff(expect(s, table, rng), got); diff != "" {
				return errors.New(what + " (-want +got):\n" + diff)
			}
			v, ok, err := r.Get(table, k)
			if want, there := s[table][string(k)]; err != nil || ok != there || string(v) != want {
				return errors.Join(err, errors.New(what+": Get differs from the model"))
			}
			return nil
		}
	}

	dropped := errors.New("dropped")
	dir := t.TempDir()
	s := open(t, dir)
	defer func() { _ = s.Close() }()
	rapid.Check(t, func(rt *rapid.T) {
		// Each run begins with empty tables, in one store: making a store
		// costs more than a run.
		now := state{tableA: {}, tableB: {}}
		if err := s.Commit(t.Context(), func(tx store.Tx) error { return errors.Join(wipe(tx, tableA), wipe(tx, tableB)) }); err != nil {
			rt.Fatal(err)
		}

		// transaction draws what it does before it runs: it may run on
		// another goroutine. It returns what to do to the model, and to the
		// store.
		transaction := func(rt *rapid.T) (model func(state), write func(store.Tx) error) {
			type step struct {
				table  store.Table
				key    []byte
				value  []byte
				delete bool
			}
			var steps []step
			for range rapid.IntRange(0, 12).Draw(rt, "steps") {
				steps = append(steps, step{
					rapid.SampledFrom(tables).Draw(rt, "table"), key.Draw(rt, "key"), value.Draw(rt, "value"),
					rapid.IntRange(0, 2).Draw(rt, "delete") == 0,
				})
			}
			model = func(own state) {
				for _, st := range steps {
					if st.delete {
						delete(own[st.table], string(st.key))
					} else {
						own[st.table][string(st.key)] = string(st.value)
					}
				}
			}
			write = func(tx store.Tx) error {
				for _, st := range steps {
					var err error
					if st.delete {
						err = tx.Delete(st.table, st.key)
					} else {
						err = tx.Put(st.table, st.key, st.value)
					}
					if err != nil {
						return err
					}
				}
				return nil
			}
			return model, write
		}

		rt.Repeat(map[string]func(*rapid.T){
			"commit": func(rt *rapid.T) {
				next := copyState(now)
				model, write := transaction(rt)
				model(next)
				before, after := compare(rt, "before"), compare(rt, "own writes")
				err := s.Commit(t.Context(), func(tx store.Tx) error {
					return errors.Join(before(tx, now), write(tx), after(tx, next))
				})
				if err != nil {
					rt.Fatal(err)
				}
				now = next
			},
			"drop": func(rt *rapid.T) {
				_, write := transaction(rt)
				err := s.Commit(t.Context(), func(tx store.Tx) error { return errors.Join(write(tx), dropped) })
				if !errors.Is(err, dropped) {
					rt.Fatalf("Commit = %v", err)
				}
			},
			"wipe": func(rt *rapid.T) {
				table := rapid.SampledFrom(tables).Draw(rt, "table")
				wiped := compare(rt, "wiped")
				err := s.Commit(t.Context(), func(tx store.Tx) error {
					if err := wipe(tx, table); err != nil {
						return err
					}
					return wiped(tx, state{table: {}, other(table): now[other(table)]})
				})
				if err != nil {
					rt.Fatal(err)
				}
				now[table] = map[string]string{}
			},
			// Transactions queued together run in one group, each on what
			// the earlier ones of the group wrote.
			"group": func(rt *rapid.T) {
				members := rapid.IntRange(2, 6).Draw(rt, "members")
				models := make([]func(state), members)
				var (
					wg    sync.WaitGroup
					order []int // only the store's writer touches it
				)
				errs := make([]error, members)
				for i := range members {
					var write func(store.Tx) error
					models[i], write = transaction(rt)
					wg.Go(func() {
						errs[i] = s.Commit(t.Context(), func(tx store.Tx) error {
							order = append(order, i)
							return write(tx)
						})
					})
				}
				wg.Wait()
				if err := errors.Join(errs...); err != nil {
					rt.Fatal(err)
				}
				for _, i := range order {
					models[i](now)
				}
			},
			"reopen": func(rt *rapid.T) {
				if err := s.Close(); err != nil {
					rt.Fatal(err)
				}
				s = open(t, dir)
			},
			"": func(rt *rapid.T) {
				look := compare(rt, "snapshot")
				if err := s.View(t.Context(), func(r store.Reader) error { return look(r, now) }); err != nil {
					rt.Fatal(err)
				}
			},
		})
	})
}

func wipe(tx store.Tx, table store.Table) error {
	for item, err := range tx.Scan(table, store.Range{}) {
		if err := errors.Join(err, tx.Delete(table, item.Key)); err != nil {
			return err
		}
	}
	return nil
}

func other(t store.Table) store.Table {
	if t == tableA {
		return tableB
	}
	return tableA
}
