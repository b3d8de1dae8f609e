package vocab

import "time"

// Identity is who is calling, as one identity provider or one client
// certificate vouches for it. Everything in it has been verified and cut down
// to what that provider may speak for; nothing in it comes from a header or
// field the caller could choose.
type Identity struct {
	// Issuer and Subject together are the identity. For a token they are
	// its iss and sub; for a client certificate Issuer is "x509" and
	// Subject the certificate's URI or DNS name.
	Issuer, Subject string
	// Provider is the name of the identity provider in the operator's
	// file, for people to read.
	Provider string
	// Addresses are the verified e-mail addresses, canonical, the primary
	// one first. They match grants; they are not the identity.
	Addresses []string
	// Groups are the addresses of the groups the caller is in, canonical.
	Groups []string
	// GroupsIncomplete says the provider did not send all groups
	// ("overage"): the caller may be in more, so a refusal says so and
	// nothing is ever concluded from the absence of a group.
	GroupsIncomplete bool
	// Member is the name of the tenant the caller belongs to; empty for
	// guests. tenant: grants match it.
	Member string
	// Service is the name of the service, if the caller is one.
	Service string
	// IssuedAt is when the token was issued; zero for certificates.
	IssuedAt time.Time
	// MFA says the provider vouches for a second factor.
	MFA bool
	// Peer is the network address of the connection, without port. It is
	// the transport's, never a forwarded header's.
	Peer string
	// Certificate says the connection itself is authenticated by a client
	// certificate of this identity.
	Certificate bool
	// Actor is the service that calls on behalf of this identity, if one
	// does; both are recorded.
	Actor *Identity
}

// Name returns the identity as a person would name it: the primary address,
// the service name, or issuer and subject.
func (i *Identity) Name() string {
	switch {
	case i == nil:
		return "unknown"
	case i.Service != "":
		return "service:" + i.Service
	case len(i.Addresses) > 0:
		return i.Addresses[0]
	}
	return i.Issuer + "#" + i.Subject
}
