//go:build unix

package bolt

import (
	"errors"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/openrms/rms/internal/vocab"
)

// lock is a locked file with the process ID of its holder.
type lock struct{ f *os.File }

// acquire takes the lock or says who has it.
func acquire(path string) (*lock, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, unreadable(err)
	}
	switch err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); {
	case errors.Is(err, syscall.EWOULDBLOCK):
		defer f.Close()
		return nil, held(f)
	case err != nil:
		f.Close()
		return nil, unreadable(err)
	}
	// What an earlier holder wrote stays until here; nobody reads it while
	// the lock is free.
	pid := strconv.Itoa(os.Getpid()) + "\n"
	if err := errors.Join(f.Truncate(0), writeAll(f, pid)); err != nil {
		f.Close()
		return nil, unwritable(err, "the store was not opened")
	}
	return &lock{f}, nil
}

func writeAll(f *os.File, s string) error {
	_, err := f.WriteAt([]byte(s), 0)
	return err
}

func held(f *os.File) error {
	line, _ := io.ReadAll(io.LimitReader(f, 32))
	pid, err := strconv.Atoi(strings.TrimSpace(string(line)))
	if err != nil {
		// Between the lock and the write of its holder.
		return vocab.Errorf(vocab.ReasonConfigurationInvalid, "another process is opening the store").
			WithNext("Stop it, or use another data directory")
	}
	return vocab.Errorf(vocab.ReasonConfigurationInvalid, "process %d has the store open", pid).
		WithNext("Stop it, or use another data directory")
}

// release gives the lock up. The file stays: removing it would let two
// processes lock two files of one name.
func (l *lock) release() {
	_ = l.f.Truncate(0)
	_ = l.f.Close()
}

// freeSpace returns the bytes that this user may still write in dir.
func freeSpace(dir string) (uint64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, err
	}
	return uint64(st.Bavail) * uint64(st.Bsize), nil //nolint:unconvert // it is signed on other systems
}
