package archive_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/openrms/rms/internal/archive"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/vocab"
)

var when = time.Date(2026, 11, 26, 9, 0, 0, 0, time.UTC)

// made is an archive and what it was made from.
type made struct {
	file []byte
	key  *license.RecipientKey
	t    vocab.TenantID
	root *license.DaemonKey
	gen  vocab.GenerationID
	sec  *vocab.Secret
	rows map[uint64][]archive.Row
	sum  [32]byte
}

func manifest() *archive.Manifest {
	return &archive.Manifest{
		Name: "contoso", Created: 1, Schema: 1, Service: "test", Source: "here", Time: 2, Operation: vocab.NewOperationID(),
		Frozen: vocab.NewEventID(), Begun: vocab.NewEventID(), Checkpoint: []byte("c"), Certificate: []byte("k"), Bundle: []byte("b"),
	}
}

// someRows are rows of all sizes: enough for several frames, and one so large
// that it fills a frame.
func someRows() map[uint64][]archive.Row {
	rows := map[uint64][]archive.Row{1: {{Key: nil, Value: []byte("only")}}, 3: {{Key: []byte("empty")}}, 4: {{Key: []byte("large"), Value: make([]byte, 8<<20-64<<10)}}}
	for i := range 3000 {
		rows[2] = append(rows[2], archive.Row{Key: binary.BigEndian.AppendUint32(nil, uint32(i)), Value: bytes.Repeat([]byte{byte(i)}, i%997)})
	}
	return rows
}

func write(tb testing.TB, rows map[uint64][]archive.Row) *made {
	tb.Helper()
	check := func(err error) {
		tb.Helper()
		if err != nil {
			tb.Fatal(err)
		}
	}
	m := &made{t: vocab.NewTenantID(), gen: vocab.NewGenerationID(), sec: vocab.NewSecret(), rows: rows}
	var err error
	m.key, err = license.NewRecipientKey(license.XWing)
	check(err)
	m.root, err = license.NewDaemonKey()
	check(err)
	to, err := license.ParseRecipient(license.XWing, m.key.Public(), []license.KEM{license.XWing})
	check(err)
	var file bytes.Buffer
	w, err := archive.NewWriter(&file, to, m.t, vocab.NewArchiveID(), manifest())
	check(err)
	defer w.Close()
	for table := uint64(1); table < 10; table++ {
		for _, r := range rows[table] {
			check(w.Row(table, r))
		}
	}
	box, err := w.Keys().SealGeneration(m.sec, m.gen, license.ScopeTenant, [16]byte{})
	check(err)
	check(w.Row(102, archive.Row{Key: m.gen[:], Value: box}))
	end, err := w.Finish(tb.Context(), m.root, 7, [32]byte{7}, when)
	check(err)
	check(end.Write())
	m.file, m.sum = file.Bytes(), end.SHA256
	if end.Bytes != int64(len(m.file)) {
		tb.Errorf("%d bytes, it says %d", len(m.file), end.Bytes)
	}
	return m
}

// read reads all of an archive.
func read(r io.Reader, key *license.RecipientKey) (*archive.Reader, map[uint64][]archive.Row, error) {
	x, err := archive.NewReader(r, key)
	if err != nil {
		return nil, nil, err
	}
	rows := map[uint64][]archive.Row{}
	for {
		table, some, err := x.Next()
		if errors.Is(err, io.EOF) {
			return x, rows, nil
		}
		if err != nil {
			return nil, nil, err
		}
		rows[table] = append(rows[table], some...)
	}
}

func TestAnArchiveReadsBack(t *testing.T) {
	t.Parallel()
	m := write(t, someRows())
	x, rows, err := read(iotest.HalfReader(bytes.NewReader(m.file)), m.key)
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	box := rows[102][0].Value
	delete(rows, 102)
	same := func(a, b archive.Row) bool { return bytes.Equal(a.Key, b.Key) && bytes.Equal(a.Value, b.Value) }
	for table := range uint64(10) {
		if !slices.EqualFunc(m.rows[table], rows[table], same) {
			t.Errorf("table %d came back as another", table)
		}
	}
	if x.SHA256() != m.sum || x.Bytes() != int64(len(m.file)) || x.Tenant() != m.t || x.Manifest().Name != "contoso" || x.End().LogSize != 7 {
		t.Errorf("%+v", x.End())
	}
	secret, err := x.Keys().OpenGeneration(box, m.gen, license.ScopeTenant, [16]byte{})
	if err != nil || !secret.Equal(m.sec) {
		t.Errorf("the secret of the generation: %v", err)
	}
	// It opens as nothing else.
	for name, open := range map[string]func() (*vocab.Secret, error){
		"another generation": func() (*vocab.Secret, error) {
			return x.Keys().OpenGeneration(box, vocab.NewGenerationID(), license.ScopeTenant, [16]byte{})
		},
		"another scope": func() (*vocab.Secret, error) {
			return x.Keys().OpenGeneration(box, m.gen, license.ScopeDocument, [16]byte{})
		},
		"a document": func() (*vocab.Secret, error) {
			return x.Keys().OpenGeneration(box, m.gen, license.ScopeTenant, vocab.NewContentID())
		},
	} {
		if _, err := open(); err == nil {
			t.Errorf("it opens as that of %s", name)
		}
	}
	other := write(t, map[uint64][]archive.Row{1: {{Value: []byte("x")}}})
	y, _, err := read(bytes.NewReader(other.file), other.key)
	if err != nil {
		t.Fatal(err)
	}
	defer y.Close()
	if _, err := y.Keys().OpenGeneration(box, m.gen, license.ScopeTenant, [16]byte{}); err == nil {
		t.Error("it opens in another archive")
	}
	if _, _, err := x.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %v", err)
	}
}

// frames are where the frames of an archive begin and end.
func frames(file []byte) (at [][2]int) {
	for n := 12 + int(binary.BigEndian.Uint16(file[10:])); n < len(file); {
		end := n + 4 + int(binary.BigEndian.Uint32(file[n:]))
		at = append(at, [2]int{n, end})
		n = end
	}
	return at
}

// Each of these is noticed, whatever it is done to.
func TestWhatIsNoArchive(t *testing.T) {
	t.Parallel()
	rows := map[uint64][]archive.Row{}
	for i := range 1500 {
		rows[2] = append(rows[2], archive.Row{Key: binary.BigEndian.AppendUint32(nil, uint32(i)), Value: make([]byte, 1200)})
	}
	rows[5] = []archive.Row{{Key: []byte("a"), Value: []byte("b")}}
	m := write(t, rows)
	at := frames(m.file)
	if len(at) < 5 {
		t.Fatalf("%d frames are too few for this test", len(at))
	}
	bad := map[string][]byte{"nothing": nil, "something else": []byte("PK\x03\x04 a file of another kind"), "more behind it": append(bytes.Clone(m.file), 0)}
	flip := func(n int) []byte {
		b := bytes.Clone(m.file)
		b[n] ^= 1
		return b
	}
	for n := range at[0][0] {
		bad[fmt.Sprintf("byte %d of the head", n)] = flip(n)
	}
	cut := func(n int) []byte { return bytes.Clone(m.file[:n]) }
	frame := func(i int) []byte { return m.file[at[i][0]:at[i][1]] }
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	head := m.file[:at[0][0]]
	for i, f := range at {
		for name, n := range map[string]int{"length": f[0], "length's end": f[0] + 3, "nonce": f[0] + 4, "first byte": f[0] + 16, "last byte": f[1] - 17, "tag": f[1] - 1} {
			bad[fmt.Sprintf("frame %d, %s", i, name)] = flip(n)
		}
		for _, n := range []int{f[0], f[0] + 1, f[0] + 4, f[0] + 5, f[1] - 1} {
			bad[fmt.Sprintf("cut in frame %d at %d", i, n-f[0])] = cut(n)
		}
		bad[fmt.Sprintf("without frame %d", i)] = join(m.file[:f[0]], m.file[f[1]:])
		bad[fmt.Sprintf("frame %d twice", i)] = join(m.file[:f[1]], frame(i), m.file[f[1]:])
		if i > 0 {
			bad[fmt.Sprintf("frames %d and %d swapped", i-1, i)] = join(m.file[:at[i-1][0]], frame(i), frame(i-1), m.file[f[1]:])
		}
	}
	bad["the end at once"] = join(head, frame(0), frame(len(at)-1))
	other := write(t, rows)
	otherAt := frames(other.file)
	bad["a frame of another archive"] = join(m.file[:at[1][0]], other.file[otherAt[1][0]:otherAt[1][1]], m.file[at[1][1]:])
	for name, file := range bad {
		_, _, err := read(bytes.NewReader(file), m.key)
		if r := vocab.ReasonOf(err); r != vocab.ReasonStoreDamaged && !(strings.Contains(name, "head") && (r == vocab.ReasonStoreNewer || r == vocab.ReasonConfigurationInvalid)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := read(bytes.NewReader(m.file), other.key); !errors.Is(err, vocab.ReasonConfigurationInvalid) {
		t.Errorf("another key: %v", err)
	}
	broken := errors.New("the disk is gone")
	if _, _, err := read(io.MultiReader(bytes.NewReader(m.file[:at[2][0]+9]), iotest.ErrReader(broken)), m.key); !errors.Is(err, broken) {
		t.Errorf("an error of the file: %v", err)
	}
	newer := bytes.Clone(m.file)
	newer[9] = archive.Version + 1
	if _, _, err := read(bytes.NewReader(newer), m.key); !errors.Is(err, vocab.ReasonStoreNewer) {
		t.Errorf("a newer format: %v", err)
	}
}

// A root that is not the tenant's current one signs no archive.
func TestTheEndIsTheRoots(t *testing.T) {
	t.Parallel()
	m := write(t, map[uint64][]archive.Row{1: {{Value: []byte("x")}}})
	x, _, err := read(bytes.NewReader(m.file), m.key)
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	bundle := func(tenant vocab.TenantID, roots ...license.Root) *license.Bundle {
		return &license.Bundle{Tenant: tenant, Roots: roots}
	}
	stranger, err := license.NewDaemonKey()
	if err != nil {
		t.Fatal(err)
	}
	mine, theirs := m.root.PublicKey(), stranger.PublicKey()
	for name, c := range map[string]struct {
		bundle *license.Bundle
		want   vocab.Reason
	}{
		"the current root":     {bundle(m.t, license.Root{Key: mine, Version: 1, State: license.RootCurrent}), ""},
		"another root":         {bundle(m.t, license.Root{Key: theirs, Version: 1, State: license.RootCurrent}), vocab.ReasonTrustRootMismatch},
		"a previous root":      {bundle(m.t, license.Root{Key: mine, Version: 1, State: license.RootPrevious}, license.Root{Key: theirs, Version: 2, State: license.RootCurrent}), vocab.ReasonTrustRootMismatch},
		"another tenant's":     {bundle(vocab.NewTenantID(), license.Root{Key: mine, Version: 1, State: license.RootCurrent}), vocab.ReasonTrustRootMismatch},
		"a bundle without one": {bundle(m.t), vocab.ReasonTrustRootMismatch},
	} {
		if err := x.End().Verify(c.bundle); vocab.ReasonOf(err) != c.want {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestAWriterKeepsTheOrder(t *testing.T) {
	t.Parallel()
	key, err := license.NewRecipientKey(license.XWing)
	if err != nil {
		t.Fatal(err)
	}
	to, err := license.ParseRecipient(license.XWing, key.Public(), []license.KEM{license.XWing})
	if err != nil {
		t.Fatal(err)
	}
	for name, rows := range map[string][]uint64{"tables": {2, 1}, "rows": {1, 1}} {
		w, err := archive.NewWriter(io.Discard, to, vocab.NewTenantID(), vocab.NewArchiveID(), manifest())
		if err != nil {
			t.Fatal(err)
		}
		for i, table := range rows {
			err = w.Row(table, archive.Row{Key: []byte("same")})
			if i == 0 && err != nil {
				t.Fatal(err)
			}
		}
		if !errors.Is(err, vocab.ReasonInternal) {
			t.Errorf("%s out of order: %v", name, err)
		}
		w.Close()
	}
}

func TestKeyFiles(t *testing.T) {
	t.Parallel()
	key, secret, public, err := archive.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	if back, err := archive.ReadKey(bytes.NewReader(secret)); err != nil || back.Hash() != key.Hash() {
		t.Errorf("the key: %v", err)
	}
	to, raw, err := archive.ReadRecipient(strings.NewReader("# from us\n\n" + public))
	if err != nil || to.Hash() != key.Hash() || !bytes.Equal(raw, key.Public()) {
		t.Errorf("the recipient: %v", err)
	}
	if strings.Contains(fmt.Sprintf("%+v %#v", key, to), string(secret)) {
		t.Error("it prints")
	}
	for name, text := range map[string]string{
		"nothing": "", "the other file": public, "twice": string(secret) + string(secret), "no base64": "rms-import-key-v1 ???",
		"too short": "rms-import-key-v1 AAAA", "another version": strings.Replace(string(secret), "-v1", "-v2", 1), "too long": strings.Repeat("#", 20<<10),
	} {
		if _, err := archive.ReadKey(strings.NewReader(text)); !errors.Is(err, vocab.ReasonConfigurationInvalid) {
			t.Errorf("a key, %s: %v", name, err)
		}
	}
	for name, text := range map[string]string{
		"nothing": "", "the secret": string(secret), "cut": public[:len(public)/2], "not a key": "rms-import-recipient-v1 AAAA",
	} {
		if _, _, err := archive.ReadRecipient(strings.NewReader(text)); !errors.Is(err, vocab.ReasonConfigurationInvalid) {
			t.Errorf("a recipient, %s: %v", name, err)
		}
	}
}
