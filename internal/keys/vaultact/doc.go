// Package vaultact acts on a tenant's keys in Vault for the people who hold
// them: makes, imports and rotates keys, sets which versions may be used, and
// destroys. It acts with the person's own token; the service's login can do none
// of it.
//
// Vault is reached by the rules of internal/keys/vault, over its connection: the
// pinned cluster is recognised before a token is shown, nothing is taken from the
// environment, nothing is repeated. A request that changes something and is not
// answered may have been carried out; the error says so.
//
// What Vault does that this package is written around: it answers 200 to the
// making of a key that exists, whatever its type (keys are looked for before
// and compared after); it imports without a word about parameters it does not
// know (every key is read back, and refused unless it is what was asked for); it
// answers imports with nothing, not even a request ID (the reads before and after
// have theirs, and enclose it in Vault's audit log); its first rotation of an
// imported key forgets that it was imported and closes it to imports (that
// is done on request only, and what is known of an import is returned to be
// kept); it answers 500 where the request is wrong (the texts are told apart).
package vaultact
