package backup

import (
	"bytes"
	"testing"

	"filippo.io/age"

	"github.com/openrms/rms/internal/vocab"
)

// Whatever an archive holds, it is read whole or refused, and nothing comes out
// that was not in it.
func FuzzReadArchive(f *testing.F) {
	for _, c := range archives(f) {
		f.Add(archive(f, c.entries...))
	}
	good := archive(f, archives(f)[0].entries...)
	f.Add(good[:len(good)-1200])
	f.Add(append(bytes.Clone(good), 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		var got taken
		m, err := readArchive(bytes.NewReader(b), got.sink())
		if (m == nil) != (err != nil) {
			t.Fatalf("%v and %v", m, err)
		}
		if err != nil {
			if r := vocab.ReasonOf(err); r != vocab.ReasonStoreDamaged && r != vocab.ReasonStoreNewer {
				t.Fatalf("%v", err)
			}
			return
		}
		if int64(got.store.Len()) != m.StoreBytes || got.store.Len() > len(b) {
			t.Fatalf("%d bytes came out of %d", got.store.Len(), len(b))
		}
	})
}

// Whatever a file holds, it is no backup unless its keys say so.
func FuzzInspect(f *testing.F) {
	good, ids := vector(f)
	f.Add(good)
	for _, end := range []int{10, len(good) / 2, len(good) - 40} {
		f.Add(good[:end])
	}
	others, _ := keys(f)
	var foreign, classic bytes.Buffer
	write(f, &foreign, others, someManifest(3), []byte("abc"))
	f.Add(foreign.Bytes())
	key, err := age.GenerateX25519Identity()
	if err != nil {
		f.Fatal(err)
	}
	w, err := age.Encrypt(&classic, key.Recipient())
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		f.Fatal(err)
	}
	f.Add(classic.Bytes())
	changed := bytes.Clone(good)
	changed[len(changed)-1] ^= 1
	f.Add(changed)
	f.Add([]byte("age-encryption.org/v1\n-> X25519 AAAA\nAAAA\n--- AAAA\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := Inspect(bytes.NewReader(b))
		if (s == nil) != (err != nil) || s != nil && s.Bytes != int64(len(b)) {
			t.Fatalf("%+v and %v", s, err)
		}
		var got taken
		if m, err := Read(bytes.NewReader(b), ids, got.sink()); err == nil && !bytes.Equal(b, good) {
			t.Fatalf("opened as %+v", m)
		}
	})
}
