package attack

import (
	"context"
	"crypto/ed25519"
	"path/filepath"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/keys/embedded"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/vocab"
	"github.com/openrms/rms/test/storeedit"
)

// forger signs. Its certificate says what it may sign: a stolen daemon key, or
// one that the attacker certified.
type forger struct {
	license.Signer
	cert *license.Certificate
	raw  []byte // instead of cert, if no honest code would make it
}

func (f *forger) certificate() []byte {
	if f.raw != nil {
		return f.raw
	}
	return f.cert.Raw()
}

// stolen is a forger with a key that the tenant's root itself certified, as if
// taken from a daemon's memory: what is refused here is refused by more than a
// signature. The site's custodian must be the keyring.
func (s *site) stolen(t *testing.T, tenant string, usage license.Usage) *forger {
	t.Helper()
	return certify(t, s.root(t, tenant), s.trust[tenant].TenantID, usage)
}

// root is the tenant's signing root, out of its keyring.
func (s *site) root(t *testing.T, tenant string) license.Signer {
	t.Helper()
	path := filepath.Join(s.Dir, "data", "keyring-"+tenant)
	ring, err := embedded.Open(embedded.Config{ID: vocab.NewCustodianID(), Path: path, KeyFile: path + ".key"})
	must(t, err)
	t.Cleanup(func() { _ = ring.Close() })
	root, err := keys.CurrentRoot(t.Context(), ring)
	must(t, err)
	return root
}

// ownRoot is a root that nobody pinned.
func ownRoot(t *testing.T) license.Signer {
	t.Helper()
	k, err := license.NewDaemonKey()
	must(t, err)
	return k
}

// certify makes a new key and a certificate for it, by any root.
func certify(t *testing.T, root license.Signer, tenant vocab.TenantID, usage license.Usage) *forger {
	t.Helper()
	k, err := license.NewDaemonKey()
	must(t, err)
	now := time.Now().UTC().Truncate(time.Millisecond)
	cert, err := license.IssueCertificate(t.Context(), root, license.Certificate{
		Tenant: tenant, IssuedAt: now, ID: vocab.NewCertID(), Subject: k.PublicKey(), Usage: usage,
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), Instance: "forger", Root: license.KeyIDOf(root.PublicKey()),
	})
	must(t, err)
	return &forger{Signer: k, cert: cert}
}

// header is the field map of a signed object or a record, values undecoded.
type header = storeedit.Fields

func deterministic(t *testing.T) cbor.EncMode { return storeedit.Deterministic(t) }

// kindOf says what a kind's envelopes name themselves.
var kindName = map[license.Kind]string{license.KindPL: "pl", license.KindUL: "ul", license.KindTemplate: "template", license.KindCertificate: "cert"}

// resign takes a signed object apart, lets edit change header and box, and
// signs the result with any key: an envelope that is right in form. It is
// written against the published format, not with the code under attack.
func resign(t *testing.T, raw []byte, kind license.Kind, signer license.Signer, edit func(h header, box *[]byte)) []byte {
	t.Helper()
	var cose struct {
		_           struct{} `cbor:",toarray"`
		Protected   []byte
		Unprotected map[int]any
		Payload     []byte
		Signature   []byte
	}
	must(t, cbor.Unmarshal(raw[1:], &cose)) // after the one byte of tag 18
	var parts [2][]byte
	must(t, cbor.Unmarshal(cose.Payload, &parts))
	h := header{}
	must(t, cbor.Unmarshal(parts[0], &h))
	if edit != nil {
		edit(h, &parts[1])
	}
	m := deterministic(t)
	enc := func(v any) []byte {
		b, err := m.Marshal(v)
		must(t, err)
		return b
	}
	protected := map[int]any{}
	must(t, cbor.Unmarshal(cose.Protected, &protected))
	id := license.KeyIDOf(signer.PublicKey())
	protected[4] = id[:]
	cose.Protected = enc(protected)
	cose.Payload = enc([][]byte{enc(h), parts[1]})
	toBeSigned := enc([]any{"Signature1", cose.Protected, []byte("rms/v1/" + kindName[kind]), cose.Payload})
	signature, err := signer.Sign(context.Background(), toBeSigned)
	must(t, err)
	if !ed25519.Verify(signer.PublicKey(), toBeSigned, signature) {
		t.Fatal("the signer does not sign")
	}
	return append([]byte{raw[0]}, enc([]any{cose.Protected, map[int]any{}, cose.Payload, signature})...)
}

// Fields of the formats, by their published numbers.
const (
	fieldTenant      = 2
	fieldCertificate = 4
	fieldContent     = 16
	fieldCommitment  = 17
	fieldSuite       = 18
	fieldBodySuite   = 20
	fieldGeneration  = 21
	fieldServiceHint = 0x8030
	fieldContactHint = 0x8031
	fieldDescriptor  = 0x8032
)

// forgePL is a publishing license resigned by a forger, whose certificate goes
// into it.
func (f *forger) forgePL(t *testing.T, d *document, edit func(h header, box *[]byte)) []byte {
	t.Helper()
	return resign(t, d.pl, license.KindPL, f, func(h header, box *[]byte) {
		h.Set(t, fieldCertificate, f.certificate())
		if edit != nil {
			edit(h, box)
		}
	})
}
