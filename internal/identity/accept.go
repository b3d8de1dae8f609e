package identity

import (
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/openrms/rms/internal/vocab"
)

// accept applies one provider's rules to a token whose signature and times
// are good, and cuts it down to what that provider may say to this tenant.
func (v *Verifier) accept(c candidate, t Tenant, tok *token, issued time.Time, leaf *x509.Certificate) (*vocab.Identity, error) {
	p, cl := c.trust, tok.claims
	if err := checkKind(p.Kind(), tok); err != nil {
		return nil, tokenInvalid(err)
	}
	if err := checkAudience(p, cl); err != nil {
		return nil, tokenInvalid(err)
	}
	if err := checkBinding(cl, leaf); err != nil {
		return nil, tokenInvalid(err)
	}
	subject, ok := cl.text("sub")
	if !ok || len(subject) > maxSubject {
		return nil, tokenInvalid(errors.New("sub is missing, too long or not plain text"))
	}
	if age := v.now().Sub(issued); age > p.maxAge() {
		return nil, vocab.Errorf(vocab.ReasonTokenTooOld, "your sign-in is too old").WithNext("Sign in again").
			Because(fmt.Errorf("issued %s ago, provider %s allows %s", age.Round(time.Second), c.name, p.maxAge()))
	}
	for _, claim := range sortedKeys(p.Require) {
		if !cl.matches(claim, p.Require[claim]) {
			cause := fmt.Errorf("claim %s does not have a required value (provider %s)", claim, c.name)
			if claim == "email_verified" {
				return nil, addressNotVerified(cause)
			}
			return nil, tokenInvalid(cause)
		}
	}

	id := &vocab.Identity{Issuer: p.Issuer, Subject: subject, Provider: c.name, IssuedAt: issued, MFA: secondFactor(p.Claims.MFA, cl)}
	speaksFor := func(address string) bool { return mayName(c, t, vocab.DomainOf(address)) }
	id.Addresses = addresses(p.Addresses, cl, speaksFor)
	id.Groups, id.GroupsIncomplete = groups(c, t, cl, speaksFor)
	if c.own {
		id.Service = t.service(func(m ServiceMatch) bool { return m.Provider == c.name && m.Subject == subject })
		if slices.ContainsFunc(id.Addresses, func(a string) bool { return slices.Contains(t.Domains, vocab.DomainOf(a)) }) {
			id.Member = t.Name
		}
	}
	if len(id.Addresses) == 0 && id.Service == "" {
		return nil, addressNotVerified(fmt.Errorf("provider %s vouches for no address that counts in tenant %s", c.name, t.Name))
	}
	return id, nil
}

// mayName reports whether a provider's word counts for addresses of domain in
// this tenant: the operator wrote the domain down for the provider, and it is
// either the tenant's own, said by the tenant's own provider, or one that the
// tenant lets guests come from. A guest's provider never speaks for the
// tenant's domains, whatever its configuration says.
func mayName(c candidate, t Tenant, domain string) bool {
	if !slices.Contains(c.trust.Addresses.Domains, domain) {
		return false
	}
	if slices.Contains(t.Domains, domain) {
		return c.own
	}
	return t.GuestDomain != nil && t.GuestDomain(domain)
}

// checkKind tells access tokens from ID tokens and from everything else that
// a provider signs with the same key: an ID token is proof to one client that
// a person signed in there, no permission to act here. Providers differ, so
// whatever marks the wrong kind refuses the token.
func checkKind(kind TokenKind, tok *token) error {
	cl := tok.claims
	if cl.has("events") { // RFC 8417: security events and logout tokens
		return errors.New("a security event, no token of a caller")
	}
	if cl.has("act") {
		return errors.New("a token for acting as somebody else: a service passes its own token and the user's")
	}
	if typ, there := cl["typ"]; there { // Keycloak
		if want := map[TokenKind]string{TokenAccess: "Bearer", TokenID: "ID"}[kind]; typ != want {
			return fmt.Errorf("claim typ is not %s", want)
		}
	}
	if use, there := cl["token_use"]; there && use != string(kind) { // Amazon Cognito
		return fmt.Errorf("claim token_use is not %s", kind)
	}
	switch kind {
	case TokenAccess:
		if tok.typ != "" && tok.typ != "jwt" && tok.typ != "at+jwt" {
			return fmt.Errorf("type %q is no access token", clip(tok.typ))
		}
		if cl.has("nonce", "at_hash", "c_hash", "s_hash") {
			return errors.New("an ID token, want an access token")
		}
		if tok.typ != "at+jwt" && !cl.has("scope", "scp", "azp", "client_id", "appid", "cid") {
			return errors.New("nothing in it marks it as an access token")
		}
	case TokenID:
		if tok.typ != "" && tok.typ != "jwt" {
			return fmt.Errorf("type %q is no ID token", clip(tok.typ))
		}
		if cl.has("scope", "scp") {
			return errors.New("an access token, want an ID token")
		}
	}
	return nil
}

// checkAudience demands that the token was made for us, and when it was made
// for others too or is an ID token, that a client of ours asked for it
// (OpenID Connect Core 1.0 §3.1.3.7, items 3 to 5).
func checkAudience(p Provider, cl claims) error {
	audience, ok := cl.list("aud")
	if !ok || len(audience) == 0 {
		return errors.New("aud is missing or no list of strings")
	}
	if !slices.ContainsFunc(audience, func(a string) bool { return slices.Contains(p.Audiences, a) }) {
		return errors.New("made for another audience")
	}
	app := cl.application()
	if len(p.Clients) > 0 && !slices.Contains(p.Clients, app) && (app == "" || app != p.CLIClientID) {
		return fmt.Errorf("application %q is not one of the configured clients", clip(app))
	}
	ours := app != "" && (app == p.CLIClientID || slices.Contains(p.Clients, app) || slices.Contains(p.Audiences, app))
	if len(audience) > 1 && !ours {
		return fmt.Errorf("several audiences, and application %q is not ours", clip(app))
	}
	if p.Kind() == TokenID && app != "" && !ours {
		return fmt.Errorf("an ID token of another client, %q", clip(app))
	}
	return nil
}

// checkBinding refuses a token that is bound to a key, unless that is the key
// of the connection's certificate: whoever stole it must not be able to use it
// by our not looking.
func checkBinding(cl claims, leaf *x509.Certificate) error {
	cnf, there := cl["cnf"]
	if !there {
		return nil
	}
	m, ok := cnf.(map[string]any)
	if !ok || len(m) != 1 {
		return errors.New("cnf is not a binding to a certificate")
	}
	want, ok := m["x5t#S256"].(string)
	if !ok {
		return errors.New("cnf is not a binding to a certificate")
	}
	if leaf == nil {
		return errors.New("bound to a certificate, and the connection has none")
	}
	sum := sha256.Sum256(leaf.Raw)
	if subtle.ConstantTimeCompare([]byte(want), []byte(base64.RawURLEncoding.EncodeToString(sum[:]))) != 1 {
		return errors.New("bound to another certificate")
	}
	return nil
}

// addresses returns the addresses the token vouches for, canonical, in the
// order of the configured claims.
func addresses(cfg Addresses, cl claims, speaksFor func(string) bool) []string {
	var out []string
	for _, claim := range cfg.Claims {
		// Anyone may claim an e-mail address at many providers.
		if claim == "email" && !cl.isTrue("email_verified") && !cl.isTrue("xms_edov") {
			continue
		}
		values, _ := cl.list(claim)
		for _, value := range values {
			a, err := vocab.CanonicalAddress(value)
			if err == nil && speaksFor(a) && !slices.Contains(out, a) {
				out = append(out, a)
			}
		}
	}
	return out
}

// groups returns the addresses of the caller's groups, sorted, and whether
// there may be more than the token says.
func groups(c candidate, t Tenant, cl claims, speaksFor func(string) bool) (out []string, incomplete bool) {
	name := c.trust.Claims.Groups
	if name == "" {
		return nil, false
	}
	ids, ok := cl.list(name)
	incomplete = !ok || overage(cl, name)
	for _, id := range ids {
		address, known := "", false
		if t.Group != nil {
			address, known = t.Group(c.name, id)
		}
		if !known && c.trust.Claims.GroupForm == GroupAddress {
			if a, err := vocab.CanonicalAddress(id); err == nil && speaksFor(a) {
				address, known = a, true
			}
		}
		if known {
			out = append(out, address)
		}
	}
	slices.Sort(out)
	return slices.Compact(out), incomplete
}

// overage reports whether the provider left groups out and said where to ask
// instead: distributed claims (OpenID Connect Core 1.0 §5.6.2) and Entra's
// hasgroups. We never ask: a URL in a token is not dialled.
func overage(cl claims, name string) bool {
	if cl.isTrue("hasgroups") {
		return true
	}
	if v, there := cl["_claim_names"]; there {
		m, ok := v.(map[string]any)
		if !ok {
			return true
		}
		_, elsewhere := m[name]
		return elsewhere
	}
	return false
}

// secondFactor reports whether the token proves one.
func secondFactor(cfg MFA, cl claims) bool {
	any := func(claim string, wanted []string) bool {
		values, _ := cl.list(claim)
		return slices.ContainsFunc(values, func(v string) bool { return slices.Contains(wanted, v) })
	}
	return any("acrs", cfg.ACRs) || any("acr", cfg.ACRs) || any("amr", cfg.AMRs)
}

func addressNotVerified(cause error) *vocab.Error {
	return vocab.Errorf(vocab.ReasonAddressNotVerified, "your identity provider does not vouch for an e-mail address that counts here").
		WithNext("Ask the administrator of your identity provider to verify your address").Because(cause)
}

// Certificate returns the service a client certificate stands for. chain is
// what the TLS handshake verified, leaf first; that it leads to a trusted
// authority and may be used by clients is the handshake's to check. The
// leaf's validity is checked again, since connections outlive certificates.
//
// Its error is CERTIFICATE_NOT_MAPPED.
func (v *Verifier) Certificate(t Tenant, chain []*x509.Certificate) (*vocab.Identity, error) {
	if len(chain) == 0 {
		return nil, certificateNotMapped(errors.New("no verified certificate"))
	}
	leaf := chain[0]
	if now := v.now(); now.Before(leaf.NotBefore) || now.After(leaf.NotAfter) {
		return nil, certificateNotMapped(fmt.Errorf("valid from %s to %s", leaf.NotBefore, leaf.NotAfter))
	}
	if leaf.IsCA {
		return nil, certificateNotMapped(errors.New("the certificate of an authority"))
	}
	var uris []string
	spiffe := false
	for _, u := range leaf.URIs {
		uris = append(uris, u.String())
		spiffe = spiffe || strings.EqualFold(u.Scheme, "spiffe")
	}
	if spiffe && len(uris) > 1 { // SPIFFE X509-SVID §2: exactly one URI
		return nil, certificateNotMapped(errors.New("a SPIFFE ID and further URI names"))
	}
	var names []string // services, and the name each goes by
	var by string
	for _, name := range sortedKeys(t.Services) {
		switch m := t.Services[name]; {
		case m.URI != "" && slices.Contains(uris, m.URI):
			names, by = append(names, name), m.URI
		case m.DNS != "" && slices.ContainsFunc(leaf.DNSNames, func(d string) bool { return strings.EqualFold(d, m.DNS) }):
			names, by = append(names, name), m.DNS
		}
	}
	switch len(names) {
	case 1:
		return &vocab.Identity{Issuer: "x509", Subject: by, Provider: "certificate", Service: names[0], Certificate: true}, nil
	case 0:
		return nil, certificateNotMapped(fmt.Errorf("no service of tenant %s has one of its names %q %q", t.Name, uris, leaf.DNSNames))
	}
	return nil, certificateNotMapped(fmt.Errorf("it is several services: %s", strings.Join(names, ", ")))
}

func certificateNotMapped(cause error) *vocab.Error {
	return vocab.Errorf(vocab.ReasonCertificateNotMapped, "your client certificate is not a service of this tenant").
		WithNext("Ask the operator to name it under services").Because(cause)
}
