//go:build unix

package contexts

import (
	"os"
	"syscall"
)

// lock waits for the folder's lock. The lock ends with the process at the
// latest.
func (d Folder) lock() (unlock func(), err error) {
	if err := os.MkdirAll(d.path, 0o700); err != nil {
		return nil, invalid("%v", err).Because(err)
	}
	f, err := os.OpenFile(d.in("lock"), os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, invalid("%v", err).Because(err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		_ = f.Close()
		return nil, invalid("%v", err).Because(err)
	}
	return func() { _ = f.Close() }, nil
}
