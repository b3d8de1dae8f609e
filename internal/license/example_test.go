package license_test

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/vocab"
)

// One document from publishing to opening, both sides in one place.
func Example() {
	ctx, now := context.Background(), time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	var (
		tenant     vocab.TenantID
		content    vocab.ContentID
		generation vocab.GenerationID
		decision   vocab.EventID
	)
	copy(tenant[:], bytes.Repeat([]byte{1}, 16)) // test values
	copy(generation[:], bytes.Repeat([]byte{2}, 16))
	newOrdered(&content)
	newOrdered(&decision)

	// The tenant's root certifies a daemon's key and signs the trust bundle.
	root, _ := license.NewDaemonKey() // in the custodian, really
	daemon, _ := license.NewDaemonKey()
	cert, _ := license.IssueCertificate(ctx, root, license.Certificate{
		Tenant: tenant, IssuedAt: now, Subject: daemon.PublicKey(), Usage: license.UsagePL | license.UsageUL,
		NotBefore: now, NotAfter: now.Add(24 * time.Hour),
	})
	bundle, _ := license.SignBundle(ctx, license.Bundle{
		Tenant: tenant, IssuedAt: now, Seq: 1, NextUpdate: now.Add(7 * 24 * time.Hour), Suites: license.DefaultSuites(),
		Roots: []license.Root{{Key: root.PublicKey(), Version: 1, State: license.RootCurrent}},
	}, root)

	// The server publishes.
	secret, ck := vocab.NewSecret(), vocab.NewSecret()
	alice := vocab.Principal{Kind: vocab.KindUser, Value: "alice@contoso.com"}
	pol := &policy.Policy{
		Owner: alice, Issuer: policy.Issuer{Issuer: "https://idp.contoso.com", Subject: "alice"},
		AdHoc: &policy.AdHoc{Kind: policy.AdHocGrants},
	}
	pl, _ := license.MakePL(ctx, daemon, cert, license.PLInput{IssuedAt: now, Content: content, Generation: generation}, secret, ck, pol)
	encoded, _ := license.EncodePolicy(pol)
	box, _ := pl.KeyBox(license.PolicyHash(encoded)).Seal(secret, ck) // goes into the record

	// A client that pinned the root asks to open it.
	v, _ := license.NewVerifier(bundle.Raw(), tenant, []license.KeyID{license.KeyIDOf(root.PublicKey())}, 0)
	verified, _ := v.VerifyPL(pl.Raw())
	key, _ := license.NewRecipientKey(license.XWing)

	// The server delivers.
	me := canon.PrincipalID("https://idp.contoso.com", "alice")
	released, _ := pl.KeyBox(license.PolicyHash(encoded)).Open(secret, box)
	recipient, _ := license.ParseRecipient(key.KEM(), key.Public(), v.Bundle().Suites.KEMs)
	delivery, _ := license.NewDelivery(recipient, tenant, me)
	sent, _ := delivery.UseLicense(ctx, daemon, cert, license.UseLicense{
		ID: decision, IssuedAt: now, Content: content, Commitment: pl.Commitment, ContentSuite: pl.ContentSuite,
		Rights: vocab.AllRights, NotBefore: now, NotAfter: now.Add(time.Hour),
		Policy: license.PolicyRef{Revision: 1}, Custody: license.Custody{Mode: vocab.CustodyCached, Delay: 5 * time.Minute},
	}, released)

	// And the client opens.
	ul, _ := v.VerifyUL(sent.Raw(), cert.Raw(), license.Expect{
		Principal: me, Recipient: key.Hash(), Content: verified.Content, Commitment: verified.Commitment,
		ContentSuite: verified.ContentSuite, Now: now,
	})
	got, err := key.OpenUL(delivery.Enc(), ul)
	fmt.Println(got.Equal(ck), err)
	// Output: true <nil>
}

func newOrdered[K any](id *vocab.ID[K]) { *id = vocab.NewOrdered[K]() }
