package vaulttest

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openrms/rms/internal/vaulttest/realvault"
)

// Proxy stands between a service and a real Vault, at an address of its own
// that outlives the Vault. It counts what the service asks for, and does what a
// network, or whoever holds it, can do to the answers: see [Fault]. It is safe
// for concurrent use.
type Proxy struct {
	Address string // https://127.0.0.1:PORT
	CAFile  string // PEM

	mu    sync.Mutex
	to    *realvault.Server
	over  http.RoundTripper
	fault Fault
	asked []Asked
}

// Fault is what a [Proxy] does to the exchanges it is for. The zero Fault does
// nothing.
type Fault struct {
	// Of says which paths, without /v1/, it is for; nil: all.
	Of func(path string) bool
	// Status, if not zero, is answered with Vault's form of an error, and
	// Vault is not asked.
	Status int
	// Delay holds Vault's answer back for so long, or until whoever asked has
	// gone.
	Delay time.Duration
	// Edit changes an answer that is a success. It is called by many at once.
	Edit func(answer map[string]any)
}

// Asked is a request that a service made.
type Asked struct {
	Method, Path string // without /v1/
	// Items are those of a batch: what each of two that are the same holds is
	// the same, a wrapped key and what it is bound to.
	Items []string
}

// NewProxy starts a proxy before a Vault, until the test ends.
func NewProxy(tb testing.TB, to *realvault.Server) *Proxy {
	tb.Helper()
	p := &Proxy{CAFile: filepath.Join(tb.TempDir(), "proxy.pem")}
	s := httptest.NewUnstartedServer(http.HandlerFunc(p.serve))
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.StartTLS()
	tb.Cleanup(s.Close)
	p.Address = s.URL
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	if err := os.WriteFile(p.CAFile, certificate, 0o600); err != nil {
		tb.Fatal(err)
	}
	if err := p.To(to); err != nil {
		tb.Fatal(err)
	}
	return p
}

// To makes it stand before another Vault from the next request on.
func (p *Proxy) To(v *realvault.Server) error {
	ca, err := os.ReadFile(v.CAFile)
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return errors.New("no certificate in " + v.CAFile)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	// A Vault that was stopped and started is connected to anew.
	p.to, p.over = v, &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}, DisableKeepAlives: true}
	return nil
}

// Set replaces the fault from the next answer on. The zero Fault ends it.
func (p *Proxy) Set(f Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault = f
}

// Asked returns the requests made since the last call of it, and forgets them.
func (p *Proxy) Asked() []Asked {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := p.asked
	p.asked = nil
	return out
}

func (p *Proxy) current(path string) Fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fault.Of != nil && !p.fault.Of(path) {
		return Fault{}
	}
	return p.fault
}

func (p *Proxy) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	path := strings.TrimPrefix(r.URL.Path, "/v1/")
	p.mu.Lock()
	p.asked = append(p.asked, Asked{r.Method, path, itemsOf(body)})
	p.mu.Unlock()
	if f := p.current(path); f.Status != 0 {
		w.WriteHeader(f.Status)
		_, _ = io.WriteString(w, `{"errors":["the proxy of a test says no"]}`)
		return
	}
	status, header, answer, err := p.ask(r, body)
	if err != nil {
		panic(http.ErrAbortHandler) // the connection is cut
	}
	// Asked again, for a fault that began meanwhile is in time.
	f := p.current(path)
	if f.Delay != 0 && !held(r.Context(), f.Delay) {
		panic(http.ErrAbortHandler)
	}
	if f.Edit != nil && status == http.StatusOK {
		answer = edited(answer, f.Edit)
	}
	maps.Copy(w.Header(), header)
	w.Header().Del("Content-Length")
	w.WriteHeader(status)
	_, _ = w.Write(answer)
}

// ask hands a request on as it is.
func (p *Proxy) ask(r *http.Request, body []byte) (int, http.Header, []byte, error) {
	p.mu.Lock()
	to, over := p.to, p.over
	p.mu.Unlock()
	target, err := url.Parse(to.Address)
	if err != nil {
		return 0, nil, nil, err
	}
	out := r.Clone(r.Context())
	out.URL.Scheme, out.URL.Host, out.Host, out.RequestURI = target.Scheme, target.Host, target.Host, ""
	out.Body, out.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	resp, err := over.RoundTrip(out)
	if err != nil {
		return 0, nil, nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	return resp.StatusCode, resp.Header, answer, err
}

// held waits, and reports whether whoever asked is still there.
func held(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// edited is an answer changed; what is no JSON object stays as it is.
func edited(answer []byte, edit func(map[string]any)) []byte {
	var fields map[string]any
	d := json.NewDecoder(bytes.NewReader(answer))
	d.UseNumber()
	if d.Decode(&fields) != nil || fields == nil {
		return answer
	}
	edit(fields)
	out, err := json.Marshal(fields)
	if err != nil {
		return answer
	}
	return out
}

func itemsOf(body []byte) (out []string) {
	var b struct {
		Items []struct {
			Plaintext  string `json:"plaintext"`
			Ciphertext string `json:"ciphertext"`
			Context    string `json:"context"`
		} `json:"batch_input"`
	}
	if json.Unmarshal(body, &b) != nil {
		return nil
	}
	for _, i := range b.Items {
		out = append(out, i.Plaintext+i.Ciphertext+" "+i.Context)
	}
	return out
}

// Results makes an edit of the results of a batch, of which change returns
// others; answers that have none stay as they are.
func Results(change func([]any) []any) func(map[string]any) {
	return func(answer map[string]any) {
		data, _ := answer["data"].(map[string]any)
		if results, ok := data["batch_results"].([]any); ok {
			data["batch_results"] = change(slices.Clone(results))
		}
	}
}
