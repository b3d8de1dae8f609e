package audit

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// Checkpoint says that a tenant's log had a size and a root hash at a time.
type Checkpoint struct {
	Tenant vocab.TenantID
	Size   uint64
	Root   [32]byte
	Time   time.Time // by the service's clock; UTC, milliseconds
}

// Signer signs checkpoints with an Ed25519 key that signs nothing else. Sign
// returns the 64-byte pure Ed25519 signature of exactly message; it may be
// called concurrently.
type Signer interface {
	PublicKey() ed25519.PublicKey
	Sign(ctx context.Context, message []byte) ([]byte, error)
}

// Origin returns the name of the tenant's log: the first line of its
// checkpoints, and the name of the keys that sign them.
func Origin(t vocab.TenantID) string { return "rms/" + t.String() }

// timeLine begins the line that holds the time, after the three that every
// checkpoint of a transparency log has.
const timeLine = "time "

// MaxNote is the size limit of a signed checkpoint, in bytes.
const MaxNote = 4 << 10

// Text returns the text that is signed: origin, size, root hash in base64, and
// the time, each on a line.
func (c Checkpoint) Text() string {
	return fmt.Sprintf("%s\n%d\n%s\n%s%d\n",
		Origin(c.Tenant), c.Size, base64.StdEncoding.EncodeToString(c.Root[:]), timeLine, millis(c.Time))
}

// Sign returns the checkpoint as a signed note (golang.org/x/mod/sumdb/note,
// c2sp.org/signed-note, c2sp.org/tlog-checkpoint).
func (c Checkpoint) Sign(ctx context.Context, s Signer) ([]byte, error) {
	v, err := Verifier(c.Tenant, s.PublicKey())
	if err != nil {
		return nil, err
	}
	signed, err := note.Sign(&note.Note{Text: c.Text()}, noteSigner{ctx, v, s})
	if err != nil {
		return nil, err
	}
	// Trust nobody with a signature, not even the signer: a bad one would be
	// noticed only when it is needed.
	if _, err := OpenCheckpoint(signed, c.Tenant, s.PublicKey()); err != nil {
		return nil, vocab.Errorf(vocab.ReasonCustodyIntegrity, "the checkpoint's signature is not valid").Because(err)
	}
	return signed, nil
}

// noteSigner lets note.Sign use a Signer.
type noteSigner struct {
	ctx context.Context
	note.Verifier
	s Signer
}

func (n noteSigner) Sign(msg []byte) ([]byte, error) { return n.s.Sign(n.ctx, msg) }

// Verifier returns what verifies notes of the tenant's log signed by the key.
func Verifier(t vocab.TenantID, pub ed25519.PublicKey) (note.Verifier, error) {
	vkey, err := note.NewEd25519VerifierKey(Origin(t), pub)
	if err != nil {
		return nil, vocab.Errorf(vocab.ReasonInternal, "a checkpoint key is not an Ed25519 key").Because(err)
	}
	return note.NewVerifier(vkey)
}

// OpenCheckpoint reads a signed checkpoint of the tenant's log that at least
// one of the keys signed. The error is LOG_DAMAGED.
func OpenCheckpoint(signed []byte, t vocab.TenantID, keys ...ed25519.PublicKey) (Checkpoint, error) {
	if len(signed) > MaxNote {
		return Checkpoint{}, notACheckpoint(errors.New("too large"))
	}
	var vs []note.Verifier
	for _, k := range keys {
		v, err := Verifier(t, k)
		if err != nil {
			return Checkpoint{}, err
		}
		vs = append(vs, v)
	}
	n, err := note.Open(signed, note.VerifierList(vs...))
	if err != nil {
		return Checkpoint{}, notACheckpoint(err)
	}
	return parseCheckpoint(n.Text, t)
}

// ReadCheckpoint reads a signed checkpoint of the tenant's log without
// verifying who signed it. The error is LOG_DAMAGED.
func ReadCheckpoint(signed []byte, t vocab.TenantID) (Checkpoint, error) {
	if len(signed) > MaxNote {
		return Checkpoint{}, notACheckpoint(errors.New("too large"))
	}
	_, err := note.Open(signed, note.VerifierList())
	unverified, ok := errors.AsType[*note.UnverifiedNoteError](err)
	if !ok {
		return Checkpoint{}, notACheckpoint(err)
	}
	return parseCheckpoint(unverified.Note.Text, t)
}

// parseCheckpoint accepts exactly what Text makes, and further lines.
func parseCheckpoint(text string, t vocab.TenantID) (Checkpoint, error) {
	lines := strings.SplitN(text, "\n", 5)
	if len(lines) != 5 {
		return Checkpoint{}, notACheckpoint(errors.New("lines are missing"))
	}
	c := Checkpoint{Tenant: t}
	size, err1 := strconv.ParseUint(lines[1], 10, 64)
	hash, err2 := base64.StdEncoding.Strict().DecodeString(lines[2])
	ms, err3 := strconv.ParseUint(strings.TrimPrefix(lines[3], timeLine), 10, 64)
	if err := errors.Join(err1, err2, err3); err != nil || len(hash) != 32 || size > maxSize || !validMillis(ms) {
		return Checkpoint{}, notACheckpoint(err)
	}
	c.Size, c.Root, c.Time = size, [32]byte(hash), fromMillis(ms)
	if !strings.HasPrefix(text, c.Text()) {
		return Checkpoint{}, notACheckpoint(errors.New("it is another log's, or not in canonical form"))
	}
	return c, nil
}

func notACheckpoint(cause error) *vocab.Error {
	return vocab.Errorf(vocab.ReasonLogDamaged, "this is not a signed checkpoint of this log").Because(cause)
}

// Checkpoint returns what the log is now, unsigned, with the time now.
func (l *Log) Checkpoint(ctx context.Context, t vocab.TenantID, now time.Time) (c Checkpoint, err error) {
	err = l.store.View(ctx, func(r store.Reader) error {
		c, err = CheckpointOf(r, t, now)
		return err
	})
	return c, err
}

// Continues reports, as LOG_DAMAGED, that the log is smaller than the
// checkpoint or is not a continuation of it. It reads O(log n) hashes and
// takes them as stored: [Log.Verify] looks at the events themselves.
func (l *Log) Continues(ctx context.Context, c Checkpoint) error {
	return l.store.View(ctx, func(r store.Reader) error {
		n, err := size(r, c.Tenant)
		if err != nil {
			return err
		}
		if n < c.Size {
			return damaged("it has %d events, but had %d at %s", n, c.Size, c.Time.Format(time.RFC3339))
		}
		h, err := root(r, c.Tenant, c.Size)
		if err != nil {
			return err
		}
		if !bytes.Equal(h[:], c.Root[:]) {
			return damaged("its first %d events are not those of the checkpoint of %s", c.Size, c.Time.Format(time.RFC3339))
		}
		return nil
	})
}
