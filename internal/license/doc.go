// Package license makes, reads and verifies the signed objects of the service:
// publishing licenses (PL), use licenses (UL), signing certificates, trust
// bundles, generation records and template revisions, and the boxes that hold
// content keys. docs/formats.md describes every byte.
//
// Three rules shape the package. Whatever is signed is verified over the bytes
// as they came, and only the one deterministic encoding is read. Everything
// sealed is bound to everything that gives it meaning, by derivation or
// associated data. And what Parse functions return is unverified: nothing
// gives out a content key for it until a [Verifier] has vouched for it.
//
// Errors are [*vocab.Error]: LICENSE_MALFORMED for bytes that are not the
// format, LICENSE_FORMAT_NEWER for a critical field this version does not
// know, SUITE_UNSUPPORTED for what is reserved, LICENSE_SIGNATURE and
// TRUST_ROOT_MISMATCH for what nobody trusted vouches for, and
// USE_LICENSE_REJECTED for a use license that is not for this recipient,
// document or time.
//
// All times are UTC with millisecond precision. All functions are safe for
// concurrent use; values are not changed after they are returned.
package license
