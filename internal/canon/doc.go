// Package canon holds the primitives every stored and signed object is built
// from: deterministic CBOR (RFC 8949 §4.2.1) in one strict dialect, the
// domain-separated derivation input D, SHA-256, HKDF-SHA256 and AES-256-GCM
// boxes with random nonces.
//
// One value has one encoding, and only that encoding is read. Two objects are
// therefore equal exactly when their bytes are, which is what lets hashes,
// signatures and associated data speak about meaning.
//
// docs/formats.md describes the dialect for readers of other languages. All
// functions are safe for concurrent use.
package canon
