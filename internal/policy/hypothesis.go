package policy

import (
	"slices"
	"time"

	"github.com/openrms/rms/internal/vocab"
)

// Supposed is a caller who did not sign in: what a decision would be asked for,
// and not more than can be known of them.
type Supposed struct {
	// Who is a user or a service.
	Who vocab.Principal
	// Groups are the addresses of the groups an identity provider would vouch
	// for, canonical.
	Groups []string
	// MFA supposes a second factor.
	MFA bool
	// Peer is the network address of the connection; "" is in no network.
	Peer string
}

// Identity returns the supposed caller as one of the tenant's: a user is a
// member if the address is of one of its domains. The error is
// REQUEST_INVALID.
func (s Supposed) Identity(tenant string, domains []string) (*vocab.Identity, error) {
	if !ownable(s.Who) {
		return nil, invalid("%s cannot sign in: name a user or a service", s.Who)
	}
	id := &vocab.Identity{Groups: s.Groups, MFA: s.MFA, Peer: s.Peer}
	if s.Who.Kind == vocab.KindService {
		id.Service = s.Who.Value
		return id, nil
	}
	id.Addresses = []string{s.Who.Value}
	if slices.Contains(domains, vocab.DomainOf(s.Who.Value)) {
		id.Member = tenant
	}
	return id, nil
}

// Following is the question about a document that somebody else protects with a
// template at an instant, as far as the template answers it.
func Following(t *CompiledTemplate, caller *vocab.Identity, at time.Time, s Settings) Input {
	return Input{
		Policy: &Policy{Template: t.UID, NotAfter: t.Expiry.NotAfter(at)}, Template: t, Caller: caller, Now: at,
		Settings: s, Custody: vocab.CustodyCached,
	}
}

// SupposeIssuer makes a supposed user the issuer of a license that was
// protected under the user's address, and reports whether it did. Issuers are
// compared by identity, which nobody has who did not sign in; decisions never
// go by the address.
func SupposeIssuer(id *vocab.Identity, p *Policy) bool {
	if p == nil || id.Issuer != "" || p.Issuer.Address == "" || !slices.Contains(id.Addresses, p.Issuer.Address) {
		return false
	}
	id.Issuer, id.Subject = p.Issuer.Issuer, p.Issuer.Subject
	return true
}
