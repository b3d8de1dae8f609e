package backup

import (
	"archive/tar"
	"crypto/sha256"
	"errors"
	"io"
	"strings"

	"filippo.io/age"

	"github.com/openrms/rms/internal/vocab"
)

// Sink takes what is in a backup, in the order of the file. Nothing that it got
// may be used before [Read] has returned without an error.
type Sink struct {
	Manifest   func(*Manifest) error
	Checkpoint func(t vocab.TenantID, name string, b []byte) error
	// Store returns where the store goes, of the size in the manifest.
	Store func(size int64) (io.Writer, error)
}

// Read reads a backup to its end. It returns the manifest only if all of it was
// read and authentic. Errors of the sink come back as they are; those of r, and
// of what is in it, are
//
//   - CONFIGURATION_INVALID: none of the identities opens it.
//   - STORE_NEWER: a newer version wrote it.
//   - STORE_DAMAGED: it was changed or cut, or is no backup.
func Read(r io.Reader, ids *Identities, sink Sink) (*Manifest, error) {
	plain, err := age.Decrypt(r, ids.list...)
	if err != nil {
		if _, ok := errors.AsType[*age.NoIdentityMatchError](err); ok {
			return nil, vocab.Errorf(vocab.ReasonConfigurationInvalid, "none of these identities opens this backup").
				WithNext("rmsd backup list shows the fingerprints of the recipients it was made for").Because(err)
		}
		return nil, damaged("it is no age file, or its head was changed").Because(err)
	}
	return readArchive(plain, sink)
}

// sinkError is an error of the sink, not of the backup.
type sinkError struct{ error }

// readArchive reads what is encrypted.
func readArchive(plain io.Reader, sink Sink) (*Manifest, error) {
	m, err := (&reader{tar: tar.NewReader(plain), sink: sink}).read()
	if err == nil {
		// What comes after the archive's end is what tar pads with. It is read
		// for its end to be authenticated.
		err = onlyZeros(plain)
	}
	if s, ok := errors.AsType[sinkError](err); ok {
		return nil, s.error
	}
	if err != nil && vocab.ReasonOf(err) == vocab.ReasonInternal {
		return nil, damaged("it was changed or cut").Because(err)
	}
	if err != nil {
		return nil, err
	}
	return m, nil
}

type reader struct {
	tar      *tar.Reader
	sink     Sink
	manifest *Manifest
	files    int
}

func (r *reader) read() (*Manifest, error) {
	b, err := r.named(manifestName, maxManifest)
	if err != nil {
		return nil, err
	}
	if r.manifest, err = decodeManifest(b); err != nil {
		return nil, err
	}
	if err := r.sink.Manifest(r.manifest); err != nil {
		return nil, sinkError{err}
	}
	h, err := r.checkpoints()
	if err != nil {
		return nil, err
	}
	sum, err := r.store(h)
	if err != nil {
		return nil, err
	}
	files := r.files
	if b, err = r.named(endName, maxEnd); err != nil {
		return nil, err
	}
	var end End
	if err := strictly(b, &end); err != nil {
		return nil, damaged("its end cannot be read").Because(err)
	}
	if end.Store != sum || end.Files != files {
		return nil, damaged("its end says something else than what came before")
	}
	if _, err := r.tar.Next(); !errors.Is(err, io.EOF) {
		return nil, damaged("something follows its end").Because(err)
	}
	return r.manifest, nil
}

// next returns the next file's header, which must be that of a regular file.
func (r *reader) next() (*tar.Header, error) {
	h, err := r.tar.Next()
	switch {
	case errors.Is(err, io.EOF):
		return nil, damaged("it ends too early")
	case err != nil:
		return nil, err
	case h.Typeflag != tar.TypeReg:
		return nil, damaged("something in it is not a file")
	}
	r.files++
	return h, nil
}

func (r *reader) named(name string, limit int64) ([]byte, error) {
	h, err := r.next()
	if err != nil {
		return nil, err
	}
	if h.Name != name || h.Size > limit {
		return nil, damaged("it has not the files of a backup in their order")
	}
	return io.ReadAll(r.tar)
}

// checkpoints passes on the checkpoints, and returns the header that follows.
func (r *reader) checkpoints() (*tar.Header, error) {
	known := map[vocab.TenantID]bool{}
	for _, t := range r.manifest.Tenants {
		known[t.ID] = true
	}
	seen := map[string]bool{}
	for {
		h, err := r.next()
		if err != nil {
			return nil, err
		}
		rest, ok := strings.CutPrefix(h.Name, checkpointsDir)
		if !ok {
			return h, nil
		}
		tenant, name, _ := strings.Cut(rest, "/")
		t, err := vocab.ParseTenantID(tenant)
		if err != nil || !known[t] || !checkpointName.MatchString(name) || h.Name != checkpointsDir+t.String()+"/"+name || seen[h.Name] {
			return nil, damaged("it holds a checkpoint that cannot be")
		}
		if h.Size > maxCheckpoint || len(seen) >= maxFiles {
			return nil, damaged("its checkpoints are too large")
		}
		seen[h.Name] = true
		b, err := io.ReadAll(r.tar)
		if err != nil {
			return nil, err
		}
		if err := r.sink.Checkpoint(t, name, b); err != nil {
			return nil, sinkError{err}
		}
	}
}

// store passes on the store, whose header was read, and returns its hash.
func (r *reader) store(h *tar.Header) (sum Hash, err error) {
	if h.Name != storeName || h.Size != r.manifest.StoreBytes {
		return sum, damaged("it has not the files of a backup in their order")
	}
	w, err := r.sink.Store(h.Size)
	if err != nil {
		return sum, sinkError{err}
	}
	hash := sha256.New()
	n, err := io.Copy(failing{w}, io.TeeReader(r.tar, hash))
	if err == nil && n != h.Size {
		err = io.ErrUnexpectedEOF
	}
	return Hash(hash.Sum(nil)), err
}

// failing tells the errors of a writer from those of what is read.
type failing struct{ w io.Writer }

func (f failing) Write(p []byte) (int, error) {
	n, err := f.w.Write(p)
	if err != nil {
		err = sinkError{err}
	}
	return n, err
}

// onlyZeros reads to the end.
func onlyZeros(r io.Reader) error {
	b := make([]byte, 4096)
	for {
		n, err := r.Read(b)
		for _, c := range b[:n] {
			if c != 0 {
				return damaged("something follows its end")
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// Sealed is what of a backup shows without an identity.
type Sealed struct {
	// Recipients is for how many it was encrypted.
	Recipients int
	SHA256     [32]byte
	Bytes      int64
}

// Pieces of age's encrypted body, in bytes: a nonce, and pieces with a tag each.
const (
	ageNonce = 16
	agePiece = 64<<10 + 16
	ageTag   = 16
)

// Inspect reads a backup without opening it: whether it has the shape of one,
// and its hash, which alone says that it is whole. The error is STORE_DAMAGED,
// or that of r.
func Inspect(r io.Reader) (*Sealed, error) {
	hash := sha256.New()
	count := &counter{}
	all := io.TeeReader(r, io.MultiWriter(hash, count))
	head, err := age.ExtractHeader(all)
	if err != nil {
		return nil, damaged("it is no age file, or its head was changed").Because(err)
	}
	if _, err := io.Copy(io.Discard, all); err != nil {
		return nil, err
	}
	body := count.n - int64(len(head)) - ageNonce
	if last := body % agePiece; body < ageTag || last > 0 && last <= ageTag {
		return nil, damaged("it was cut")
	}
	out := &Sealed{Recipients: strings.Count(string(head), "\n-> mlkem768x25519 "), SHA256: [32]byte(hash.Sum(nil)), Bytes: count.n}
	if out.Recipients == 0 {
		return nil, damaged("it is encrypted in another way than backups are")
	}
	return out, nil
}

type counter struct{ n int64 }

func (c *counter) Write(p []byte) (int, error) { c.n += int64(len(p)); return len(p), nil }
