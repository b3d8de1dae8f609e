package license

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"testing"
	"time"

	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/vocab"
)

// now is when everything in these tests happens.
var now = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// testSecret returns a secret of 32 equal bytes: a test value.
func testSecret(b byte) *vocab.Secret { return vocab.SecretFrom(bytes.Repeat([]byte{b}, 32)) }

func id[K any](t testing.TB, s string) vocab.ID[K] {
	t.Helper()
	v, err := vocab.ParseID[K](s)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// world is one tenant with one of everything. All keys are test values.
type world struct {
	tenant     vocab.TenantID
	content    vocab.ContentID
	generation vocab.GenerationID
	root       *DaemonKey
	daemon     *DaemonKey
	secret, ck *vocab.Secret
	policy     *policy.Policy
	template   *policy.Template

	cert     *Certificate
	bundle   *Bundle
	pl       *PublishingLicense
	verifier *Verifier
}

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{
		root: DaemonKeyFromSeed(testSecret(0x11)), daemon: DaemonKeyFromSeed(testSecret(0x22)),
		secret: testSecret(0x33), ck: testSecret(0x44),
	}
	w.tenant = parse(t, "0a0a0a0a-0a0a-4a0a-8a0a-0a0a0a0a0a0a", w.tenant)
	w.content = parse(t, "019a8c1e-77f1-7a31-8c1e-0123456789ab", w.content)
	w.generation = parse(t, "0b0b0b0b-0b0b-4b0b-8b0b-0b0b0b0b0b0b", w.generation)
	w.policy = &policy.Policy{
		Owner:  vocab.Principal{Kind: vocab.KindUser, Value: "alice@contoso.com"},
		Issuer: policy.Issuer{Issuer: "https://idp.contoso.com", Subject: "alice", Address: "alice@contoso.com"},
		AdHoc: &policy.AdHoc{Kind: policy.AdHocGrants, Offline: policy.OfflineMax, Grants: []policy.Grant{{
			To:     vocab.Principal{Kind: vocab.KindUser, Value: "bob@contoso.com"},
			Rights: vocab.RightsOf(vocab.RightView, vocab.RightPrint), Until: now.Add(24 * time.Hour), Login: policy.LoginMFA,
			Networks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::/32")},
		}, {To: vocab.Principal{Kind: vocab.KindAnyone}, Rights: vocab.RightsOf(vocab.RightView)}}},
		NotAfter: now.Add(365 * 24 * time.Hour),
		Parents:  []vocab.ContentID{parse(t, "019a8c1e-0000-7a31-8c1e-0123456789ab", w.content)},
		AppData:  []byte("app"),
	}
	w.template = &policy.Template{
		Slug: "board-secret", Revision: 7, Names: map[string]string{"en": "Board – secret", "de": "Vorstand – geheim"},
		Descriptions: map[string]string{"en": "For the board"}, State: policy.StatePublished,
		Grants: w.policy.AdHoc.Grants, Expiry: policy.Expiry{Kind: policy.ExpiryAfter, After: 365 * policy.Day},
		Offline: time.Hour, Select: []vocab.Principal{{Kind: vocab.KindGroup, Value: "board@contoso.com"}, {Kind: vocab.KindTenant, Value: "contoso"}},
		Contact: "cosec@contoso.com", Custody: vocab.CustodyStrict, Author: "carol@contoso.com", Comment: "longer life", Time: now,
	}
	w.template.UID = parse(t, "0c0c0c0c-0c0c-4c0c-8c0c-0c0c0c0c0c0c", w.template.UID)
	w.cert = must[*Certificate](t)(IssueCertificate(t.Context(), w.root, w.certificate(t)))
	w.bundle = must[*Bundle](t)(SignBundle(t.Context(), w.bundleFields(), w.root))
	w.verifier = must[*Verifier](t)(NewVerifier(w.bundle.Raw(), w.tenant, []KeyID{KeyIDOf(w.root.PublicKey())}, 0))
	w.pl = must[*PublishingLicense](t)(MakePL(t.Context(), w.daemon, w.cert, w.plInput(), w.secret, w.ck, w.policy))
	return w
}

func parse[K any](t testing.TB, s string, _ vocab.ID[K]) vocab.ID[K] { return id[K](t, s) }

func (w *world) certificate(t testing.TB) Certificate {
	c := Certificate{
		Tenant: w.tenant, IssuedAt: now.Add(-time.Hour), Subject: w.daemon.PublicKey(), Usage: UsagePL | UsageUL | UsageTemplate,
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(23 * time.Hour), Instance: "test value",
	}
	c.ID = parse(t, "0d0d0d0d-0d0d-4d0d-8d0d-0d0d0d0d0d0d", c.ID)
	return c
}

func (w *world) bundleFields() Bundle {
	return Bundle{
		Tenant: w.tenant, IssuedAt: now.Add(-time.Hour), Seq: 5, NextUpdate: now.Add(7 * 24 * time.Hour),
		Roots:  []Root{{Key: w.root.PublicKey(), Version: 1, State: RootCurrent}},
		Suites: Suites{Content: 1, Body: 1, KEMs: []KEM{XWing, X25519}},
	}
}

func (w *world) plInput() PLInput {
	return PLInput{IssuedAt: now, Content: w.content, Generation: w.generation, ContactHint: "cosec@contoso.com"}
}

func (w *world) archiveFields() Archive {
	id := vocab.ArchiveID{15: 1, 6: 0x70, 8: 0x80}
	return Archive{
		Tenant: w.tenant, IssuedAt: now, ID: id, Recipient: [32]byte{1}, Before: [32]byte{2}, LogSize: 3, LogRoot: [32]byte{4},
		Tables: []ArchiveTable{{Number: 1, Rows: 2, Hash: [32]byte{5}}, {Number: 2, Rows: 1, Hash: [32]byte{6}}},
	}
}

func (w *world) generationFields() Generation {
	return Generation{
		Tenant: w.tenant, IssuedAt: now, ID: w.generation, Scope: ScopeTenant, UsableFrom: now,
		Commitment: GenerationCommitment(w.secret, w.tenant, w.generation, ScopeTenant, [16]byte{}),
	}
}

var bob = canon.PrincipalID("https://idp.contoso.com", "bob")

func (w *world) useFields(t testing.TB) UseLicense {
	u := UseLicense{
		IssuedAt: now, Content: w.content, Commitment: w.pl.Commitment, ContentSuite: 1,
		Rights: vocab.RightsOf(vocab.RightView, vocab.RightPrint), ApplicationRights: []string{"APPROVE"},
		NotBefore: now, NotAfter: now.Add(time.Hour), Cache: CacheStore, MaxStaleness: time.Minute, ContentNotAfter: w.policy.NotAfter,
		Policy: PolicyRef{Revision: 1}, Custody: Custody{vocab.CustodyCached, 5 * time.Minute}, Leaf: canon.Hash([]byte("leaf")),
	}
	u.ID = parse(t, "019a8c1e-77f2-7000-8000-0123456789ab", u.ID)
	return u
}

// recipient returns a key for kem with a fixed test seed, and its public side.
func recipient(t testing.TB, kem KEM) (*RecipientKey, *Recipient) {
	t.Helper()
	k := must[*RecipientKey](t)(RecipientKeyFrom(kem, testSecret(0x55)))
	return k, must[*Recipient](t)(ParseRecipient(kem, k.Public(), []KEM{XWing, X25519}))
}

func (w *world) expect(k *RecipientKey) Expect {
	return Expect{Principal: bob, Recipient: k.Hash(), Content: w.content, Commitment: w.pl.Commitment, ContentSuite: 1, Now: now.Add(time.Minute)}
}

func (w *world) wrap() *Wrap {
	return &Wrap{Custodian: vocab.CustodianID{1}, L0Type: L0AES, L0Version: 3, Ciphertext: bytes.Repeat([]byte{7}, 92)}
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
