package rms

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"net/url"
	"testing"

	"github.com/openrms/rms/internal/canon"
)

func testToken(payload string) string {
	return "e30." + base64.RawURLEncoding.EncodeToString([]byte(payload)) + ".c2ln"
}

func TestTokenSelf(t *testing.T) {
	alice := canon.PrincipalID("https://idp.test", "alice")
	for payload, ok := range map[string]bool{
		`{"iss":"https://idp.test","sub":"alice"}`:                                       true,
		`{"iss":"https://idp.test","sub":"alice","aud":["rms"],"exp":1,"x":{"sub":"b"}}`: true,
		`{"Iss":"https://evil.test","iss":"https://idp.test","SUB":"b","sub":"alice"}`:   true,
		`{"iss":"https://idp.test"}`:                                                     false,
		`{"iss":"https://idp.test","sub":7}`:                                             false,
		`{"iss":"","sub":"alice"}`:                                                       false,
		`{"ISS":"https://idp.test","sub":"alice"}`:                                       false,
		`["iss"]`: false,
		`null`:    false,
		``:        false,
	} {
		got, err := tokenSelf(testToken(payload))
		if ok && (err != nil || got.as(alice) != alice) || !ok && !errors.Is(err, ReasonTokenInvalid) {
			t.Errorf("%s: %x, %v", payload, got, err)
		}
	}
}

func FuzzTokenSelf(f *testing.F) {
	for _, s := range []string{"", "a.b.c", "..", testToken(`{"iss":"i","sub":"s"}`), testToken(`{"iss":"i"}`), testToken(`null`), "e30.!.x", "a.b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		who, err := tokenSelf(s)
		if (err == nil) != (len(who) == 1) {
			t.Errorf("%x, %v", who, err)
		}
		if err != nil && !errors.Is(err, ReasonTokenInvalid) {
			t.Errorf("%v", err)
		}
	})
}

// A certificate may have several names; the operator has mapped one of them.
func TestCertificateSelf(t *testing.T) {
	spiffe := &url.URL{Scheme: "spiffe", Host: "contoso.test", Path: "/dlp"}
	p := new(presenter)
	if _, err := p.self(); !errors.Is(err, ReasonTokenMissing) {
		t.Errorf("before one was presented: %v", err)
	}
	p.leaf.Store(&x509.Certificate{URIs: []*url.URL{spiffe}, DNSNames: []string{"DLP.contoso.test"}})
	who, err := p.self()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"spiffe://contoso.test/dlp", "dlp.contoso.test"} {
		if id := canon.PrincipalID("x509", name); who.as(id) != id {
			t.Errorf("%s is not among its principals", name)
		}
	}
	if id := canon.PrincipalID("x509", "other.contoso.test"); who.as(id) == id {
		t.Error("somebody else is among its principals")
	}
	p.leaf.Store(&x509.Certificate{})
	if _, err := p.self(); !errors.Is(err, ReasonCertificateNotMapped) {
		t.Errorf("a certificate without a name: %v", err)
	}
}

func TestSecure(t *testing.T) {
	before := &tls.Config{MinVersion: tls.VersionTLS12}
	got, err := secure(before, new(presenter))
	if err != nil || got.MinVersion != tls.VersionTLS13 || before.MinVersion != tls.VersionTLS12 {
		t.Errorf("%v, %v, %v", got, before, err)
	}
	if got, err = secure(nil, new(presenter)); err != nil || got.MinVersion != tls.VersionTLS13 || got.GetClientCertificate != nil {
		t.Errorf("%v, %v", got, err)
	}
	// A program may bring its own, renewed, certificates.
	leaf := &x509.Certificate{DNSNames: []string{"a.test"}}
	p := new(presenter)
	got, err = secure(&tls.Config{GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return &tls.Certificate{Certificate: [][]byte{{1}}, Leaf: leaf}, nil
	}}, p)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := got.GetClientCertificate(new(tls.CertificateRequestInfo)); err != nil || p.leaf.Load() != leaf {
		t.Errorf("%v, %v", p.leaf.Load(), err)
	}
}
