package backup

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/json"
	"hash"
	"io"
	"time"

	"filippo.io/age"

	"github.com/openrms/rms/internal/vocab"
)

// Writer writes a backup: [Writer.Manifest], then [Writer.Checkpoint] any number
// of times, then [Writer.Store] and as many bytes as it was told, then
// [Writer.Close]. After an error nothing more can be written, and without Close
// what was written is no backup. It holds some 100 KiB, whatever is written.
type Writer struct {
	sealed io.WriteCloser
	tar    *tar.Writer
	time   time.Time
	sum    hash.Hash
	left   int64 // bytes of the store that are to come
	files  int
}

// NewWriter begins a backup for recipients.
func NewWriter(w io.Writer, to *Recipients) (*Writer, error) {
	sealed, err := age.Encrypt(w, to.list...)
	if err != nil {
		return nil, err
	}
	return &Writer{sealed: sealed, tar: tar.NewWriter(sealed), sum: sha256.New()}, nil
}

// Manifest writes what the backup says of itself; kind and version are set.
func (w *Writer) Manifest(m Manifest) error {
	m.Kind, m.Version = kind, Version
	if err := m.validate(); err != nil {
		return vocab.Errorf(vocab.ReasonInternal, "a backup cannot be described").Because(err)
	}
	w.time, w.left = m.Time, m.StoreBytes
	b, err := json.MarshalIndent(&m, "", " ")
	if err != nil {
		return err
	}
	return w.file(manifestName, b)
}

// Checkpoint writes a file from a tenant's directory of exported checkpoints.
// Other files than such are passed over.
func (w *Writer) Checkpoint(t vocab.TenantID, name string, b []byte) error {
	if !checkpointName.MatchString(name) || len(b) > maxCheckpoint {
		return nil
	}
	return w.file(checkpointsDir+t.String()+"/"+name, b)
}

func (w *Writer) file(name string, b []byte) error {
	if err := w.header(name, int64(len(b))); err != nil {
		return err
	}
	_, err := w.tar.Write(b)
	return err
}

func (w *Writer) header(name string, size int64) error {
	w.files++
	return w.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o600, ModTime: w.time.Truncate(time.Second)})
}

// Store begins the store, of the size in the manifest.
func (w *Writer) Store() error { return w.header(storeName, w.left) }

// Write writes the next bytes of the store.
func (w *Writer) Write(p []byte) (int, error) {
	n, err := w.tar.Write(p)
	w.sum.Write(p[:n])
	w.left -= int64(n)
	return n, err
}

// Close ends the backup. Only then it is one.
func (w *Writer) Close() error {
	if w.left != 0 {
		return vocab.Errorf(vocab.ReasonInternal, "%d bytes of the store are missing in the backup", w.left)
	}
	b, err := json.Marshal(End{Store: Hash(w.sum.Sum(nil)), Files: w.files})
	if err != nil {
		return err
	}
	if err := w.file(endName, b); err != nil {
		return err
	}
	if err := w.tar.Close(); err != nil {
		return err
	}
	return w.sealed.Close()
}
