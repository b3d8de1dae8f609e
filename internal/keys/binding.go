package keys

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"

	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/vocab"
)

// Sizes of what a custodian seals, in bytes: the secret, and its binding
// beside it, so that the binding holds even where a custodian ignores the
// context it is given (Vault does, for keys that are not derived).
const (
	BindingSize = 32
	PayloadSize = vocab.SecretSize + BindingSize
)

// Binding names the one generation a wrap may open as.
type Binding struct {
	Tenant     vocab.TenantID
	Generation vocab.GenerationID
	Scope      license.Scope
	// Content is the document of scope document, zero otherwise.
	Content vocab.ContentID
}

// TenantBinding is the binding of a tenant's generation.
func TenantBinding(t vocab.TenantID, g vocab.GenerationID) Binding {
	return Binding{Tenant: t, Generation: g, Scope: license.ScopeTenant}
}

// DocumentBinding is the binding of a document's own generation.
func DocumentBinding(t vocab.TenantID, g vocab.GenerationID, c vocab.ContentID) Binding {
	return Binding{Tenant: t, Generation: g, Scope: license.ScopeDocument, Content: c}
}

// Sum is the 32-byte value a custodian gets as context and seals beside the
// secret. It holds no name and no version of the tenant key, so rotation and
// a move to another custodian keep it.
func (b Binding) Sum() [BindingSize]byte {
	return license.GenerationBinding(b.Tenant, b.Generation, b.Scope, b.Content)
}

// Commitment is what a signed generation record says about its secret.
func (b Binding) Commitment(secret *vocab.Secret) [32]byte {
	return license.GenerationCommitment(secret, b.Tenant, b.Generation, b.Scope, b.Content)
}

// Payload returns the 64 bytes a custodian seals. The caller clears them.
func (b Binding) Payload(secret *vocab.Secret) []byte {
	sum := b.Sum()
	return append(append(make([]byte, 0, PayloadSize), secret.Reveal()...), sum[:]...)
}

// OpenPayload takes the secret out of what a custodian unsealed, if it is
// bound to b: exactly 64 bytes whose second half is the binding, compared in
// constant time. It clears payload. Errors are CUSTODY_INTEGRITY.
func (b Binding) OpenPayload(payload []byte) (*vocab.Secret, error) {
	defer clear(payload)
	if len(payload) != PayloadSize {
		return nil, integrity(fmt.Errorf("unwrapped %d bytes, want %d", len(payload), PayloadSize))
	}
	sum := b.Sum()
	if subtle.ConstantTimeCompare(payload[vocab.SecretSize:], sum[:]) != 1 {
		return nil, integrity(fmt.Errorf("unwrapped key of another binding than generation %s", b.Generation))
	}
	return vocab.SecretFrom(payload[:vocab.SecretSize]), nil
}

// Unwrap asks c to open one wrap and checks the result against the commitment
// of the generation record. Scope document has no record: pass a nil
// commitment, the content key's own commitment decides (formats §2.5).
func Unwrap(ctx context.Context, c Custodian, item UnwrapItem, commitment *[32]byte) (*vocab.Secret, string, error) {
	rs, err := c.Unwrap(ctx, []UnwrapItem{item})
	if err != nil {
		return nil, "", err
	}
	if len(rs) != 1 {
		for _, r := range rs {
			r.Secret.Zero()
		}
		return nil, "", integrity(fmt.Errorf("asked for 1 key, got %d", len(rs)))
	}
	r := rs[0]
	if r.Err == nil {
		r.Err = checkSecret(item.Binding, r.Secret, commitment)
	}
	if r.Err != nil {
		r.Secret.Zero()
		return nil, r.RequestID, r.Err
	}
	return r.Secret, r.RequestID, nil
}

// checkSecret enforces that scopes with a record are checked against it.
func checkSecret(b Binding, s *vocab.Secret, commitment *[32]byte) error {
	if s == nil {
		return integrity(errors.New("neither key nor error"))
	}
	if b.Scope == license.ScopeDocument && commitment == nil {
		return nil
	}
	if commitment == nil {
		return integrity(fmt.Errorf("generation %s has no commitment to check against", b.Generation))
	}
	got := b.Commitment(s)
	if subtle.ConstantTimeCompare(got[:], commitment[:]) != 1 {
		return integrity(fmt.Errorf("unwrapped key of generation %s does not match its commitment", b.Generation))
	}
	return nil
}
