// Package vocab holds the words every other package speaks: identifiers, usage
// rights, principals, the identity of a caller, secrets and the reasons for a
// refusal. It imports nothing else of this module and does no I/O.
//
// The words are those of docs/terms.md: one word for one thing in proto, Go,
// command line and documentation.
package vocab
