// Package realvault runs an unmodified HashiCorp Vault on loopback for tests
// and demonstrations: storage in a directory, TLS by a CA of its own, an audit
// file, unsealed by the caller's key. It is not a way to run Vault for real:
// one unseal key, kept in memory.
package realvault

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// Server is a running Vault. Its methods act as the Vault's operator, with the
// root token; they are for the test's own acts, never for the service's.
type Server struct {
	Address   string // https://127.0.0.1:PORT
	CAFile    string // PEM
	AuditFile string
	LogFile   string
	ClusterID string

	dir, binary string
	port        int
	unsealKey   string
	rootToken   string
	http        *http.Client
	cmd         *exec.Cmd
	exited      chan struct{}
}

// Options of a server.
type Options struct {
	Binary string // from [Find]
	Dir    string // empty directory for everything it writes
	Raft   bool   // storage by raft instead of files
}

// Start starts a Vault, initialises and unseals it and turns its audit file on.
func Start(ctx context.Context, o Options) (*Server, error) {
	s := &Server{
		dir: o.Dir, binary: o.Binary,
		CAFile: filepath.Join(o.Dir, "ca.pem"), AuditFile: filepath.Join(o.Dir, "audit.log"), LogFile: filepath.Join(o.Dir, "vault.log"),
	}
	ports, err := freePorts(2)
	if err != nil {
		return nil, err
	}
	s.port = ports[0]
	s.Address = fmt.Sprintf("https://127.0.0.1:%d", s.port)
	pool, err := makeCertificates(o.Dir)
	if err != nil {
		return nil, err
	}
	s.http = &http.Client{
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}},
		Timeout:   30 * time.Second,
	}
	if err := os.WriteFile(s.config(), []byte(configText(o, s.port, ports[1])), 0o600); err != nil {
		return nil, err
	}
	if err := os.Mkdir(filepath.Join(o.Dir, "data"), 0o700); err != nil {
		return nil, err
	}
	if err := s.Run(ctx); err != nil {
		return nil, err
	}
	if err := s.initialise(ctx); err != nil {
		s.Stop()
		return nil, err
	}
	return s, nil
}

func (s *Server) config() string { return filepath.Join(s.dir, "vault.hcl") }

func configText(o Options, port, clusterPort int) string {
	kind, node := "file", ""
	if o.Raft {
		kind, node = "raft", "\n  node_id = \"one\""
	}
	return fmt.Sprintf(`storage %q {
  path = %q%s
}
listener "tcp" {
  address         = "127.0.0.1:%d"
  cluster_address = "127.0.0.1:%d"
  tls_cert_file   = %q
  tls_key_file    = %q
  tls_min_version = "tls13"
}
api_addr      = "https://127.0.0.1:%d"
cluster_addr  = "https://127.0.0.1:%d"
disable_mlock = true
ui            = false
`, kind, filepath.Join(o.Dir, "data"), node, port, clusterPort, filepath.Join(o.Dir, "server.pem"), filepath.Join(o.Dir, "server.key"), port, clusterPort)
}

// Run starts the process, again after [Server.Stop] or [Server.Kill], and waits
// until it answers. A Vault that was stopped comes back sealed.
func (s *Server) Run(ctx context.Context) error {
	log, err := os.OpenFile(s.LogFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(s.binary, "server", "-config="+s.config())
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.dir}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started, exited := make(chan error, 1), make(chan struct{})
	go func() {
		// Pdeathsig follows the thread that started the process, so that
		// thread stays for as long as the process does.
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
			close(exited)
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	s.cmd, s.exited = cmd, exited
	for {
		if _, err := s.health(ctx); err == nil {
			return nil
		}
		select {
		case <-exited:
			b, _ := os.ReadFile(s.LogFile)
			return fmt.Errorf("vault ended at once: %s", tail(b))
		case <-ctx.Done():
			s.Kill()
			return fmt.Errorf("waiting for vault: %w", context.Cause(ctx))
		case <-time.After(50 * time.Millisecond): // a process on its way up has nothing to wait on
		}
	}
}

func tail(b []byte) string { return string(b[max(0, len(b)-2000):]) }

type healthAnswer struct {
	Initialized bool   `json:"initialized"`
	Sealed      bool   `json:"sealed"`
	Standby     bool   `json:"standby"`
	ClusterID   string `json:"cluster_id"`
}

func (s *Server) health(ctx context.Context) (*healthAnswer, error) {
	h := new(healthAnswer)
	return h, s.RequestAs(ctx, "", http.MethodGet, "sys/health?sealedcode=200&uninitcode=200&standbyok=true", nil, h)
}

func (s *Server) initialise(ctx context.Context) error {
	var keys struct {
		Keys  []string `json:"keys"`
		Token string   `json:"root_token"`
	}
	if err := s.RequestAs(ctx, "", http.MethodPut, "sys/init", map[string]int{"secret_shares": 1, "secret_threshold": 1}, &keys); err != nil {
		return err
	}
	s.unsealKey, s.rootToken = keys.Keys[0], keys.Token
	if err := s.Unseal(ctx); err != nil {
		return err
	}
	h, err := s.health(ctx)
	if err != nil {
		return err
	}
	s.ClusterID = h.ClusterID
	if err := s.Request(ctx, http.MethodPut, "sys/audit/file", map[string]any{"type": "file", "options": map[string]string{"file_path": s.AuditFile}}, nil); err != nil {
		return err
	}
	return s.Request(ctx, http.MethodPost, "sys/auth/approle", map[string]string{"type": "approle"}, nil)
}

// Seal seals the Vault as `vault operator seal` does.
func (s *Server) Seal(ctx context.Context) error {
	return s.Request(ctx, http.MethodPut, "sys/seal", nil, nil)
}

// Unseal unseals it and waits until it serves.
func (s *Server) Unseal(ctx context.Context) error {
	if err := s.RequestAs(ctx, "", http.MethodPut, "sys/unseal", map[string]string{"key": s.unsealKey}, nil); err != nil {
		return err
	}
	for {
		h, err := s.health(ctx)
		if err == nil && !h.Sealed && !h.Standby && h.ClusterID != "" {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for vault to be unsealed: %w", context.Cause(ctx))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Stop ends the process in order and waits for it.
func (s *Server) Stop() { s.end(syscall.SIGTERM) }

// Kill ends the process at once and waits for it.
func (s *Server) Kill() { s.end(syscall.SIGKILL) }

// Pause stops the process from running: it keeps its connections and answers
// nobody, until [Server.Resume].
func (s *Server) Pause() error {
	if err := s.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	// The signal is delivered to one thread after the other; until the last
	// has stopped, an answer may still come.
	tasks := fmt.Sprintf("/proc/%d/task/*/stat", s.cmd.Process.Pid)
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		stopped := true
		names, err := filepath.Glob(tasks)
		if err != nil || len(names) == 0 {
			return err // no such file system: nothing to look at
		}
		for _, name := range names {
			stat, err := os.ReadFile(name)
			if err != nil {
				continue // the thread has ended
			}
			// pid (name) state …: the name may hold anything but is the last
			// with a parenthesis.
			if i := bytes.LastIndexByte(stat, ')'); i < 0 || i+2 >= len(stat) || stat[i+2] != 'T' {
				stopped = false
			}
		}
		if stopped {
			return nil
		}
	}
	return errors.New("vault did not stop")
}

// Resume ends a pause.
func (s *Server) Resume() error { return s.cmd.Process.Signal(syscall.SIGCONT) }

func (s *Server) end(sig os.Signal) {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Signal(syscall.SIGCONT)
	_ = s.cmd.Process.Signal(sig)
	select {
	case <-s.exited:
	case <-time.After(10 * time.Second):
		_ = s.cmd.Process.Kill()
		<-s.exited
	}
	s.http.CloseIdleConnections()
}

// Environment is what the vault command line needs to act as the operator.
func (s *Server) Environment() []string {
	return []string{"VAULT_ADDR=" + s.Address, "VAULT_CACERT=" + s.CAFile, "VAULT_TOKEN=" + s.rootToken}
}

// Request makes a request with the root token and decodes the answer into out,
// if that is not nil. What is not a success is a *[StatusError].
func (s *Server) Request(ctx context.Context, method, path string, in, out any) error {
	return s.RequestAs(ctx, s.rootToken, method, path, in, out)
}

// StatusError is an answer of Vault that is not a success.
type StatusError struct {
	Status int
	Body   string
}

func (e *StatusError) Error() string { return fmt.Sprintf("vault: HTTP %d: %s", e.Status, e.Body) }

// RequestAs is [Server.Request] with another token, or none.
func (s *Server) RequestAs(ctx context.Context, token, method, path string, in, out any) error {
	return s.do(ctx, token, "", method, path, in, out)
}

func (s *Server) do(ctx context.Context, token, wrapTTL, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, s.Address+"/v1/"+path, body)
	if err != nil {
		return err
	}
	req.Header.Set("X-Vault-Request", "true")
	if token != "" {
		req.Header.Set("X-Vault-Token", token)
	}
	if wrapTTL != "" {
		req.Header.Set("X-Vault-Wrap-TTL", wrapTTL)
	}
	resp, err := s.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode >= 300 {
		return &StatusError{resp.StatusCode, strings.TrimSpace(string(b))}
	}
	if out == nil || len(b) == 0 {
		return nil
	}
	return json.Unmarshal(b, out)
}

func freePorts(n int) ([]int, error) {
	var ports []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

// makeCertificates writes ca.pem, server.pem and server.key.
func makeCertificates(dir string) (*x509.CertPool, error) {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Vault of a test"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(30 * 24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "127.0.0.1"}, NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), caKey)
	if err != nil {
		return nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	caPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER})
	err = errors.Join(
		os.WriteFile(filepath.Join(dir, "ca.pem"), caPEM, 0o600),
		os.WriteFile(filepath.Join(dir, "server.pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leafDER}), 0o600),
		os.WriteFile(filepath.Join(dir, "server.key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600),
	)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(caPEM)
	return pool, err
}
