package rmsctl

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/openrms/rms/internal/vocab"
)

// output is a file being written under another name, so that what stands
// under its own name is complete.
type output struct {
	*os.File
	path    string
	replace bool // what stands under the name is replaced
	done    bool
}

// createOutput begins a new file for the caller alone. A file that exists is
// not overwritten.
func createOutput(path string) (*output, error) {
	if _, err := os.Lstat(path); err == nil {
		return nil, outputExists(path)
	}
	f, err := createTemp(path)
	if err != nil {
		return nil, fmt.Errorf("creating a file beside %s: %w", path, err)
	}
	return &output{File: f, path: path}, nil
}

// replaceOutput begins a file that takes the place of another when it is
// complete.
func replaceOutput(path string) (*output, error) {
	f, err := createTemp(path)
	if err != nil {
		return nil, fmt.Errorf("creating a file beside %s: %w", path, err)
	}
	return &output{File: f, path: path, replace: true}, nil
}

func outputExists(path string) error {
	return vocab.Errorf(vocab.ReasonOutputExists, "%s exists and is not overwritten", path).
		WithNext("Remove it, or choose another name with -o")
}

// createTemp makes a file beside path, for the caller alone.
func createTemp(path string) (*os.File, error) {
	return os.CreateTemp(filepath.Dir(path), ".part-*") // 0600
}

// keep makes the file durable under its own name, unless one has come to
// stand there meanwhile.
func (o *output) keep() error {
	if err := errors.Join(o.Sync(), o.Close()); err != nil {
		return fmt.Errorf("writing %s: %w", o.path, err)
	}
	if o.replace {
		if err := os.Rename(o.Name(), o.path); err != nil {
			return fmt.Errorf("writing %s: %w", o.path, err)
		}
		o.done = true
		return syncFolder(filepath.Dir(o.path))
	}
	// A link never replaces what is there. File systems without links get a
	// rename after a look, which is the best they can do.
	err := os.Link(o.Name(), o.path)
	switch {
	case err == nil:
		_ = os.Remove(o.Name())
	case errors.Is(err, fs.ErrExist):
		return outputExists(o.path)
	default:
		if _, err := os.Lstat(o.path); err == nil {
			return outputExists(o.path)
		}
		if err := os.Rename(o.Name(), o.path); err != nil {
			return fmt.Errorf("writing %s: %w", o.path, err)
		}
	}
	o.done = true
	return syncFolder(filepath.Dir(o.path))
}

// discard removes what was not kept.
func (o *output) discard() {
	if o.done {
		return
	}
	_ = o.Close()
	_ = os.Remove(o.Name())
}

func syncFolder(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("syncing the folder: %w", err)
	}
	defer d.Close()
	return d.Sync()
}
