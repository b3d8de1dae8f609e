// Package identity turns what a caller presents, a token of an OpenID
// provider or a client certificate, into a [vocab.Identity].
//
// Nothing is believed because it is in a token. A tenant names the providers
// it trusts; a provider may speak only for the e-mail domains the operator
// wrote down; keys come only from the provider's own discovery document; the
// signature algorithm belongs to the key. A token that is not understood in
// full is refused.
//
// The rules are those of OpenID Connect Core 1.0 §3.1.3.7, RFC 9068 (JWT
// access tokens), RFC 8725 (JWT best current practice) and RFC 8705 (tokens
// bound to a certificate), made stricter where they leave a choice.
package identity
