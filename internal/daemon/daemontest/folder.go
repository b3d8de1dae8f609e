package daemontest

import (
	"os"
	"path/filepath"
	"testing"
)

// Folder is where an operator keeps the files of a daemon. It begins with a
// server's certificate and the authority that signed it, as server.pem,
// server.key and ca.pem; what the daemon is to do is for its user to write.
type Folder struct {
	Dir string
	// Certificate and Key are the files of the server's certificate.
	Certificate, Key string
	// Authority signed it, and can sign those of services.
	Authority *Authority

	tb testing.TB
}

// NewFolder makes a folder for the life of a test.
func NewFolder(tb testing.TB) *Folder {
	tb.Helper()
	dir, err := os.MkdirTemp("", "rmsd-*") // short: a socket's path is limited
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = os.RemoveAll(dir) })
	f := &Folder{Dir: dir, Certificate: filepath.Join(dir, "server.pem"), Key: filepath.Join(dir, "server.key"), tb: tb}
	if f.Authority, err = NewAuthority("test authority"); err != nil {
		tb.Fatal(err)
	}
	f.Write("ca.pem", string(f.Authority.PEM))
	f.Certify("server")
	return f
}

// Write writes a file of the operator's.
func (f *Folder) Write(name, text string) {
	f.tb.Helper()
	path := filepath.Join(f.Dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		f.tb.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		f.tb.Fatal(err)
	}
}

// Certify gives the server a new certificate with this common name.
func (f *Folder) Certify(name string) {
	f.tb.Helper()
	pair, err := f.Authority.Server(name)
	if err == nil {
		err = pair.Write(f.Certificate, f.Key)
	}
	if err != nil {
		f.tb.Fatal(err)
	}
}
