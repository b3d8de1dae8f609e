// Package byok reads the keys that custody teams bring, shows check values of
// them, and wraps them for Vault's import, so that neither this service nor the
// wire ever sees one. It does no input or output of its own.
//
// A tenant's root key is AES-256 and nothing else. It comes as
//
//   - 32 bytes, or their hexadecimal or base64 text;
//   - a JSON Web Key of type oct (RFC 7517), or a set with exactly one;
//   - what an HSM makes with PKCS#11's CKM_RSA_AES_KEY_WRAP under Vault's own
//     wrapping key: 512 bytes of RSA-OAEP and 40 bytes of AES-KWP, raw or as text;
//   - the same in an Azure key transfer file (.byok, schema 1.0.0).
//
// Lengths tell text apart: hexadecimal of a key has 64 digits, which as base64
// would be 48 bytes, and no key has those; base64 of a key has 43 or 44
// characters, which as hexadecimal would be 21 or 22 bytes. What was recognised
// is part of the result and is shown to whoever brings the key. Everything else
// is refused by what it is, with what to do about it.
package byok
