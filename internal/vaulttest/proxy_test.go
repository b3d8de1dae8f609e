package vaulttest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// TestProxy does each fault to a real Vault's health and to a batch.
func TestProxy(t *testing.T) {
	v := Start(t)
	tenant := Tenant(t, v, "proxied")
	p := NewProxy(t, v)
	ca, err := os.ReadFile(p.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}}
	_, token, _ := strings.Cut(strings.Join(v.Environment(), "\n"), "VAULT_TOKEN=")
	ask := func(ctx context.Context, method, path, body string) (int, map[string]any, error) {
		req, err := http.NewRequestWithContext(ctx, method, p.Address+"/v1/"+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Vault-Token", token)
		resp, err := client.Do(req)
		if err != nil {
			return 0, nil, err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		var answer map[string]any
		_ = json.Unmarshal(b, &answer)
		return resp.StatusCode, answer, err
	}
	encrypt := tenant.Mount + "/encrypt/root"
	const two = `{"batch_input":[{"plaintext":"AAAA","context":"AAAA","reference":"0"},{"plaintext":"BBBB","context":"AAAA","reference":"1"}]}`
	results := func() (refs []string) {
		status, answer, err := ask(t.Context(), http.MethodPost, encrypt, two)
		if err != nil || status != http.StatusOK {
			t.Fatalf("%d %v", status, err)
		}
		for _, r := range answer["data"].(map[string]any)["batch_results"].([]any) {
			refs = append(refs, r.(map[string]any)["reference"].(string))
		}
		return refs
	}

	if got := results(); strings.Join(got, "") != "01" {
		t.Errorf("unchanged: %v", got)
	}
	p.Set(Fault{Edit: Results(func(r []any) []any { return r[1:] })})
	if got := results(); strings.Join(got, "") != "1" {
		t.Errorf("the first dropped: %v", got)
	}
	asked := p.Asked()
	if len(asked) != 2 || asked[0].Path != encrypt || len(asked[0].Items) != 2 || asked[0].Items[0] == asked[0].Items[1] || asked[0].Items[0] != asked[1].Items[0] {
		t.Errorf("asked: %+v", asked)
	}
	p.Set(Fault{Of: func(path string) bool { return path == "sys/health" }, Status: http.StatusServiceUnavailable})
	if status, _, err := ask(t.Context(), http.MethodGet, "sys/health", ""); err != nil || status != http.StatusServiceUnavailable {
		t.Errorf("a status of its own: %d %v", status, err)
	}
	if got := results(); len(got) != 2 {
		t.Errorf("a path the fault is not for: %v", got)
	}
	p.Set(Fault{Delay: time.Hour})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, _, err := ask(ctx, http.MethodGet, "sys/health", ""); err == nil {
		t.Error("an answer held back came")
	}
	p.Set(Fault{})
	v.Stop()
	if _, _, err := ask(t.Context(), http.MethodGet, "sys/health", ""); err == nil {
		t.Error("a Vault that is not there answered")
	}
	if err := v.Again(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := results(); len(got) != 2 {
		t.Errorf("back again: %v", got)
	}
}
