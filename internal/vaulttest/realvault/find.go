package realvault

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"
)

// Version is the Vault that is built where none is given.
const Version = "1.21.0"

// ErrNotBuilt says that there is no Vault yet; building one takes several
// minutes.
var ErrNotBuilt = errors.New("no Vault: set VAULT_BIN, put vault on PATH, or let it be built once (several minutes)")

// Find returns the Vault to use: $VAULT_BIN, else vault on PATH, else the one
// built earlier, else [ErrNotBuilt].
func Find() (string, error) {
	if path := os.Getenv("VAULT_BIN"); path != "" {
		abs, err := exec.LookPath(path)
		if err != nil {
			return "", fmt.Errorf("VAULT_BIN: %w", err)
		}
		return filepath.Abs(abs)
	}
	if path, err := exec.LookPath("vault"); err == nil {
		return filepath.Abs(path)
	}
	path, err := cached()
	if err != nil {
		return "", err
	}
	if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
		return "", ErrNotBuilt
	}
	return path, nil
}

func cached() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "openrms", "vault-"+Version, "vault"), nil
}

// FindOrBuild is [Find], and where there is none, builds unmodified Vault from
// its Go module, pinned in tools/vault, once per user. Others that want it at
// the same time wait. It says so on progress.
func FindOrBuild(ctx context.Context, progress io.Writer) (string, error) {
	path, err := Find()
	if !errors.Is(err, ErrNotBuilt) {
		return path, err
	}
	target, err := cached()
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return "", err
	}
	lock, err := os.OpenFile(target+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", err
	}
	if path, err := Find(); err == nil { // built by whoever had the lock
		return path, nil
	}
	tools, err := toolsDir()
	if err != nil {
		return "", err
	}
	fmt.Fprintf(progress, "building Vault %s once, up to 15 minutes; it is kept in %s (or set VAULT_BIN)\n", Version, filepath.Dir(target))
	cmd := exec.CommandContext(ctx, "go", "build", "-ldflags", "-s -w", "-o", target+".new", "github.com/hashicorp/vault")
	cmd.Dir = tools
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=readonly")
	cmd.Stdout, cmd.Stderr = progress, progress
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("building Vault: %w", err)
	}
	return target, os.Rename(target+".new", target)
}

var ourModule = regexp.MustCompile(`(?m)^module github\.com/openrms/rms$`)

// toolsDir finds tools/vault of the checkout the process runs in.
func toolsDir() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if b, err := os.ReadFile(filepath.Join(dir, "go.mod")); err == nil && ourModule.Match(b) {
			return filepath.Join(dir, "tools", "vault"), nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("building Vault works only inside a checkout of this repository; set VAULT_BIN")
		}
		dir = up
	}
}
