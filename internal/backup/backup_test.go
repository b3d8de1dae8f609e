package backup

import (
	"archive/tar"
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"

	"github.com/openrms/rms/internal/vocab"
)

// keys are a recipient and the identity that opens what is made for it.
func keys(tb testing.TB) (*Recipients, *Identities) {
	tb.Helper()
	file, recipient, print, err := Keygen()
	if err != nil {
		tb.Fatal(err)
	}
	to, err := ParseRecipients([]string{recipient})
	if err != nil {
		tb.Fatal(err)
	}
	if cmp.Diff([]string{print}, to.Fingerprints()) != "" {
		tb.Fatalf("fingerprints %v and %s", to.Fingerprints(), print)
	}
	ids, err := ReadIdentities(bytes.NewReader(file))
	if err != nil {
		tb.Fatal(err)
	}
	return to, ids
}

func someManifest(size int) Manifest {
	until := time.Date(2027, 1, 28, 0, 0, 0, 0, time.UTC)
	return Manifest{
		ID: vocab.NewBackupID(), Time: time.Date(2026, 10, 30, 3, 0, 0, 0, time.UTC), KeepUntil: &until, Service: "0.1.0-test",
		Schema: 1, Stamp: "production", StoreBytes: int64(size),
		Tenants: []Tenant{{
			ID: vocab.NewTenantID(), Name: "contoso", LogSize: 12, Root: Hash{1, 2, 3}, Epoch: 4,
			KeyVersions: []KeyVersion{{Custodian: vocab.NewCustodianID(), Key: "root", Version: 2}},
			Generations: []Generation{{Number: 1, ID: vocab.NewGenerationID()}},
		}},
	}
}

const someCert = "0123456789abcdef.cert"

// write writes a backup of a store.
func write(tb testing.TB, w io.Writer, to *Recipients, m Manifest, store []byte) {
	tb.Helper()
	b, err := NewWriter(w, to)
	if err != nil {
		tb.Fatal(err)
	}
	_, copied := io.Copy(b, bytes.NewReader(nil))
	for _, err := range []error{
		copied, b.Manifest(m), b.Checkpoint(m.Tenants[0].ID, "latest", []byte("note")), b.Checkpoint(m.Tenants[0].ID, someCert, []byte("certificate")),
		b.Checkpoint(m.Tenants[0].ID, "latest.new", []byte("what a crash left")), b.Store(),
	} {
		if err != nil {
			tb.Fatal(err)
		}
	}
	if _, err := b.Write(store); err != nil {
		tb.Fatal(err)
	}
	if err := b.Close(); err != nil {
		tb.Fatal(err)
	}
}

// taken is what a sink got.
type taken struct {
	manifest *Manifest
	files    map[string]string
	store    bytes.Buffer
}

func (t *taken) sink() Sink {
	t.files = map[string]string{}
	return Sink{
		Manifest: func(m *Manifest) error { t.manifest = m; return nil },
		Checkpoint: func(id vocab.TenantID, name string, b []byte) error {
			t.files[id.String()+"/"+name] = string(b)
			return nil
		},
		Store: func(int64) (io.Writer, error) { return &t.store, nil },
	}
}

func someStore(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	to, ids := keys(t)
	for _, size := range []int{1, 511, 512, 64 << 10, 3<<20 + 17} {
		store := someStore(size)
		m := someManifest(size)
		var file bytes.Buffer
		write(t, &file, to, m, store)
		if bytes.Contains(file.Bytes(), []byte("contoso")) {
			t.Error("the file shows what is in it")
		}
		var got taken
		read, err := Read(bytes.NewReader(file.Bytes()), ids, got.sink())
		if err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		m.Kind, m.Version = kind, Version
		if d := cmp.Diff(&m, read); d != "" {
			t.Error(d)
		}
		id := m.Tenants[0].ID.String()
		if d := cmp.Diff(map[string]string{id + "/latest": "note", id + "/" + someCert: "certificate"}, got.files); d != "" {
			t.Error(d)
		}
		if !bytes.Equal(got.store.Bytes(), store) {
			t.Error("the store is another")
		}
		sealed, err := Inspect(bytes.NewReader(file.Bytes()))
		if err != nil || sealed.Recipients != 1 || sealed.Bytes != int64(file.Len()) {
			t.Errorf("%+v %v", sealed, err)
		}
	}
}

// Stock age and tar, here their Go packages, read a backup.
func TestStockToolsReadIt(t *testing.T) {
	t.Parallel()
	file, recipient, _, err := Keygen()
	if err != nil {
		t.Fatal(err)
	}
	to, err := ParseRecipients([]string{recipient})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	write(t, &b, to, someManifest(3), []byte("abc"))
	ids, err := age.ParseIdentities(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := age.Decrypt(&b, ids...)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for r := tar.NewReader(plain); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name[max(0, strings.LastIndex(h.Name, "/")):])
	}
	if d := cmp.Diff([]string{"manifest.json", "/latest", "/" + someCert, "rms.db", "end.json"}, names); d != "" {
		t.Error(d)
	}
}

// Wherever a backup is cut, and wherever one bit of it is changed, it does not
// read.
func TestCutAndChanged(t *testing.T) {
	t.Parallel()
	to, ids := keys(t)
	var b bytes.Buffer
	write(t, &b, to, someManifest(150_000), someStore(150_000))
	good := b.Bytes()
	read := func(what string, file []byte) {
		t.Helper()
		var got taken
		m, err := Read(bytes.NewReader(file), ids, got.sink())
		if m != nil || vocab.ReasonOf(err) != vocab.ReasonStoreDamaged && vocab.ReasonOf(err) != vocab.ReasonConfigurationInvalid {
			t.Errorf("%s: %v", what, err)
		}
	}
	step := max(1, len(good)/200)
	for at := 0; at < len(good); at += step {
		read(fmt.Sprintf("cut to %d of %d", at, len(good)), good[:at])
		bad := bytes.Clone(good)
		bad[at] ^= 1 << (at % 8)
		read(fmt.Sprintf("byte %d of %d", at, len(good)), bad)
	}
	for _, at := range []int{len(good) - 1, len(good) - 16, len(good) - 17} {
		read(fmt.Sprintf("cut to %d of %d", at, len(good)), good[:at])
	}
	read("with one byte more", append(bytes.Clone(good), 0))
	for at := range 40 {
		if _, err := Inspect(bytes.NewReader(good[:at])); vocab.ReasonOf(err) != vocab.ReasonStoreDamaged {
			t.Errorf("without opening it, cut to %d: %v", at, err)
		}
	}
}

func TestWrongIdentity(t *testing.T) {
	t.Parallel()
	to, _ := keys(t)
	_, others := keys(t)
	var b bytes.Buffer
	write(t, &b, to, someManifest(3), []byte("abc"))
	var got taken
	_, err := Read(&b, others, got.sink())
	if vocab.ReasonOf(err) != vocab.ReasonConfigurationInvalid || !strings.Contains(err.Error(), "identities") || got.manifest != nil {
		t.Errorf("%v", err)
	}
}

// An error of whoever takes the content is that, and no damage of the backup.
func TestSinkFails(t *testing.T) {
	t.Parallel()
	to, ids := keys(t)
	var b bytes.Buffer
	write(t, &b, to, someManifest(300_000), someStore(300_000))
	full := errors.New("test: no space left on device")
	for name, change := range map[string]func(*Sink){
		"manifest":   func(s *Sink) { s.Manifest = func(*Manifest) error { return full } },
		"checkpoint": func(s *Sink) { s.Checkpoint = func(vocab.TenantID, string, []byte) error { return full } },
		"store":      func(s *Sink) { s.Store = func(int64) (io.Writer, error) { return nil, full } },
		"writing":    func(s *Sink) { s.Store = func(int64) (io.Writer, error) { return failingWriter{full}, nil } },
	} {
		var got taken
		sink := got.sink()
		change(&sink)
		if m, err := Read(bytes.NewReader(b.Bytes()), ids, sink); m != nil || !errors.Is(err, full) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

type failingWriter struct{ err error }

func (f failingWriter) Write([]byte) (int, error) { return 0, f.err }

// entry is a file of an archive made by hand.
type entry struct {
	name, content string
	kind          byte
}

func archive(tb testing.TB, entries ...entry) []byte {
	tb.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Size: int64(len(e.content)), Mode: 0o600, Typeflag: tar.TypeReg}
		if e.kind != 0 {
			h.Typeflag, h.Size, h.Linkname = e.kind, 0, e.content
		}
		if err := w.WriteHeader(h); err != nil {
			tb.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := w.Write([]byte(e.content)); err != nil {
				tb.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

// parts are the entries of a good archive.
func parts(tb testing.TB) (manifest, note, store, end entry, m Manifest) {
	tb.Helper()
	m = someManifest(3)
	m.Kind, m.Version = kind, Version
	b, err := json.Marshal(m)
	if err != nil {
		tb.Fatal(err)
	}
	sum := "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" // SHA-256 of abc
	return entry{name: manifestName, content: string(b)},
		entry{name: checkpointsDir + m.Tenants[0].ID.String() + "/latest", content: "note"},
		entry{name: storeName, content: "abc"},
		entry{name: endName, content: `{"store_sha256":"` + sum + `","files":3}`}, m
}

// archived is an archive made by hand, and why it is refused; "" if it is not.
type archived struct {
	name    string
	entries []entry
	reason  vocab.Reason
}

func archives(tb testing.TB) []archived {
	tb.Helper()
	manifest, note, store, end, m := parts(tb)
	changed := func(from, to string) entry {
		if !strings.Contains(manifest.content, from) {
			tb.Fatalf("no %s in %s", from, manifest.content)
		}
		return entry{name: manifestName, content: strings.Replace(manifest.content, from, to, 1)}
	}
	id := m.Tenants[0].ID.String()
	return []archived{
		{"a good one", []entry{manifest, note, store, end}, ""},
		{"nothing", nil, vocab.ReasonStoreDamaged},
		{"no end", []entry{manifest, note, store}, vocab.ReasonStoreDamaged},
		{"no store", []entry{manifest, note, end}, vocab.ReasonStoreDamaged},
		{"no manifest", []entry{note, store, end}, vocab.ReasonStoreDamaged},
		{"another order", []entry{note, manifest, store, end}, vocab.ReasonStoreDamaged},
		{"a checkpoint twice", []entry{manifest, note, note, store, end}, vocab.ReasonStoreDamaged},
		{"a checkpoint after the store", []entry{manifest, store, note, end}, vocab.ReasonStoreDamaged},
		{"a file after the end", []entry{manifest, note, store, end, note}, vocab.ReasonStoreDamaged},
		{"another file", []entry{manifest, {name: "rmsd.yaml", content: "x"}, store, end}, vocab.ReasonStoreDamaged},
		{"a path out of it", []entry{manifest, {name: "checkpoints/../../etc/latest", content: "x"}, store, end}, vocab.ReasonStoreDamaged},
		{"a path out of a tenant", []entry{manifest, {name: "checkpoints/" + id + "/../latest", content: "x"}, store, end}, vocab.ReasonStoreDamaged},
		{"a tenant's checkpoint that the manifest does not name", []entry{manifest, {name: "checkpoints/" + vocab.NewTenantID().String() + "/latest"}, store, end}, vocab.ReasonStoreDamaged},
		{"an ID in another spelling", []entry{manifest, {name: "checkpoints/" + strings.ToUpper(id) + "/latest"}, store, end}, vocab.ReasonStoreDamaged},
		{"a link", []entry{manifest, {name: note.name, content: "/etc/passwd", kind: tar.TypeSymlink}, store, end}, vocab.ReasonStoreDamaged},
		{"a directory", []entry{manifest, {name: "checkpoints/", kind: tar.TypeDir}, store, end}, vocab.ReasonStoreDamaged},
		{"a large checkpoint", []entry{manifest, {name: note.name, content: strings.Repeat("x", maxCheckpoint+1)}, store, end}, vocab.ReasonStoreDamaged},
		{"a store of another size", []entry{manifest, note, {name: storeName, content: "abcd"}, end}, vocab.ReasonStoreDamaged},
		{"another store", []entry{manifest, note, {name: storeName, content: "abd"}, end}, vocab.ReasonStoreDamaged},
		{"an end of more files", []entry{manifest, store, end}, vocab.ReasonStoreDamaged},
		{"an end with more in it", []entry{manifest, note, store, {name: endName, content: strings.Replace(end.content, "{", `{"more":1,`, 1)}}, vocab.ReasonStoreDamaged},
		{"a manifest with more in it", []entry{changed(`{"kind"`, `{"more":1,"kind"`), note, store, end}, vocab.ReasonStoreDamaged},
		{"a manifest and something behind it", []entry{{name: manifestName, content: manifest.content + "{}"}, note, store, end}, vocab.ReasonStoreDamaged},
		{"something else's", []entry{changed(`"rms backup"`, `"another"`), note, store, end}, vocab.ReasonStoreDamaged},
		{"no version", []entry{changed(`"version":1`, `"version":0`), note, store, end}, vocab.ReasonStoreDamaged},
		{"a newer format, which may have more", []entry{changed(`"version":1`, `"version":2,"more":1`), note, store, end}, vocab.ReasonStoreNewer},
		{"no bytes", []entry{changed(`"store_bytes":3`, `"store_bytes":-3`), note, store, end}, vocab.ReasonStoreDamaged},
		{"more bytes than can be", []entry{changed(`"store_bytes":3`, `"store_bytes":99999999999999999`), note, store, end}, vocab.ReasonStoreDamaged},
		{"a root of few digits", []entry{changed(`"root":"010203`, `"root":"0102`), note, store, end}, vocab.ReasonStoreDamaged},
		{"a tenant that cannot be", []entry{changed(`"contoso"`, `"../x"`), note, store, end}, vocab.ReasonStoreDamaged},
	}
}

func TestArchiveIsStrict(t *testing.T) {
	t.Parallel()
	for _, c := range archives(t) {
		var got taken
		read, err := readArchive(bytes.NewReader(archive(t, c.entries...)), got.sink())
		if (err == nil) != (c.reason == "") || err != nil && vocab.ReasonOf(err) != c.reason || (read == nil) != (err != nil) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	manifest, note, store, end, _ := parts(t)
	var got taken
	if _, err := readArchive(bytes.NewReader(append(archive(t, manifest, note, store, end), "more"...)), got.sink()); vocab.ReasonOf(err) != vocab.ReasonStoreDamaged {
		t.Errorf("bytes after the archive: %v", err)
	}
}

func TestKeysAreRefused(t *testing.T) {
	t.Parallel()
	classic, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	_, recipient, _, err := Keygen()
	if err != nil {
		t.Fatal(err)
	}
	for name, words := range map[string][]string{
		"none":       nil,
		"classic":    {recipient, classic.Recipient().String()},
		"not one":    {"age1pq1nonsense"},
		"a file":     {"/etc/rmsd/recipients"},
		"cut":        {recipient[:len(recipient)-1]},
		"an SSH key": {"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA=="},
	} {
		if _, err := ParseRecipients(words); vocab.ReasonOf(err) != vocab.ReasonRequestInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	if r, err := ParseRecipients([]string{recipient, " " + recipient}); err != nil || len(r.Fingerprints()) != 1 {
		t.Errorf("the same twice: %v", err)
	}
	for name, file := range map[string]string{
		"empty": "# nothing\n\n", "classic": classic.String(), "a recipient": recipient, "long": strings.Repeat("x", 1<<17),
	} {
		_, err := ReadIdentities(strings.NewReader(file))
		if vocab.ReasonOf(err) != vocab.ReasonConfigurationInvalid || strings.Contains(err.Error(), "AGE-SECRET-KEY-1") {
			t.Errorf("identities, %s: %v", name, err)
		}
	}
}

// A writer that was told of more bytes than came does not end its backup.
func TestShortStoreIsNoBackup(t *testing.T) {
	t.Parallel()
	to, ids := keys(t)
	var b bytes.Buffer
	w, err := NewWriter(&b, to)
	if err != nil {
		t.Fatal(err)
	}
	m := someManifest(10)
	if err := errors.Join(w.Manifest(m), w.Store()); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("five.")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); vocab.ReasonOf(err) != vocab.ReasonInternal {
		t.Errorf("Close: %v", err)
	}
	var got taken
	if _, err := Read(&b, ids, got.sink()); vocab.ReasonOf(err) != vocab.ReasonStoreDamaged {
		t.Errorf("Read: %v", err)
	}
}

// What is held in memory does not depend on the size of the store.
func TestMemoryIsBounded(t *testing.T) {
	to, _ := keys(t)
	const size = 64 << 20
	m := someManifest(size)
	w, err := NewWriter(io.Discard, to)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Manifest(m), w.Store()); err != nil {
		t.Fatal(err)
	}
	piece := make([]byte, 32<<10)
	allocated := testing.AllocsPerRun(1, func() {
		for n := 0; n < size/2; n += len(piece) {
			if _, err := w.Write(piece); err != nil {
				t.Fatal(err)
			}
		}
	})
	if allocated > 4096 {
		t.Errorf("%.0f allocations for %d pieces", allocated, size/2/len(piece))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// A backup of the first format reads for ever. Its identity is a test value.
func TestVector(t *testing.T) {
	t.Parallel()
	file, ids := vector(t)
	var got taken
	m, err := Read(bytes.NewReader(file), ids, got.sink())
	if err != nil {
		t.Fatal(err)
	}
	if m.ID.String() != "01a20895-2c64-7b25-94d8-c42863e1597a" || m.Tenants[0].Name != "contoso" || m.Tenants[0].Root != (Hash{1, 2, 3}) ||
		got.store.String() != "abc" || len(got.files) != 2 {
		t.Errorf("%+v %v", m, got.files)
	}
}

func vector(tb testing.TB) (file []byte, ids *Identities) {
	tb.Helper()
	file, err := os.ReadFile("testdata/v1.age")
	if err != nil {
		tb.Fatal(err)
	}
	key, err := os.Open("testdata/test-identity.txt")
	if err != nil {
		tb.Fatal(err)
	}
	defer key.Close()
	if ids, err = ReadIdentities(key); err != nil {
		tb.Fatal(err)
	}
	return file, ids
}
