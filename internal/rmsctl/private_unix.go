//go:build unix

package rmsctl

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// privateFolder holds the clear text of one open document, for its reader
// alone. It goes with the command: on success, on failure and on signals. What
// a run leaves behind that was killed outright, the next one removes.
type privateFolder struct {
	path string
	lock *os.File // held while the folder is in use
}

const (
	privatePrefix = "rms-open-"
	lockName      = ".lock"
)

// newPrivateFolder makes a folder with room for size bytes: in memory, where
// the system has such a place for the user, otherwise on disk.
func newPrivateFolder(size int64) (*privateFolder, error) {
	bases := privateBases(size)
	for _, b := range bases {
		sweep(b)
	}
	path, err := os.MkdirTemp(bases[0], privatePrefix) // 0700
	if err != nil {
		return nil, fmt.Errorf("making a private folder: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(path, lockName), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	}
	if err != nil {
		_ = os.RemoveAll(path)
		return nil, fmt.Errorf("making a private folder: %w", err)
	}
	return &privateFolder{path: path, lock: lock}, nil
}

// remove removes the folder with everything in it.
func (p *privateFolder) remove() error {
	err := os.RemoveAll(p.path)
	return errors.Join(err, p.lock.Close())
}

// privateBases lists where a private folder may be, the best place first.
func privateBases(size int64) []string {
	bases := []string{os.TempDir()}
	run := os.Getenv("XDG_RUNTIME_DIR")
	st, err := os.Stat(run) //nolint:gosec // the user's own environment
	if run == "" || err != nil || !st.IsDir() || st.Mode().Perm()&0o077 != 0 || !mine(st) {
		return bases
	}
	var fs syscall.Statfs_t
	if err := syscall.Statfs(run, &fs); err != nil || int64(fs.Bavail)*int64(fs.Bsize)/2 < size { //nolint:unconvert // types differ between systems
		return append(bases, run)
	}
	return append([]string{run}, bases...)
}

func mine(st os.FileInfo) bool {
	sys, ok := st.Sys().(*syscall.Stat_t)
	return ok && int(sys.Uid) == os.Getuid()
}

// sweep removes private folders of runs that are gone. A folder is one if it
// is the user's own and nobody holds its lock.
func sweep(base string) {
	found, _ := filepath.Glob(filepath.Join(base, privatePrefix+"*"))
	for _, path := range found {
		st, err := os.Lstat(path)
		if err != nil || !st.IsDir() || !mine(st) {
			continue
		}
		lock, err := os.OpenFile(filepath.Join(path, lockName), os.O_RDWR|syscall.O_NOFOLLOW, 0)
		if err != nil {
			continue // not ours, or just being made
		}
		if syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			_ = os.RemoveAll(path)
		}
		_ = lock.Close()
	}
}
