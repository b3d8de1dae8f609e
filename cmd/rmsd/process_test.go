package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/openrms/rms/internal/daemon/daemontest"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// daemonProcess is a running rmsd serve.
type daemonProcess struct {
	Address string

	cmd    *exec.Cmd
	exited chan struct{}
	more   chan struct{}
	mu     sync.Mutex
	log    bytes.Buffer
}

// serve starts rmsd on a site, with more flags, and waits until it serves.
func serve(t *testing.T, site *daemontest.Site, flags ...string) *daemonProcess {
	t.Helper()
	path, err := exec.LookPath("rmsd")
	if err != nil {
		t.Fatal(err)
	}
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p := &daemonProcess{cmd: exec.Command(path, append([]string{"serve", "-c", site.Config}, flags...)...), exited: make(chan struct{}), more: make(chan struct{}, 1)}
	p.cmd.Stdout, p.cmd.Stderr = write, write
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = write.Close()
	go func() {
		defer close(p.exited)
		p.read(read)
		_ = p.cmd.Wait()
		_ = read.Close()
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.exited
		if t.Failed() {
			t.Logf("rmsd said:\n%s", p.said()[max(0, len(p.said())-4000):])
		}
	})
	p.await(t, `"msg":"the tenant serves"`)
	p.await(t, `"msg":"serving"`)
	p.Address = regexp.MustCompile(`"listen":"([^"]+)"`).FindStringSubmatch(p.said())[1]
	return p
}

func (p *daemonProcess) read(r io.Reader) {
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadBytes('\n')
		p.mu.Lock()
		p.log.Write(line)
		p.mu.Unlock()
		select {
		case p.more <- struct{}{}:
		default:
		}
		if err != nil {
			return
		}
	}
}

func (p *daemonProcess) said() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// await waits until it has said a text.
func (p *daemonProcess) await(t *testing.T, text string) {
	t.Helper()
	for !strings.Contains(p.said(), text) {
		select {
		case <-p.more:
		case <-p.exited:
			t.Fatalf("rmsd ended and never said %s:\n%s", text, p.said())
		}
	}
}

// end sends SIGTERM and waits; rmsd must end with success.
func (p *daemonProcess) end(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-p.exited
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		t.Fatalf("rmsd ended with %d", code)
	}
}

// SIGTERM arrives while 64 callers protect and open. Every answer a caller got
// is in the store afterwards, every call ends as answered or as one to try
// again, the log's stream ends, and so does the process, with success.
func TestStopUnderLoad(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	t.Parallel()
	site := daemontest.NewSite(t)
	p := serve(t, site)
	tail := daemontest.Tail(t, site, p.Address)
	load := daemontest.StartLoad(t, site, p.Address, 64)
	<-load.Underway()
	began := time.Now()
	p.end(t)
	if took := time.Since(began); took > 25*time.Second {
		t.Errorf("stopping took %s", took)
	}
	load.Wait(t, codes.Unavailable)
	if err := <-tail; status.Code(err) != codes.Unavailable {
		t.Errorf("the tail ended with %v", err)
	}
	if out, err := exec.Command(p.cmd.Path, "fsck", "-c", site.Config).CombinedOutput(); err != nil {
		t.Errorf("fsck: %v\n%s", err, out)
	}
	load.Check(t, serve(t, site).Address)
}

// What a session at the most talkative level leaves behind: no token, no key,
// no file name, no title, no clear content.
func TestNothingLeaks(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	t.Parallel()
	const (
		title    = "Zebrafinken-Plan 7741"
		fileName = "quokka-merger-2027.pdf"
		reason   = "ocelot-review-5512"
	)
	site := daemontest.NewSite(t)
	p := serve(t, site, "--log-level", "debug")
	c := site.Client(t, p.Address)
	scanner := site.Client(t, p.Address, daemontest.ServiceCertificate(t, site.Authority, daemontest.DLP))
	alice, bob, mallory := site.Person(t, "alice"), site.Person(t, "bob"), site.Person(t, "mallory")
	secrets := map[string][]byte{}
	for name, who := range map[string]daemontest.Who{"alice": alice, "bob": bob, "mallory": mallory} {
		secrets[name+"'s token"] = []byte(who.Token())
		secrets["the signature of "+name+"'s token"] = []byte(who.Token()[strings.LastIndex(who.Token(), ".")+1:])
	}

	req := daemontest.ForBob()
	req.Title, req.PrivateMetadata = title, []byte(fileName)
	doc, err := c.Publish(t.Context(), alice, req)
	if err != nil {
		t.Fatal(err)
	}
	opened, err := c.Acquire(t.Context(), bob, doc.PL, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !opened.Key.Equal(doc.Key) {
		t.Fatal("another content key came")
	}
	secrets["the content key"] = doc.Key.Reveal()
	secrets["the application's private data"] = req.PrivateMetadata
	if _, err := scanner.Acquire(t.Context(), daemontest.Service(daemontest.DLP), doc.PL, &bob); err != nil {
		t.Fatal(err)
	}
	// Refusals and failures of every kind say more than successes.
	_, err = c.Acquire(t.Context(), mallory, doc.PL, nil)
	wantReason(t, err, vocab.ReasonNoRights)
	wrong, err := daemontest.Person(bob.Token()[:len(bob.Token())-6] + "AAAAAA")
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Acquire(t.Context(), wrong, doc.PL, nil)
	wantReason(t, err, vocab.ReasonTokenInvalid)
	_, err = scanner.Acquire(t.Context(), daemontest.Service(daemontest.DLP), doc.PL, &wrong)
	wantReason(t, err, vocab.ReasonTokenInvalid)
	_, err = rmsv1.NewProtectionServiceClient(c.Conn).Acquire(t.Context(), &rmsv1.AcquireRequest{
		Parent: "tenants/" + daemontest.Tenant, Document: &rmsv1.AcquireRequest_PublishingLicense{PublishingLicense: doc.PL[:len(doc.PL)-1]},
		Right: rmsv1.Right_RIGHT_VIEW, Delivery: daemontest.SomeDelivery(), Reason: reason,
	}, bob.As())
	if err == nil {
		t.Fatal("a publishing license cut short was taken")
	}
	if _, err := rmsv1.NewLicenseServiceClient(c.Conn).RevokeLicense(t.Context(), &rmsv1.RevokeLicenseRequest{Name: doc.License, Reason: reason}, alice.As()); err != nil {
		t.Fatal(err)
	}
	_, err = c.Acquire(t.Context(), bob, doc.PL, nil)
	wantReason(t, err, vocab.ReasonLicenseRevoked)
	p.end(t)

	log := []byte(p.said())
	if n := bytes.Count(log, []byte("\n")); n < 10 || !bytes.Contains(log, []byte("ProtectionService/Acquire")) {
		t.Fatalf("the log of %d lines is not that of a talkative session:\n%s", n, log)
	}
	for name, secret := range secrets {
		refuse(t, "the log", log, name, secret)
	}
	for name, text := range map[string]string{"the title": title, "the file name": fileName, "the reason of a person": reason, "bob's address": "bob@contoso"} {
		refuse(t, "the log", log, name, []byte(text))
	}
	// On disk is no more than that, but for the words that belong to a record.
	err = filepath.WalkDir(site.Data, func(path string, entry os.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		for name, secret := range secrets {
			refuse(t, entry.Name(), b, name, secret)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// refuse fails if a secret is in a text, raw or in a usual encoding.
func refuse(t *testing.T, where string, text []byte, name string, secret []byte) {
	t.Helper()
	lower := bytes.ToLower(text)
	for form, s := range map[string][]byte{
		"raw": secret, "base64": []byte(base64.RawStdEncoding.EncodeToString(secret)), "base64url": []byte(base64.RawURLEncoding.EncodeToString(secret)),
	} {
		if bytes.Contains(text, s) {
			t.Errorf("%s holds %s (%s)", where, name, form)
		}
	}
	if bytes.Contains(lower, []byte(hex.EncodeToString(secret))) {
		t.Errorf("%s holds %s (hex)", where, name)
	}
}

func wantReason(t *testing.T, err error, want vocab.Reason) {
	t.Helper()
	if got := daemontest.Reason(err); err == nil || got != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// The certificate is replaced on disk while callers are at work: connections
// that are there go on, new ones get the new certificate, and a pair that does
// not fit together changes nothing.
func TestCertificateReplacedUnderLoad(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	t.Parallel()
	site := daemontest.NewSite(t)
	p := serve(t, site)
	load := daemontest.StartLoad(t, site, p.Address, 16)
	<-load.Underway()
	before := presented(t, site, p.Address)

	// The operator does not wait for the daemon to look by itself.
	site.Certify("the second certificate")
	reload(t, site, "TLS files reloaded")
	second := presented(t, site, p.Address)
	if bytes.Equal(second, before) {
		t.Error("new connections get the old certificate")
	}

	key, err := os.ReadFile(site.Key)
	if err != nil {
		t.Fatal(err)
	}
	site.Certify("the third certificate")
	if err := os.WriteFile(site.Key, key, 0o600); err != nil { // the second one's
		t.Fatal(err)
	}
	out, err := exec.Command(p.cmd.Path, "reload", "-c", site.Config).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "tls.certificate") {
		t.Errorf("a pair that does not fit: %v, %s", err, out)
	}
	if !bytes.Equal(presented(t, site, p.Address), second) {
		t.Error("after a pair that does not fit another certificate is presented")
	}

	// Without being told, it looks by itself.
	site.Certify("the fourth certificate")
	p.await(t, `"msg":"TLS files reloaded"`)
	if bytes.Equal(presented(t, site, p.Address), second) {
		t.Error("new connections get the old certificate")
	}

	// All the while nobody's connection was cut.
	if n := load.Turned(); n != 0 {
		t.Errorf("%d callers were turned away", n)
	}
	p.end(t)
	load.Wait(t, codes.Unavailable)
}

// reload has a daemon reload and wants it to say what it did.
func reload(t *testing.T, site *daemontest.Site, want string) {
	t.Helper()
	path, err := exec.LookPath("rmsd")
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(path, "reload", "-c", site.Config).CombinedOutput(); err != nil || !strings.Contains(string(out), want) {
		t.Fatalf("reload: %v\n%s", err, out)
	}
}

// presented is the certificate that a new connection gets, verified.
func presented(t *testing.T, site *daemontest.Site, address string) []byte {
	t.Helper()
	dialer := tls.Dialer{Config: &tls.Config{RootCAs: site.Authority.Pool, MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"}}}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0].Raw
}
