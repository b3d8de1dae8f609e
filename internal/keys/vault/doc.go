// Package vault is the custodian on HashiCorp Vault's transit engine: the
// tenant's keys stay in the customer's Vault, and the customer's refusal there
// is final here.
//
// It is the only package that imports the Vault client. One [Connection] serves
// one tenant through one mount with one login, so that no mistake in this
// process reaches another tenant's keys. Each [Key] on it speaks only to exact
// paths: MOUNT/encrypt, decrypt and rewrap of its root key, MOUNT/sign of its
// signing key, and MOUNT/keys of both for reading. The policies in deploy/vault
// grant no more.
//
// What Vault does that this package is written around: it answers 200 and
// warns where it ignored a parameter (a warning is an error here); it ignores
// the context of a key that is not derived (the binding is sealed beside the
// secret, and such keys are refused); it answers 400 with results, or 200 with
// errors inside, to batches (every item is looked at, whatever the status); it
// answers 500 to some bad input (nothing is retried); it reads the environment
// (nothing here does).
package vault
