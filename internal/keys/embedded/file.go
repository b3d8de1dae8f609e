package embedded

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/vocab"
)

const magic = "rms-keyring\x00\x00\x00\x00\x01"

// maxFile bounds what is read: about 5,000 versions.
const maxFile = 512 << 10

// ring is the plaintext of the file. Versions rise; a gap is a destroyed one. A
// ring without any was destroyed as a whole.
type ring struct {
	ID   [16]byte  `cbor:"1,keyasint"`
	Root []version `cbor:"2,keyasint"`
	Sign []version `cbor:"3,keyasint"`
}

// version is 32 bytes: an AES root key, or an Ed25519 seed.
type version struct {
	Number  uint32   `cbor:"1,keyasint"`
	Created uint64   `cbor:"2,keyasint"` // ms since 1970 UTC
	Key     [32]byte `cbor:"3,keyasint"`
}

func (v *version) created() time.Time { return time.UnixMilli(int64(v.Created)).UTC() }

// secret copies the key out.
func (v *version) secret() *vocab.Secret { return vocab.SecretFrom(v.Key[:]) }

func newVersion(number uint32, now time.Time) version {
	v := version{Number: number, Created: uint64(now.UnixMilli())}
	_, _ = rand.Read(v.Key[:]) // never fails (Go 1.24)
	return v
}

func (r *ring) zero() {
	for _, vs := range [][]version{r.Root, r.Sign} {
		for i := range vs {
			clear(vs[i].Key[:])
		}
	}
}

func (r *ring) clone() *ring {
	return &ring{ID: r.ID, Root: slices.Clone(r.Root), Sign: slices.Clone(r.Sign)}
}

func (r *ring) destroyed() bool { return len(r.Root) == 0 && len(r.Sign) == 0 }

func (r *ring) check() error {
	if r.ID == [16]byte{} || (len(r.Root) == 0) != (len(r.Sign) == 0) {
		return errors.New("it lacks its ID or a key")
	}
	for _, vs := range [][]version{r.Root, r.Sign} {
		last := uint32(0)
		for _, v := range vs {
			if v.Number <= last || v.Created == 0 || v.Created > 253402300799999 || v.Key == [32]byte{} {
				return errors.New("its versions are not in order")
			}
			last = v.Number
		}
	}
	return nil
}

// find returns a version; 0 is the newest.
func find(vs []version, number uint32) *version {
	if number == 0 {
		return &vs[len(vs)-1]
	}
	i := slices.IndexFunc(vs, func(v version) bool { return v.Number == number })
	if i < 0 {
		return nil
	}
	return &vs[i]
}

// fileSecret derives what the file is sealed under.
func fileSecret(fileKey *vocab.Secret) *vocab.Secret {
	return canon.KDF(fileKey, nil, canon.D("rms/v1/keyring", nil))
}

// encode seals r as file content.
func encode(r *ring, fileKey *vocab.Secret) ([]byte, error) {
	plain, err := canon.Marshal(r)
	if err != nil {
		return nil, err
	}
	defer clear(plain)
	k := fileSecret(fileKey)
	defer k.Zero()
	return append([]byte(magic), canon.Seal(k, []byte(magic), plain)...), nil
}

// decode opens file content. Its errors do not tell a wrong key from changed
// bytes.
func decode(b []byte, fileKey *vocab.Secret) (*ring, error) {
	box, ok := bytes.CutPrefix(b, []byte(magic))
	if !ok {
		return nil, errors.New("it is not a key ring of this version")
	}
	k := fileSecret(fileKey)
	defer k.Zero()
	plain, err := canon.Open(k, []byte(magic), box)
	if err != nil {
		return nil, errors.New("the key file is not its own, or it was changed")
	}
	defer clear(plain)
	return parse(plain)
}

// parse reads the plaintext of a key ring.
func parse(plain []byte) (*ring, error) {
	r := new(ring)
	if err := canon.Unmarshal(plain, r); err != nil {
		r.zero()
		return nil, err
	}
	if err := r.check(); err != nil {
		r.zero()
		return nil, err
	}
	return r, nil
}

// readPrivate reads a small file that nobody else may read.
func readPrivate(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	switch {
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not a regular file", path)
	case info.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("%s can be read by others (mode %04o): chmod 600 it", path, info.Mode().Perm())
	case info.Size() > limit:
		return nil, fmt.Errorf("%s is larger than %d bytes", path, limit)
	}
	b := make([]byte, info.Size())
	n, err := f.ReadAt(b, 0)
	if n != len(b) {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	return b, nil
}

func readFileKey(path string) (*vocab.Secret, error) {
	b, err := readPrivate(path, 1024)
	if err != nil {
		return nil, err
	}
	defer clear(b)
	s := vocab.SecretFrom(b)
	if s == nil {
		return nil, fmt.Errorf("%s holds %d bytes; a key file holds exactly 32 random ones", path, len(b))
	}
	return s, nil
}

// writePrivate replaces path as a whole or not at all, and returns when that
// is durable. With fresh it fails if path exists.
func writePrivate(path string, b []byte, fresh bool) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, filepath.Base(path)+".tmp*") // 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
		}
	}()
	if _, err = f.Write(b); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	if fresh { // link fails if the name is taken; rename would not
		if err = os.Link(f.Name(), path); err != nil {
			return err
		}
		_ = os.Remove(f.Name())
	} else if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// makeFileKey creates the key file if it is not there.
func makeFileKey(path string) error {
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	k := vocab.NewSecret()
	defer k.Zero()
	return writePrivate(path, k.Reveal(), true)
}

func (v *version) private() ed25519.PrivateKey { return ed25519.NewKeyFromSeed(v.Key[:]) }
