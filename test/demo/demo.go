package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/openrms/rms/internal/vaulttest/realvault"
)

// demo is one run.
type demo struct {
	options
	out     io.Writer
	started time.Time
	report  string // the file that is protected
	sum     string // its SHA-256, in hexadecimal
	vault   *realvault.Server
	tenant  *realvault.Tenant
	daemon  *exec.Cmd
	exited  chan error
	events  []string // quoted by refusals
}

// prepare builds the programs and makes the file to protect.
func (d *demo) prepare(ctx context.Context) (err error) {
	d.started = time.Now()
	if d.dir == "" {
		if d.dir, err = os.MkdirTemp("", "rms-demo-"); err != nil {
			return err
		}
	}
	if d.bin == "" {
		d.bin = "bin"
		if err := d.build(ctx); err != nil {
			return err
		}
	}
	if d.bin, err = filepath.Abs(d.bin); err != nil {
		return err
	}
	fmt.Fprintf(d.out, "data in %s", d.dir)
	if d.keep {
		fmt.Fprintln(d.out, ", kept")
	} else {
		fmt.Fprintln(d.out, ", removed at the end (KEEP=1 keeps it)")
	}
	d.report = d.options.file
	if d.report == "" {
		d.report = filepath.Join(d.dir, "report.pdf")
		if err := os.WriteFile(d.report, reportPDF(), 0o600); err != nil {
			return err
		}
	}
	d.sum, err = fileSum(d.report)
	return err
}

// build compiles rmsd and rmsctl, and is never silent for long: the first time
// takes a minute or two.
func (d *demo) build(ctx context.Context) error {
	start := time.Now()
	fmt.Fprint(d.out, "building …")
	cmd := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-o", d.bin+string(filepath.Separator), "./cmd/rmsd", "./cmd/rmsctl")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := d.patiently(cmd.Run); err != nil {
		return fmt.Errorf("building: %w\n%s", err, stderr.String())
	}
	fmt.Fprintf(d.out, " ok (%.1f s)\n", time.Since(start).Seconds())
	return nil
}

// patiently runs fn and prints a dot every few seconds.
func (d *demo) patiently(fn func() error) error {
	done := make(chan error, 1)
	go func() { done <- fn() }()
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			return err
		case <-tick.C:
			fmt.Fprint(d.out, ".")
		}
	}
}

// reportPDF is a file worth protecting: 1.3 MB, made the same every time.
func reportPDF() []byte {
	var b bytes.Buffer
	b.WriteString("%PDF-1.4\n% quarterly figures, made for the demonstration\n")
	r := rand.New(rand.NewPCG(2026, 11))
	for b.Len() < 1_300_000 {
		fmt.Fprintf(&b, "%d 0 obj << /Revenue %d /Cost %d >> endobj\n", b.Len(), r.Uint64(), r.Uint64())
	}
	b.WriteString("%%EOF\n")
	return b.Bytes()
}

// startVault starts a real Vault with a mount, keys, policy and role for the
// tenant, and writes the custodians part of the tenant's file.
func (d *demo) startVault(ctx context.Context) error {
	if !d.options.vault {
		return nil
	}
	fmt.Fprint(d.out, "Vault … ")
	if _, err := realvault.Find(); err != nil {
		fmt.Fprint(d.out, "building it once, up to 15 minutes (or set VAULT_BIN) ")
	}
	var binary string
	if err := d.patiently(func() (err error) {
		binary, err = realvault.FindOrBuild(ctx, io.Discard)
		return err
	}); err != nil {
		return err
	}
	dir := filepath.Join(d.dir, "vault")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	var err error
	if d.vault, err = realvault.Start(ctx, realvault.Options{Binary: binary, Dir: dir}); err != nil {
		return err
	}
	if d.tenant, err = d.vault.AddTenant(ctx, "contoso"); err != nil {
		return err
	}
	cfg := fmt.Sprintf("contoso-vault:\n  vault: {address: %q, ca: %q, mount: %q, cluster_id: %q, timeout: 3s}\n  approle: {role: %q, role_id_file: %q, secret_id_file: %q, wrapped: true}\n",
		d.vault.Address, d.vault.CAFile, d.tenant.Mount, d.vault.ClusterID, d.tenant.Role, d.tenant.RoleIDFile, d.tenant.SecretIDFile)
	fmt.Fprintf(d.out, "%s, unsealed, mount %s, policy as shipped\n", d.vault.Address, d.tenant.Mount)
	return os.WriteFile(d.custodiansFile(), []byte(cfg), 0o600)
}

func (d *demo) custodiansFile() string { return filepath.Join(d.dir, "custodians.yaml") }

func (d *demo) rmsdDir() string { return filepath.Join(d.dir, "rmsd") }

// startDaemon starts rmsd dev and waits for its banner.
func (d *demo) startDaemon(ctx context.Context) error {
	args := []string{"dev", "--data", d.rmsdDir()}
	if d.vault != nil {
		args = append(args, "--custodians", d.custodiansFile())
	}
	fmt.Fprintf(d.out, "$ rmsd %s &\n", strings.Join(args, " "))
	log, err := os.OpenFile(filepath.Join(d.dir, "rmsd.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	d.daemon = exec.CommandContext(ctx, filepath.Join(d.bin, "rmsd"), args...)
	d.daemon.Stderr = log
	d.daemon.Cancel = func() error { return d.daemon.Process.Signal(syscall.SIGTERM) }
	stdout, err := d.daemon.StdoutPipe()
	if err != nil {
		return err
	}
	if err := d.daemon.Start(); err != nil {
		return err
	}
	banner := bufio.NewScanner(stdout)
	if !banner.Scan() {
		err := d.daemon.Wait()
		d.daemon = nil
		text, _ := os.ReadFile(log.Name())
		return fmt.Errorf("rmsd did not start: %w\n%s", err, text)
	}
	fmt.Fprintf(d.out, "  %s\n", banner.Text())
	d.exited = make(chan error, 1)
	go func() {
		_, _ = io.Copy(io.Discard, stdout)
		d.exited <- d.daemon.Wait()
	}()
	return nil
}

// stopDaemon ends rmsd and waits for it.
func (d *demo) stopDaemon() error {
	if d.daemon == nil {
		return nil
	}
	_ = d.daemon.Process.Signal(syscall.SIGTERM)
	err := <-d.exited
	d.daemon = nil
	if err != nil {
		return fmt.Errorf("rmsd ended badly: %w", err)
	}
	return nil
}

func (d *demo) close() error {
	err := d.stopDaemon()
	if d.vault != nil {
		d.vault.Stop()
	}
	if !d.keep {
		err = errors.Join(err, os.RemoveAll(d.dir))
	}
	return err
}

func fileSum(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// clearBlocks counts the 32-byte blocks of a file that are in another as they
// are, and the blocks looked at: up to 4,096 of them, spread over the file.
func clearBlocks(plain, protected string) (found, looked int, err error) {
	p, err := os.ReadFile(plain)
	if err != nil {
		return 0, 0, err
	}
	c, err := os.ReadFile(protected)
	if err != nil {
		return 0, 0, err
	}
	const block = 32
	wanted := map[string]bool{}
	step := max(1, len(p)/block/4096)
	for i := 0; i+block <= len(p); i += block * step {
		wanted[string(p[i:i+block])] = true
		looked++
	}
	for i := 0; i+block <= len(c); i++ {
		if wanted[string(c[i:i+block])] {
			found++
		}
	}
	return found, looked, nil
}
