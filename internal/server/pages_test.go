package server

import (
	"bytes"
	"encoding/base64"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// TestPageTokensBelongToOneListing makes a token and presents it with one
// thing different.
func TestPageTokensBelongToOneListing(t *testing.T) {
	p := newPages()
	alice := &call{method: "LicenseService/ListLicenses", caller: &vocab.Identity{Issuer: "https://issuer.test", Subject: "alice"}}
	request := func() *rmsv1.ListLicensesRequest {
		return &rmsv1.ListLicensesRequest{Parent: "tenants/contoso", Owner: "user:alice@contoso.test", PageSize: 10}
	}
	cursor := []byte("where to go on")
	token := p.next(alice, request(), cursor)
	if got := p.next(alice, request(), nil); got != "" {
		t.Errorf("the last page has the token %q", got)
	}
	flipped := func(i int) string {
		b, err := base64.RawURLEncoding.DecodeString(token)
		if err != nil {
			t.Fatal(err)
		}
		b[i] ^= 1
		return base64.RawURLEncoding.EncodeToString(b)
	}
	for _, c := range []struct {
		name   string
		pages  *pages
		call   *call
		change func(*rmsv1.ListLicensesRequest)
		token  string
		valid  bool
	}{
		{name: "as it was made", valid: true},
		{name: "another page size", change: func(r *rmsv1.ListLicensesRequest) { r.PageSize = 1000 }, valid: true},
		{name: "another caller", call: &call{method: alice.method, caller: &vocab.Identity{Issuer: "https://issuer.test", Subject: "mallory"}}},
		{name: "the same subject of another issuer", call: &call{method: alice.method, caller: &vocab.Identity{Issuer: "https://other.test", Subject: "alice"}}},
		{name: "another method", call: &call{method: "LicenseService/ListLicenseEvents", caller: alice.caller}},
		{name: "another tenant", change: func(r *rmsv1.ListLicensesRequest) { r.Parent = "tenants/fabrikam" }},
		{name: "another filter", change: func(r *rmsv1.ListLicensesRequest) { r.Owner = "user:bob@contoso.test" }},
		{name: "a wider filter", change: func(r *rmsv1.ListLicensesRequest) { r.Owner = "" }},
		{name: "a narrower filter", change: func(r *rmsv1.ListLicensesRequest) { r.Title = "q3" }},
		{name: "after a restart", pages: newPages()},
		{name: "first byte of the MAC", token: flipped(0)},
		{name: "last byte of the MAC", token: flipped(tokenMAC - 1)},
		{name: "first byte of the cursor", token: flipped(tokenMAC)},
		{name: "last byte of the cursor", token: flipped(tokenMAC + len(cursor) - 1)},
		{name: "cut short", token: token[:len(token)-4]},
		{name: "the MAC alone", token: base64.RawURLEncoding.EncodeToString(bytes.Repeat([]byte{1}, tokenMAC))},
		{name: "padded", token: token + "="},
		{name: "other alphabet", token: base64.StdEncoding.EncodeToString([]byte("??>>??>>??>>??>>??>>"))},
		{name: "much too long", token: base64.RawURLEncoding.EncodeToString(make([]byte, tokenMAC+maxCursor+1))},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := request()
			if c.change != nil {
				c.change(r)
			}
			r.PageToken = token
			if c.token != "" {
				r.PageToken = c.token
			}
			in, by := p, alice
			if c.pages != nil {
				in = c.pages
			}
			if c.call != nil {
				by = c.call
			}
			before := proto.Clone(r)
			got, err := in.cursor(by, r)
			if !proto.Equal(before, r) {
				t.Error("reading the token changed the request")
			}
			if c.valid {
				if err != nil || !bytes.Equal(got, cursor) {
					t.Errorf("leads to %q (%v), want %q", got, err, cursor)
				}
				return
			}
			if vocab.ReasonOf(err) != vocab.ReasonPageTokenInvalid || got != nil {
				t.Errorf("leads to %q (%v), want PAGE_TOKEN_INVALID", got, err)
			}
		})
	}
	if got, err := p.cursor(alice, request()); got != nil || err != nil {
		t.Errorf("no token leads to %q (%v), want the first page", got, err)
	}
}

func FuzzPageToken(f *testing.F) {
	p := newPages()
	c := &call{method: "PolicyService/ListTemplates", caller: &vocab.Identity{Issuer: "https://issuer.test", Subject: "alice"}}
	for _, seed := range []string{"", "=", "AAAA", "////", base64.RawURLEncoding.EncodeToString(make([]byte, 20)), base64.RawURLEncoding.EncodeToString(make([]byte, 400))} {
		f.Add(seed)
	}
	here := p.next(c, &rmsv1.ListTemplatesRequest{Parent: "tenants/contoso"}, []byte("here"))
	f.Add(here)
	f.Fuzz(func(t *testing.T, token string) {
		got, err := p.cursor(c, &rmsv1.ListTemplatesRequest{Parent: "tenants/contoso", PageToken: token})
		if token == here {
			if string(got) != "here" || err != nil {
				t.Fatalf("our own token leads to %q (%v)", got, err)
			}
			return
		}
		if token == "" != (err == nil) || got != nil {
			t.Fatalf("%q leads to %q (%v)", token, got, err)
		}
	})
}
