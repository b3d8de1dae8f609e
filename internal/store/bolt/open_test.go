package bolt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

const table store.Table = "things"

func putOne(t testing.TB, s *Store, k, v string) {
	t.Helper()
	err := s.Commit(t.Context(), func(tx store.Tx) error { return tx.Put(table, []byte(k), []byte(v)) })
	if err != nil {
		t.Fatal(err)
	}
}

func getOne(t testing.TB, s *Store, k string) (v string) {
	t.Helper()
	err := s.View(t.Context(), func(r store.Reader) error {
		b, _, err := r.Get(table, []byte(k))
		v = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func wantReason(t testing.TB, what string, err error, reason vocab.Reason, words ...string) {
	t.Helper()
	if vocab.ReasonOf(err) != reason || err == nil {
		t.Errorf("%s: %v, want %s", what, err, reason)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%s: %q does not say %q", what, err, w)
		}
	}
}

func TestFileModes(t *testing.T) {
	dir := t.TempDir()
	s := openIn(t, dir)
	for _, name := range []string{"rms.db", "rms.db.lock"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: %v, %v; want 0600", name, info.Mode(), err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "rms.db"), 0o640); err != nil {
		t.Fatal(err)
	}
	_, err := Open(options(dir))
	wantReason(t, "readable by others", err, vocab.ReasonConfigurationInvalid, "0640", "chmod 600")
}

// A second opener learns who has the store, in this process or another.
func TestLockNamesItsHolder(t *testing.T) {
	dir := t.TempDir()
	if os.Getenv("RMS_TEST_LOCK_HOLDER") != "" {
		s, err := Open(options(os.Getenv("RMS_TEST_LOCK_HOLDER")))
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println("open")
		_, _ = os.Stdin.Read(make([]byte, 1)) // until the parent closes it
		_ = s.Close()
		return
	}
	s := openIn(t, dir)
	_, err := Open(options(dir))
	wantReason(t, "second opener", err, vocab.ReasonConfigurationInvalid, fmt.Sprintf("process %d ", os.Getpid()))
	putOne(t, s, "k", "v")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestLockNamesItsHolder$")
	child.Env = append(os.Environ(), "RMS_TEST_LOCK_HOLDER="+dir)
	in, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 5)
	if _, err := out.Read(line); err != nil || string(line) != "open\n" {
		t.Fatalf("the child said %q, %v", line, err)
	}
	_, err = Open(options(dir))
	wantReason(t, "beside another process", err, vocab.ReasonConfigurationInvalid, fmt.Sprintf("process %d ", child.Process.Pid))
	// However the holder ends, the lock ends with it.
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait()
	_ = in.Close()
	s = openIn(t, dir)
	defer s.Close()
	if got := getOne(t, s, "k"); got != "v" {
		t.Errorf("after the holder was killed: %q", got)
	}
}

func TestLockBeforeItsHolderWroteItself(t *testing.T) {
	dir := t.TempDir()
	s := openIn(t, dir)
	defer s.Close()
	if err := os.Truncate(filepath.Join(dir, "rms.db.lock"), 0); err != nil {
		t.Fatal(err)
	}
	_, err := Open(options(dir))
	wantReason(t, "holder unknown", err, vocab.ReasonConfigurationInvalid, "another process")
}

// A foreign tool that has the database open, without our lock file, is noticed.
func TestForeignTool(t *testing.T) {
	dir := t.TempDir()
	if err := openIn(t, dir).Close(); err != nil {
		t.Fatal(err)
	}
	db, err := bbolt.Open(filepath.Join(dir, "rms.db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	_, err = Open(options(dir))
	wantReason(t, "Open", err, vocab.ReasonConfigurationInvalid, "another program")
}

func TestStamp(t *testing.T) {
	for _, c := range []struct {
		made, asked store.Stamp
		words       string
	}{
		{store.Development, store.Production, "known to everyone"},
		{store.Production, store.Development, "another data directory"},
	} {
		dir := t.TempDir()
		o := options(dir)
		o.Stamp = c.made
		s, err := Open(o)
		if err != nil {
			t.Fatal(err)
		}
		if v, stamp, err := s.Schema(); v != 1 || stamp != c.made || err != nil {
			t.Errorf("schema %d, stamp %s, %v", v, stamp, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		o.Stamp = c.asked
		_, err = Open(o)
		wantReason(t, string(c.made)+" opened as "+string(c.asked), err, vocab.ReasonConfigurationInvalid, string(c.made), c.words)
	}
}

func TestOptionsAreRequired(t *testing.T) {
	for _, o := range []Options{
		{Path: "x", Stamp: "test", Schema: store.Schema{Version: 1}},
		{Path: "x", Stamp: store.Production},
	} {
		_, err := Open(o)
		wantReason(t, fmt.Sprintf("%+v", o), err, vocab.ReasonInternal)
	}
	_, err := Open(options(filepath.Join(t.TempDir(), "missing")))
	wantReason(t, "no directory", err, vocab.ReasonConfigurationInvalid)
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "rms.db"), 0o700); err != nil {
		t.Fatal(err)
	}
	_, err = Open(options(dir))
	wantReason(t, "a directory in place of the file", err, vocab.ReasonConfigurationInvalid)
}

func TestSchema(t *testing.T) {
	dir := t.TempDir()
	s := openIn(t, dir)
	putOne(t, s, "k", "one")
	reopen := func(sch store.Schema) error {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		o := options(dir)
		o.Schema = sch
		next, err := Open(o)
		if err == nil {
			s = next
		}
		return err
	}
	add := func(word string) store.Migration {
		return func(tx store.Tx) error {
			v, _, err := tx.Get(table, []byte("k"))
			return errors.Join(err, tx.Put(table, []byte("k"), append(v, word...)))
		}
	}
	wantReason(t, "a step is missing", reopen(store.Schema{Version: 3, Migrations: map[uint32]store.Migration{3: add(" three")}}),
		vocab.ReasonStoreNewer, "in between")
	broken := errors.New("test: the step fails")
	err := reopen(store.Schema{Version: 3, Migrations: map[uint32]store.Migration{2: add(" two"), 3: func(store.Tx) error { return broken }}})
	if !errors.Is(err, broken) {
		t.Errorf("a failing step: %v", err)
	}
	refused := vocab.Errorf(vocab.ReasonInternal, "test: the step refuses")
	err = reopen(store.Schema{Version: 2, Migrations: map[uint32]store.Migration{2: func(store.Tx) error { return refused }}})
	if !errors.Is(err, refused) {
		t.Errorf("a refusing step: %v", err)
	}
	// Failed steps left nothing behind.
	if err := reopen(store.Schema{Version: 3, Migrations: map[uint32]store.Migration{2: add(" two"), 3: add(" three")}}); err != nil {
		t.Fatal(err)
	}
	if got := getOne(t, s, "k"); got != "one two three" {
		t.Errorf("migrated to %q", got)
	}
	wantReason(t, "older program", reopen(store.Schema{Version: 2}), vocab.ReasonStoreNewer, "schema is 3", "knows 2", "backup")
	if err := reopen(store.Schema{Version: 3}); err != nil {
		t.Error(err)
	}
	s.Close()
}

func TestNotAStore(t *testing.T) {
	t.Run("another program's database", func(t *testing.T) {
		dir := t.TempDir()
		db, err := bbolt.Open(filepath.Join(dir, "rms.db"), 0o600, nil)
		if err != nil {
			t.Fatal(err)
		}
		db.Close()
		_, err = Open(options(dir))
		wantReason(t, "Open", err, vocab.ReasonConfigurationInvalid, "not a store")
	})
	for name, content := range map[string][]byte{
		"text":         []byte("not a database"),
		"zeros":        make([]byte, 1<<16),
		"random pages": bytes.Repeat([]byte{0xed, 0x0c, 0xda, 0xed}, 1<<14),
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "rms.db")
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := Open(options(dir))
			wantReason(t, "Open", err, vocab.ReasonStoreDamaged, "backup")
			if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, content) {
				t.Errorf("opening changed the file: %v", err)
			}
		})
	}
}

// What a crash while creating left is no store and in nobody's way.
func TestCreateAfterCrash(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "rms.db.new"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := openIn(t, dir)
	defer s.Close()
	putOne(t, s, "k", "v")
	if _, err := os.Stat(filepath.Join(dir, "rms.db.new")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the half-made file is still there: %v", err)
	}
}

// Damage in the middle of the file is an error, never a crash: every page is
// overwritten in turn, and the file is cut at every page.
func TestDamagedFile(t *testing.T) {
	dir := t.TempDir()
	s := openIn(t, dir)
	err := s.Commit(t.Context(), func(tx store.Tx) error {
		for i := range 400 {
			if err := tx.Put(table, fmt.Appendf(nil, "%04d", i), bytes.Repeat([]byte{byte(i)}, 200)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(filepath.Join(dir, "rms.db"))
	if err != nil {
		t.Fatal(err)
	}
	page := os.Getpagesize()
	// The rest of the file is room to grow.
	good = good[:(len(bytes.TrimRight(good, "\x00"))/page+1)*page]
	try := func(name string, content []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "rms.db"), content, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Open(options(dir))
		if err != nil {
			if r := vocab.ReasonOf(err); r != vocab.ReasonStoreDamaged && r != vocab.ReasonConfigurationInvalid {
				t.Errorf("%s: Open: %v", name, err)
			}
			return
		}
		defer s.Close()
		reasonable := func(what string, err error) {
			if err != nil && vocab.ReasonOf(err) != vocab.ReasonStoreDamaged {
				t.Errorf("%s: %s: %v", name, what, err)
			}
		}
		reasonable("scan", s.View(t.Context(), func(r store.Reader) error {
			for _, err := range r.Scan(table, store.Range{}) {
				if err != nil {
					return err
				}
			}
			for _, err := range r.Scan(table, store.Range{Reverse: true}) {
				if err != nil {
					return err
				}
			}
			_, _, err := r.Get(table, []byte("0200"))
			return err
		}))
		reasonable("check", s.Check(t.Context(), func(error) {}))
		reasonable("commit", s.Commit(t.Context(), func(tx store.Tx) error { return tx.Put(table, []byte("0200x"), nil) }))
	}
	for i := range len(good) / page {
		bad := bytes.Clone(good)
		clear(bad[i*page : (i+1)*page])
		try(fmt.Sprintf("page %d cleared", i), bad)
		copy(bad[i*page:(i+1)*page], bytes.Repeat([]byte{0xff}, page))
		try(fmt.Sprintf("page %d overwritten", i), bad)
		try(fmt.Sprintf("cut to %d pages", i), good[:i*page])
	}
}

func TestCheckAndCopy(t *testing.T) {
	dir := t.TempDir()
	s := openIn(t, dir)
	defer s.Close()
	for i := range 50 {
		putOne(t, s, fmt.Sprint(i), strings.Repeat("v", 3000))
	}
	problems := func(s *Store) (found []string) {
		if err := s.Check(t.Context(), func(p error) { found = append(found, p.Error()) }); err != nil {
			t.Fatal(err)
		}
		return found
	}
	if found := problems(s); found != nil {
		t.Errorf("a sound store: %v", found)
	}
	copied := t.TempDir()
	var buf bytes.Buffer
	n, err := s.CopyTo(t.Context(), &buf, nil)
	if err != nil || n != int64(buf.Len()) {
		t.Fatalf("copied %d of %d bytes, %v", n, buf.Len(), err)
	}
	putOne(t, s, "later", "v")
	if err := os.WriteFile(filepath.Join(copied, "rms.db"), buf.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	c := openIn(t, copied)
	defer c.Close()
	if getOne(t, c, "49") == "" || getOne(t, c, "later") != "" {
		t.Error("the copy is not what the store was")
	}
	// A table no version of the service makes.
	if err := c.db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucket([]byte("Strange!"))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if found := problems(c); len(found) != 1 || !strings.Contains(found[0], "Strange!") {
		t.Errorf("a strange table: %v", found)
	}

	ctx, cancel := context.WithCancelCause(t.Context())
	left := errors.New("test: left")
	cancel(left)
	if _, err := s.CopyTo(ctx, &buf, nil); !errors.Is(err, left) {
		t.Errorf("CopyTo for one who left: %v", err)
	}
	if err := s.Check(ctx, func(error) {}); !errors.Is(err, left) {
		t.Errorf("Check for one who left: %v", err)
	}
	ctx, cancel = context.WithCancelCause(t.Context())
	if _, err := s.CopyTo(ctx, cancelling{func() { cancel(left) }}, nil); !errors.Is(err, left) {
		t.Errorf("CopyTo for one who leaves: %v", err)
	}
}

// cancelling is a reader's connection that breaks.
type cancelling struct{ cancel func() }

func (c cancelling) Write(p []byte) (int, error) { c.cancel(); return len(p), nil }

// A copy whose reader is slow lets everybody write, and ends when the file has
// grown too much because of it.
func TestCopyEndsWhenItCostsTooMuch(t *testing.T) {
	t.Parallel()
	s := openIn(t, t.TempDir())
	defer s.Close()
	for i := range 200 {
		putOne(t, s, fmt.Sprint(i), strings.Repeat("v", 4000))
	}
	s.copyGrowth = 1 << 20
	writes := 0
	_, err := s.CopyTo(t.Context(), writing{func() {
		writes++
		putOne(t, s, fmt.Sprintf("meanwhile %d", writes), strings.Repeat("m", 2<<20))
	}}, nil)
	wantReason(t, "a slow copy", err, vocab.ReasonOverloaded, "grows too much")
	if writes == 0 || getOne(t, s, fmt.Sprintf("meanwhile %d", writes)) == "" {
		t.Errorf("%d writes went through", writes)
	}
	if _, err := s.CopyTo(t.Context(), io.Discard, nil); err != nil {
		t.Errorf("the next copy: %v", err)
	}
}

// What is reserved for a large file leaves a copy room to the size of the file.
func TestReserve(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "rms.db")
	if got := reserve(path); got != initialMap {
		t.Errorf("for no file: %d", got)
	}
	f, err := os.Create(path)
	if err == nil {
		err = errors.Join(f.Truncate(10<<30), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	want := int64(20 << 30)
	if math.MaxInt == math.MaxInt32 {
		want = initialMap // all there is
	}
	if got := int64(reserve(path)); got != want {
		t.Errorf("for 10 GiB: %d", got)
	}
}

// writing is a reader during whose reading others write.
type writing struct{ write func() }

func (w writing) Write(p []byte) (int, error) { w.write(); return len(p), nil }
