package rmsd

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/openrms/rms/internal/vocab"
)

// file is written under another name, for its owner alone, so that what stands
// under its own name is whole.
type file struct {
	*os.File
	path string
}

func newFile(path string) (*file, error) {
	if _, err := os.Lstat(path); err == nil {
		return nil, exists(path)
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".part-*") // 0600
	if err != nil {
		return nil, vocab.Errorf(vocab.ReasonRequestInvalid, "%s cannot be written: %w", path, err)
	}
	return &file{f, path}, nil
}

func exists(path string) error {
	return vocab.Errorf(vocab.ReasonOutputExists, "%s exists and is not overwritten", path).WithNext("Choose another name with -o")
}

// keep makes the file durable under its own name.
func (f *file) keep() error {
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fullOr(err)
	}
	// A link never replaces what has come to stand there meanwhile. File systems
	// without links get a rename after a look.
	err := os.Link(f.Name(), f.path)
	switch {
	case errors.Is(err, fs.ErrExist):
		return exists(f.path)
	case err != nil:
		if _, err := os.Lstat(f.path); err == nil {
			return exists(f.path)
		}
		if err := os.Rename(f.Name(), f.path); err != nil {
			return fullOr(err)
		}
	}
	d, err := os.Open(filepath.Dir(f.path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// discard removes what has not come under its own name, and the other name of
// what has.
func (f *file) discard() {
	_ = f.Close()
	_ = os.Remove(f.Name())
}

// fullOr tells a full disk from other errors.
func fullOr(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG) {
		return vocab.Errorf(vocab.ReasonStoreFull, "there is no room for the file; nothing was kept of it").WithNext("Make room, or write to another disk").Because(err)
	}
	return err
}
