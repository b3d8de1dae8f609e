package contexts

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/openrms/rms/internal/vocab"
)

func sample(name string) *Context {
	return &Context{
		Name: name, Server: "rms.contoso.com:7443",
		Tenant: "contoso", TenantID: vocab.TenantID{1, 2, 3},
		Roots: []KeyID{{9, 9, 9}}, Bundle: "AAEC", BundleSeq: 7,
		SignIn: &SignIn{Provider: "entra-contoso", Issuer: "https://login.contoso.com/", ClientID: "0b77", Scopes: []string{"openid"}, Account: "alice@contoso.com"},
	}
}

func TestWriteReadDelete(t *testing.T) {
	d := At(filepath.Join(t.TempDir(), "deep", "rmsctl"))
	if names, err := d.Names(); err != nil || len(names) != 0 {
		t.Fatalf("names of a folder that is not there: %v, %v", names, err)
	}
	want := sample("contoso")
	if err := d.Write(want); err != nil {
		t.Fatal(err)
	}
	got, err := d.Read("contoso")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(Context{})); diff != "" {
		t.Errorf("read differs from written (-want +got):\n%s", diff)
	}
	for path, mode := range map[string]os.FileMode{
		d.contextPath("contoso"): 0o600,
		d.in("contexts"):         0o700,
	} {
		st, err := os.Stat(path)
		if err != nil || st.Mode().Perm() != mode {
			t.Errorf("%s has mode %v, want %v (%v)", path, st.Mode().Perm(), mode, err)
		}
	}
	if err := d.Use("contoso"); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{d.SignInPath("contoso"), d.CheckpointPath("contoso"), d.TemplatesPath("contoso"), d.GroupsPath("contoso")} {
		if err := WritePrivate(p, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Delete("contoso"); err != nil {
		t.Fatal(err)
	}
	left, _ := filepath.Glob(d.in("*", "*"))
	if cur, err := d.Current(); cur != "" || err != nil || len(left) != 0 {
		t.Errorf("after Delete: current %q, %v; files %v", cur, err, left)
	}
	if err := d.Delete("contoso"); !errors.Is(err, vocab.ReasonResourceNotFound) {
		t.Errorf("second Delete: %v", err)
	}
}

func TestCurrent(t *testing.T) {
	d := At(t.TempDir())
	check := func(want string) {
		t.Helper()
		if got, err := d.Current(); got != want || err != nil {
			t.Errorf("Current() = %q, %v; want %q", got, err, want)
		}
	}
	write := func(name string) {
		t.Helper()
		if err := d.Write(sample(name)); err != nil {
			t.Fatal(err)
		}
	}
	check("")
	write("one")
	check("one") // the only one
	write("two")
	check("") // not obvious any more
	if err := d.Use("two"); err != nil {
		t.Fatal(err)
	}
	check("two")
	if err := d.Use("three"); !errors.Is(err, vocab.ReasonResourceNotFound) {
		t.Errorf("Use of a context that is not there: %v", err)
	}
	check("two")
}

// A file that somebody else can write says nothing about what its owner
// pinned.
func TestWritableByOthersIsRefused(t *testing.T) {
	d := At(t.TempDir())
	if err := d.Write(sample("contoso")); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(d.contextPath("contoso"), 0o620); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Read("contoso"); !errors.Is(err, vocab.ReasonConfigurationInvalid) {
		t.Errorf("Read: %v", err)
	}
}

// badContexts breaks every rule of a context file once.
func badContexts(tb testing.TB) map[string]string {
	tb.Helper()
	good, err := sample("contoso").Encode()
	if err != nil {
		tb.Fatal(err)
	}
	edit := func(old, new string) string {
		if !strings.Contains(string(good), old) {
			tb.Fatalf("the sample has no %q:\n%s", old, good)
		}
		return strings.Replace(string(good), old, new, 1)
	}
	return map[string]string{
		"nothing":            "",
		"unknown key":        string(good) + "skip_verify: true\n",
		"repeated key":       string(good) + "tenant: fabrikam\n",
		"two documents":      string(good) + "---\n" + string(good),
		"alias":              edit("tenant: contoso", "tenant: &a contoso"),
		"URL":                edit("rms.contoso.com:7443", "https://rms.contoso.com:7443"),
		"no port":            edit("rms.contoso.com:7443", "rms.contoso.com"),
		"port 0":             edit(":7443", ":0"),
		"user in the server": edit("rms.", "x@rms."),
		"no roots":           edit("roots:\n  - "+KeyID{9, 9, 9}.String()+"\n", "roots: []\n"),
		"short root":         edit(KeyID{9, 9, 9}.String(), "SHA256:AAAA"),
		"bad tenant ID":      edit("01020300-", "0102-"),
		"zero tenant ID":     edit(sample("x").TenantID.String(), vocab.TenantID{}.String()),
		"bundle not base64":  edit("bundle: AAEC", "bundle: A!"),
		"CA not PEM":         string(good) + "ca: hello\n",
		"two sign-ins":       string(good) + "token_file: t\n",
		"no client":          edit("client_id: 0b77", "client_id: \"\""),
		"CA not certificate": string(good) + "ca: |\n  -----BEGIN CERTIFICATE-----\n  AAAA\n  -----END CERTIFICATE-----\n",
		"no tenant":          edit("tenant: contoso", "tenant: Contoso!"),
		"too large":          string(good) + "#" + strings.Repeat("x", MaxFile),
	}
}

func TestParseRefuses(t *testing.T) {
	for name, text := range badContexts(t) {
		t.Run(name, func(t *testing.T) {
			if c, err := Parse("contoso", []byte(text)); !errors.Is(err, vocab.ReasonConfigurationInvalid) {
				t.Errorf("Parse = %+v, %v", c, err)
			}
		})
	}
	if _, err := Parse("no name", []byte("{}")); !errors.Is(err, vocab.ReasonConfigurationInvalid) {
		t.Errorf("a name that is none: %v", err)
	}
}

// A server of one's own authority, with a token that something else keeps.
func automated(tb testing.TB) *Context {
	tb.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		tb.Fatal(err)
	}
	c := sample("contoso")
	c.SignIn, c.TokenFile, c.Development = nil, "token", true
	c.CA = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return c
}

func TestAutomatedContext(t *testing.T) {
	d := At(t.TempDir())
	if err := d.Write(automated(t)); err != nil {
		t.Fatal(err)
	}
	c, err := d.Read("contoso")
	if err != nil {
		t.Fatal(err)
	}
	if pool, err := c.Authorities(); pool == nil || err != nil {
		t.Errorf("authorities: %v, %v", pool, err)
	}
	if got, want := c.TokenPath(), filepath.Join(d.Path(), "token"); got != want {
		t.Errorf("token path %s, want %s", got, want)
	}
	c.TokenFile = "/run/token"
	if got := c.TokenPath(); got != "/run/token" {
		t.Errorf("token path %s", got)
	}
}

func TestAddress(t *testing.T) {
	for in, want := range map[string]string{
		"rms.contoso.com":      "rms.contoso.com:7443",
		"rms.contoso.com:443":  "rms.contoso.com:443",
		"127.0.0.1":            "127.0.0.1:7443",
		"::1":                  "[::1]:7443",
		"[::1]":                "[::1]:7443",
		"[::1]:99":             "[::1]:99",
		"https://rms.x.org":    "",
		"rms.x.org/path":       "",
		"":                     "",
		"a:b:c":                "",
		"rms.x.org:99999":      "",
		"user@rms.contoso.com": "",
	} {
		if got, err := Address(in); got != want || (err == nil) != (want != "") {
			t.Errorf("Address(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
}

func TestBundleNeverGoesBack(t *testing.T) {
	c := sample("contoso") // has 7
	c.SetTrustBundle([]byte("six"), 6)
	if c.BundleSeq != 7 || c.Bundle != "AAEC" {
		t.Errorf("an older bundle replaced a newer one: %d", c.BundleSeq)
	}
	c.SetTrustBundle([]byte("eight"), 8)
	if b, err := c.TrustBundle(); c.BundleSeq != 8 || string(b) != "eight" || err != nil {
		t.Errorf("a newer bundle was not kept: %d %q %v", c.BundleSeq, b, err)
	}
}

func TestUpdatesDoNotLoseEachOther(t *testing.T) {
	d := At(t.TempDir())
	c := sample("contoso")
	c.BundleSeq = 0
	if err := d.Write(c); err != nil {
		t.Fatal(err)
	}
	const n = 16
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			if err := d.Update("contoso", func(c *Context) error { c.BundleSeq++; return nil }); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if c, err := d.Read("contoso"); err != nil || c.BundleSeq != n {
		t.Errorf("after %d updates: %v, %v", n, c, err)
	}
}

func FuzzParse(f *testing.F) {
	good, err := sample("contoso").Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	withCA, err := automated(f).Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(withCA)
	for name, text := range badContexts(f) {
		if name != "too large" {
			f.Add([]byte(text))
		}
	}
	f.Add([]byte("server: h:1\ntenant: t\ntenant_id: 01020300-0000-0000-0000-000000000000\nroots: [SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA]\ntoken_file: t\n"))
	f.Add([]byte("a: &a [*a]"))
	f.Add([]byte("server: ["))
	f.Add(make([]byte, MaxFile+1))
	f.Add([]byte("ca: |\n  -----BEGIN CERTIFICATE-----\n  AAAA\n  -----END CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := Parse("contoso", b)
		if err != nil {
			if !errors.Is(err, vocab.ReasonConfigurationInvalid) {
				t.Fatalf("an error without its reason: %v", err)
			}
			return
		}
		again, err := c.Encode()
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		d, err := Parse("contoso", again)
		if err != nil {
			t.Fatalf("what was written cannot be read: %v\n%s", err, again)
		}
		if diff := cmp.Diff(c, d, cmpopts.IgnoreUnexported(Context{}), cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("not the same again:\n%s", diff)
		}
	})
}
