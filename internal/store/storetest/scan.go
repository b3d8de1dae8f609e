package storetest

import (
	"errors"
	"runtime"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/openrms/rms/internal/store"
)

func scanRanges(t *testing.T, open Open) {
	s := start(t, open)
	put(t, s, tableA, "a", "", "b", "", "b\x00", "", "ba", "", "bb", "", "b\xff", "", "b\xff\xff", "", "c", "", "\xff", "", "\xff\xff", "")
	for _, c := range []struct {
		name string
		rng  store.Range
		want []string
	}{
		{"all", store.Range{}, []string{"a", "b", "b\x00", "ba", "bb", "b\xff", "b\xff\xff", "c", "\xff", "\xff\xff"}},
		{"all, reverse", store.Range{Reverse: true}, []string{"\xff\xff", "\xff", "c", "b\xff\xff", "b\xff", "bb", "ba", "b\x00", "b", "a"}},
		{"prefix", store.Range{Prefix: []byte("b")}, []string{"b", "b\x00", "ba", "bb", "b\xff", "b\xff\xff"}},
		{"prefix, reverse", store.Range{Prefix: []byte("b"), Reverse: true}, []string{"b\xff\xff", "b\xff", "bb", "ba", "b\x00", "b"}},
		{"prefix that ends in the last byte", store.Range{Prefix: []byte("b\xff"), Reverse: true}, []string{"b\xff\xff", "b\xff"}},
		{"prefix of last bytes only", store.Range{Prefix: []byte("\xff"), Reverse: true}, []string{"\xff\xff", "\xff"}},
		{"prefix nobody has", store.Range{Prefix: []byte("bz")}, nil},
		{"prefix nobody has, reverse", store.Range{Prefix: []byte("bz"), Reverse: true}, nil},
		{"from a key", store.Range{From: []byte("bb")}, []string{"bb", "b\xff", "b\xff\xff", "c", "\xff", "\xff\xff"}},
		{"from a key, reverse", store.Range{From: []byte("bb"), Reverse: true}, []string{"bb", "ba", "b\x00", "b", "a"}},
		{"from between keys", store.Range{From: []byte("bab")}, []string{"bb", "b\xff", "b\xff\xff", "c", "\xff", "\xff\xff"}},
		{"from between keys, reverse", store.Range{From: []byte("bab"), Reverse: true}, []string{"ba", "b\x00", "b", "a"}},
		{"from behind the last", store.Range{From: []byte("\xff\xff\xff")}, nil},
		{"from behind the last, reverse", store.Range{From: []byte("\xff\xff\xff"), Reverse: true}, []string{"\xff\xff", "\xff", "c", "b\xff\xff", "b\xff", "bb", "ba", "b\x00", "b", "a"}},
		{"from before the first, reverse", store.Range{From: []byte("A"), Reverse: true}, nil},
		{"prefix and from", store.Range{Prefix: []byte("b"), From: []byte("bb")}, []string{"bb", "b\xff", "b\xff\xff"}},
		{"prefix and from, reverse", store.Range{Prefix: []byte("b"), From: []byte("bb"), Reverse: true}, []string{"bb", "ba", "b\x00", "b"}},
		{"from before the prefix", store.Range{Prefix: []byte("b"), From: []byte("a")}, []string{"b", "b\x00", "ba", "bb", "b\xff", "b\xff\xff"}},
		{"from before the prefix, reverse", store.Range{Prefix: []byte("b"), From: []byte("a"), Reverse: true}, nil},
		{"from behind the prefix", store.Range{Prefix: []byte("b"), From: []byte("c")}, nil},
		{"from behind the prefix, reverse", store.Range{Prefix: []byte("b"), From: []byte("c"), Reverse: true}, []string{"b\xff\xff", "b\xff", "bb", "ba", "b\x00", "b"}},
	} {
		keys := func(r store.Reader) error {
			var got []string
			for item, err := range r.Scan(tableA, c.rng) {
				if err != nil {
					return err
				}
				got = append(got, string(item.Key))
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", c.name, diff)
			}
			return nil
		}
		view(t, s, keys)
		commit(t, s, func(tx store.Tx) error { return keys(tx) })
		// The same items as a transaction's own writes.
		other := start(t, open)
		commit(t, other, func(tx store.Tx) error {
			var err error
			view(t, s, func(r store.Reader) error {
				for item, scanErr := range r.Scan(tableA, store.Range{}) {
					err = errors.Join(err, scanErr, tx.Put(tableA, item.Key, item.Value))
				}
				return nil
			})
			return errors.Join(err, keys(tx))
		})
	}
}

func scanOwnWrites(t *testing.T, open Open) {
	s := start(t, open)
	put(t, s, tableA, "b", "1", "d", "1", "f", "1", "h", "1")
	err := s.Commit(t.Context(), func(tx store.Tx) error {
		err := errors.Join(
			tx.Put(tableA, []byte("a"), []byte("2")), // before the first
			tx.Put(tableA, []byte("d"), []byte("2")), // over one
			tx.Put(tableA, []byte("e"), []byte("2")), // between
			tx.Put(tableA, []byte("z"), []byte("2")), // behind the last
			tx.Delete(tableA, []byte("f")),
			tx.Delete(tableA, []byte("g")), // never was there
			tx.Put(tableA, []byte("y"), nil),
			tx.Delete(tableA, []byte("y")))
		if err != nil {
			return err
		}
		up, err := dump(tx, tableA, store.Range{})
		if diff := cmp.Diff([]string{"a=2", "b=1", "d=2", "e=2", "h=1", "z=2"}, up); diff != "" {
			t.Errorf("ascending (-want +got):\n%s", diff)
		}
		down, err2 := dump(tx, tableA, store.Range{Reverse: true, From: []byte("h")})
		if diff := cmp.Diff([]string{"h=1", "e=2", "d=2", "b=1", "a=2"}, down); diff != "" {
			t.Errorf("descending from h (-want +got):\n%s", diff)
		}
		return errors.Join(err, err2, errors.New("drop it"))
	})
	if err == nil {
		t.Error("Commit succeeded")
	}
	want(t, s, tableA, "b=1", "d=1", "f=1", "h=1")
}

func writeDuringScan(t *testing.T, open Open) {
	s := start(t, open)
	put(t, s, tableA, "a", "1", "b", "1", "c", "1")
	commit(t, s, func(tx store.Tx) error {
		if err := tx.Put(tableA, []byte("aa"), []byte("1")); err != nil {
			return err
		}
		var seen []string
		for item, err := range tx.Scan(tableA, store.Range{}) {
			if err != nil {
				return err
			}
			seen = append(seen, string(item.Key)+"="+string(item.Value))
			if err := errors.Join(
				tx.Put(tableA, append(item.Key, '!'), nil),
				tx.Put(tableA, []byte("aa"), []byte("2")),
				tx.Delete(tableA, []byte("b")),
				tx.Put(tableA, []byte("c"), []byte("2"))); err != nil {
				return err
			}
		}
		if diff := cmp.Diff([]string{"a=1", "aa=1", "b=1", "c=1"}, seen); diff != "" {
			t.Errorf("scan (-want +got):\n%s", diff)
		}
		return nil
	})
	want(t, s, tableA, "a=1", "a!=", "aa=2", "aa!=", "b!=", "c=2", "c!=")
}

func scanBreak(t *testing.T, open Open) {
	s := start(t, open)
	put(t, s, tableA, "a", "", "b", "", "c", "")
	one := func(r store.Reader) error {
		n := 0
		for _, err := range r.Scan(tableA, store.Range{}) {
			if err != nil {
				return err
			}
			if n++; n == 2 {
				break
			}
		}
		if n != 2 {
			t.Errorf("saw %d items before the break", n)
		}
		return nil
	}
	view(t, s, one)
	commit(t, s, func(tx store.Tx) error {
		return errors.Join(one(tx), tx.Put(tableA, []byte("aa"), nil), one(tx), tx.Put(tableA, []byte("0"), nil), one(tx))
	})
}

// exit ends the goroutine as testing.T.FailNow does.
func exit() { runtime.Goexit() }
