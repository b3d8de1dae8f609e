// Package audit keeps what happened: per tenant one append-only log whose
// entries are the leaves of a Merkle tree as in RFC 6962, so that nobody,
// the operator included, can change, drop or insert an event without every
// later checkpoint telling.
//
// An event is appended inside the transaction that does what it tells of:
// both are durable or neither is. Its canonical bytes hold no position, so the
// hash of its leaf is known before it is appended and can be handed out as a
// receipt.
//
// Checkpoints are signed notes over the size and the root hash. The newest one
// is kept in a file outside the store; a store older than that file is refused.
//
// docs/audit.md gives every byte for readers of other languages.
package audit

import "github.com/openrms/rms/internal/vocab"

// damaged is the answer to a log that contradicts itself or a checkpoint. The
// message names the place; it holds no content of events.
func damaged(format string, args ...any) *vocab.Error {
	return vocab.Errorf(vocab.ReasonLogDamaged, "the audit log is damaged: "+format, args...).
		WithNext("Stop the service, copy the store aside, run fsck, and find out who or what changed it before restoring a backup")
}
