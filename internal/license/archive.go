package license

import (
	"context"
	"slices"
	"time"

	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/vocab"
)

// maxArchiveTables bounds how many tables an archive has.
const maxArchiveTables = 64

// Archive is the end of an archive of a tenant: what came before it, by its
// hashes, signed by the tenant's root itself. Without it an archive is none.
type Archive struct {
	Tenant   vocab.TenantID
	IssuedAt time.Time
	ID       vocab.ArchiveID
	// Recipient is H(KEM ‖ public key) of the key it is sealed to.
	Recipient [32]byte
	// Before is SHA-256 of the file up to the frame that holds this.
	Before [32]byte
	// LogSize and LogRoot are those of the log in it.
	LogSize uint64
	LogRoot [32]byte
	// Tables are what is in it, in the order of the file.
	Tables []ArchiveTable

	envelope *Envelope
}

// ArchiveTable says of one table of an archive how much of it there is.
type ArchiveTable struct {
	Number uint64   `cbor:"1,keyasint"`
	Rows   uint64   `cbor:"2,keyasint"`
	Hash   [32]byte `cbor:"3,keyasint"`
}

type archiveHeader struct {
	common
	Recipient [32]byte        `cbor:"131,keyasint"`
	ID        vocab.ArchiveID `cbor:"208,keyasint"`
	Before    [32]byte        `cbor:"209,keyasint"`
	LogSize   uint64          `cbor:"210,keyasint"`
	LogRoot   [32]byte        `cbor:"211,keyasint"`
	Tables    []ArchiveTable  `cbor:"212,keyasint"`
}

// Raw returns the signed bytes. The caller must not change them.
func (a *Archive) Raw() []byte { return a.envelope.raw }

// Signer is the key ID of the root that signed it.
func (a *Archive) Signer() KeyID { return a.envelope.Signers[0] }

// SignArchive signs the end of an archive with the tenant's root: one call of
// the custodian, and checks the signature it got (CUSTODY_INTEGRITY).
func SignArchive(ctx context.Context, root Signer, a Archive) (*Archive, error) {
	head, err := newCommon(KindArchive, a.Tenant, a.IssuedAt)
	if err != nil {
		return nil, err
	}
	h := archiveHeader{
		common: head, Recipient: a.Recipient, ID: a.ID, Before: a.Before, LogSize: a.LogSize, LogRoot: a.LogRoot, Tables: a.Tables,
	}
	if err := h.check(); err != nil {
		return nil, err
	}
	b, err := encodeHeader(KindArchive, h)
	if err != nil {
		return nil, err
	}
	e, err := seal(ctx, KindArchive, b, nil, root)
	if err != nil {
		return nil, err
	}
	if err := e.verify(root.PublicKey()); err != nil {
		return nil, rootSignature(err)
	}
	return ParseArchive(e.raw)
}

// ParseArchive reads the end of an archive and verifies nothing.
func ParseArchive(b []byte) (*Archive, error) {
	var h archiveHeader
	e, err := open(b, KindArchive, &h, &h.common)
	if err != nil {
		return nil, err
	}
	if err := h.check(); err != nil {
		return nil, err
	}
	return &Archive{
		Tenant: h.Tenant, IssuedAt: h.issued(), ID: h.ID, Recipient: h.Recipient, Before: h.Before,
		LogSize: h.LogSize, LogRoot: h.LogRoot, Tables: h.Tables, envelope: e,
	}, nil
}

func (h *archiveHeader) check() error {
	const what = "archive of a tenant"
	byNumber := func(a, b ArchiveTable) int { return int(int64(a.Number) - int64(b.Number)) }
	switch {
	case h.ID.Version() != 7:
		return malformed(what, "no ID")
	case h.LogSize == 0:
		return malformed(what, "no log")
	case len(h.Tables) == 0 || len(h.Tables) > maxArchiveTables:
		return malformed(what, "%d tables", len(h.Tables))
	case !sortedUnique(h.Tables, byNumber):
		return malformed(what, "tables out of order")
	}
	for _, t := range h.Tables {
		if t.Number == 0 || t.Number > 1<<16 || t.Rows == 0 {
			return malformed(what, "table %d of %d rows", t.Number, t.Rows)
		}
	}
	return nil
}

// Verify reports whether the current root of a verified bundle signed it. A
// failure is LICENSE_SIGNATURE, or TRUST_ROOT_MISMATCH if another root did.
func (a *Archive) Verify(b *Bundle) error {
	i := slices.IndexFunc(b.Roots, func(r Root) bool { return r.State == RootCurrent })
	if a.Tenant != b.Tenant || i < 0 || b.Roots[i].ID() != a.Signer() {
		return untrusted("another root than the tenant's current one signed the archive")
	}
	return a.envelope.verify(b.Roots[i].Key)
}

// Labels of an archive's key agreement.
const (
	labelArchive       = "rms/v1/archive"
	contextFrames      = "rms/v1/archive-frames"
	contextGenerations = "rms/v1/archive-generation"
	fieldArchive       = 208
)

func archiveInfo(t vocab.TenantID, id vocab.ArchiveID, kem KEM, recipient [32]byte) []byte {
	return canon.D(labelArchive, canon.Fields{fieldTenant: t, fieldKEM: uint16(kem), fieldRecipient: recipient[:], fieldArchive: id})
}

// ArchiveKeys are the keys of one archive, all out of one key agreement.
type ArchiveKeys struct {
	tenant vocab.TenantID
	export func(context string, length int) ([]byte, error)
}

// NewArchiveKeys makes the key agreement of a new archive with its recipient,
// and returns the encapsulated key that stands in the archive.
func NewArchiveKeys(r *Recipient, t vocab.TenantID, id vocab.ArchiveID) (*ArchiveKeys, []byte, error) {
	if t.IsZero() || id.IsZero() {
		return nil, nil, misuse("an archive without tenant or ID")
	}
	enc, sender, err := newSender(r, archiveInfo(t, id, r.kem, r.id))
	if err != nil {
		return nil, nil, err
	}
	return &ArchiveKeys{t, sender.Export}, enc, nil
}

// ArchiveKeys returns the keys of an archive that was sealed to this key. That
// it is the right one shows when the first frame opens.
func (k *RecipientKey) ArchiveKeys(enc []byte, t vocab.TenantID, id vocab.ArchiveID) (*ArchiveKeys, error) {
	if _, size := k.kem.sizes(); len(enc) != size {
		return nil, malformed("archive of a tenant", "an encapsulated key of %d bytes", len(enc))
	}
	r, err := newReceiver(k, enc, archiveInfo(t, id, k.kem, k.Hash()))
	if err != nil {
		return nil, malformed("archive of a tenant", "its key agreement is not valid").Because(err)
	}
	return &ArchiveKeys{t, r.Export}, nil
}

// Frames returns the key of the frames. The caller zeroes it.
func (k *ArchiveKeys) Frames() (*vocab.Secret, error) { return k.secret(contextFrames) }

func (k *ArchiveKeys) secret(context string) (*vocab.Secret, error) {
	s, err := exported(k.export(context, vocab.SecretSize))
	if err != nil {
		return nil, misuse("HPKE export: %v", err)
	}
	return s, nil
}

// generation is the key of one generation's secret. It exists for one binding:
// tenant, generation, scope and document.
func (k *ArchiveKeys) generation(g vocab.GenerationID, s Scope, scopeID [16]byte) (*vocab.Secret, error) {
	b := GenerationBinding(k.tenant, g, s, scopeID)
	return k.secret(contextGenerations + "\x00" + string(b[:]))
}

// SealGeneration seals the secret of a generation: 60 bytes.
func (k *ArchiveKeys) SealGeneration(secret *vocab.Secret, g vocab.GenerationID, s Scope, scopeID [16]byte) ([]byte, error) {
	key, err := k.generation(g, s, scopeID)
	if err != nil {
		return nil, err
	}
	defer key.Zero()
	return canon.Seal(key, nil, secret.Reveal()), nil
}

// OpenGeneration opens what [ArchiveKeys.SealGeneration] sealed. The caller
// zeroes the secret, and checks it against its commitment.
func (k *ArchiveKeys) OpenGeneration(box []byte, g vocab.GenerationID, s Scope, scopeID [16]byte) (*vocab.Secret, error) {
	key, err := k.generation(g, s, scopeID)
	if err != nil {
		return nil, err
	}
	defer key.Zero()
	plain, err := canon.Open(key, nil, box)
	if err != nil {
		return nil, malformed("archive of a tenant", "the key of generation %s does not open", g)
	}
	defer clear(plain)
	secret := vocab.SecretFrom(plain)
	if secret == nil {
		return nil, malformed("archive of a tenant", "the key of generation %s has %d bytes", g, len(plain))
	}
	return secret, nil
}
