package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/vocab"
)

// StoreDir returns the data directory that a path means: the path itself, or
// that of rmsd dev below it, and whether it is the latter.
func StoreDir(path string) (dir string, development bool) {
	if _, err := os.Stat(filepath.Join(path, "data", storeFile)); err == nil {
		return filepath.Join(path, "data"), true
	}
	return path, false
}

// Fsck verifies the store in a data directory, its indexes and every tenant's
// log, and prints what is wrong and how much was read. Damage is
// STORE_DAMAGED. No daemon may run on the directory.
func Fsck(ctx context.Context, dir string, development bool, out io.Writer) error {
	if _, err := os.Stat(filepath.Join(dir, storeFile)); err != nil {
		return vocab.Errorf(vocab.ReasonConfigurationInvalid, "there is no store: %w", err)
	}
	// Whose store it is does not matter for looking at it.
	s, err := openStore(dir, development)
	if err != nil && vocab.ReasonOf(err) == vocab.ReasonConfigurationInvalid {
		if other, otherErr := openStore(dir, !development); otherErr == nil {
			s, err = other, nil
		}
	}
	if err != nil {
		return err
	}
	r, err := checkStore(ctx, s, audit.New(s), filepath.Join(dir, checkpointDir))
	if err = errors.Join(err, s.Close()); err != nil {
		return err
	}
	for _, p := range r.problems {
		fmt.Fprintln(out, p)
	}
	fmt.Fprintf(out, "%d records and %d events read, %d problems\n", r.records, r.events, len(r.problems))
	if len(r.problems) > 0 {
		return vocab.Errorf(vocab.ReasonStoreDamaged, "the store is damaged").WithNext("Keep a copy of it and restore a backup")
	}
	return nil
}
