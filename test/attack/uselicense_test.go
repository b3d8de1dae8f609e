package attack

import (
	"bytes"
	"sync/atomic"
	"testing"
	"time"

	rms "github.com/openrms/rms"
	"github.com/openrms/rms/internal/daemon/daemontest"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// Fields of a use license and of a certificate.
const (
	fieldPrincipal    = 129
	fieldRights       = 133
	fieldNotAfter     = 136
	fieldCertID       = 145
	fieldCertNotAfter = 100
)

// TestUseLicenseMatrix stands between an honest client and the daemon with a
// certificate the client accepts, and changes or exchanges what the daemon
// answers, up to signing it with a key the root certified. The client must
// refuse whatever is not for its own person, key, document and time, and not a
// byte of content comes out.
func TestUseLicenseMatrix(t *testing.T) {
	s := newSite(t, nil)
	view := rmsv1.Right_RIGHT_VIEW
	content := bytes.Repeat([]byte("TEST content "), 1000)
	toBoth := []*rmsv1.Grant{grant("user:bob@contoso.test", view), grant("user:erin@contoso.test", view)}
	file, _ := s.protect(t, "alice", content, rms.ProtectOptions{}, toBoth...)
	otherFile, _ := s.protect(t, "alice", []byte("TEST other"), rms.ProtectOptions{}, toBoth...)
	doc, other := licenseIn(t, file), licenseIn(t, otherFile)
	bob, erin := s.person("bob"), s.person("erin")
	root := s.root(t, contoso)
	stolen := s.stolen(t, contoso, license.UsageUL)
	mine := certify(t, ownRoot(t), s.trust[contoso].TenantID, license.UsageUL)
	byName := func(d *document) *rmsv1.AcquireRequest_PublishingLicense {
		return &rmsv1.AcquireRequest_PublishingLicense{PublishingLicense: d.pl}
	}
	// A certificate that the root signed although it should not have.
	certified := func(t *testing.T, edit func(h header)) *forger {
		f := certify(t, root, s.trust[contoso].TenantID, license.UsageUL)
		raw := resign(t, f.cert.Raw(), license.KindCertificate, root, func(h header, _ *[]byte) { edit(h) })
		return &forger{Signer: f.Signer, cert: f.cert, raw: raw}
	}
	signedBy := func(f *forger, edit func(t *testing.T, h header)) func(*testing.T, *rmsv1.AcquireResponse) {
		return func(t *testing.T, resp *rmsv1.AcquireResponse) {
			resp.UseLicense = resign(t, resp.GetUseLicense(), license.KindUL, f, func(h header, _ *[]byte) {
				h.Set(t, fieldCertID, f.cert.ID[:])
				if edit != nil {
					edit(t, h)
				}
			})
			resp.Certificate = f.certificate()
		}
	}
	sealed := func(resp *rmsv1.AcquireResponse) *rmsv1.SealedKey { return resp.GetContentKey().GetSealed() }
	captured, err := bob.acquireAs(newKey(t), &rmsv1.AcquireRequest{Document: byName(doc)})
	must(t, err)
	foreignKey := newKey(t)

	for name, attack := range map[string]struct {
		request func(*rmsv1.AcquireRequest)
		answer  func(*testing.T, *rmsv1.AcquireResponse)
		token   string
		clock   time.Duration
		want    vocab.Reason
	}{
		"one bit of the license":       {answer: func(_ *testing.T, r *rmsv1.AcquireResponse) { r.UseLicense[len(r.UseLicense)/2] ^= 1 }, want: vocab.ReasonLicenseSignature},
		"one bit of its signature":     {answer: func(_ *testing.T, r *rmsv1.AcquireResponse) { r.UseLicense[len(r.UseLicense)-1] ^= 1 }, want: vocab.ReasonLicenseSignature},
		"one bit of the certificate":   {answer: func(_ *testing.T, r *rmsv1.AcquireResponse) { r.Certificate[len(r.Certificate)-1] ^= 1 }, want: vocab.ReasonLicenseSignature},
		"one bit of the key agreement": {answer: func(_ *testing.T, r *rmsv1.AcquireResponse) { sealed(r).Enc[0] ^= 1 }, want: vocab.ReasonUseLicenseRejected},
		"no license at all":            {answer: func(_ *testing.T, r *rmsv1.AcquireResponse) { r.UseLicense = nil }, want: vocab.ReasonLicenseMalformed},
		"the key in the clear instead": {answer: func(_ *testing.T, r *rmsv1.AcquireResponse) {
			r.UseLicense, r.ContentKey = nil, &rmsv1.DeliveredKey{How: &rmsv1.DeliveredKey_Clear{Clear: make([]byte, 32)}}
		}, want: vocab.ReasonLicenseMalformed},
		"a publishing license in its place": {answer: func(_ *testing.T, r *rmsv1.AcquireResponse) { r.UseLicense = doc.pl }, want: vocab.ReasonLicenseMalformed},
		"an earlier answer for the same person and document": {answer: func(_ *testing.T, r *rmsv1.AcquireResponse) {
			r.UseLicense, r.Certificate, r.ContentKey = captured.resp.UseLicense, captured.resp.Certificate, captured.resp.ContentKey
		}, want: vocab.ReasonUseLicenseRejected},
		"the key agreement of another answer": {answer: func(_ *testing.T, r *rmsv1.AcquireResponse) {
			r.ContentKey = captured.resp.ContentKey
		}, want: vocab.ReasonUseLicenseRejected},
		"another document's license":      {request: func(r *rmsv1.AcquireRequest) { r.Document = byName(other) }, want: vocab.ReasonUseLicenseRejected},
		"another person's license":        {token: erin.token, want: vocab.ReasonUseLicenseRejected},
		"a license for another key":       {request: func(r *rmsv1.AcquireRequest) { r.Delivery = daemontest.SealedTo(foreignKey) }, want: vocab.ReasonUseLicenseRejected},
		"with a trust bundle out of date": {clock: 31 * 24 * time.Hour, want: vocab.ReasonTrustRootMismatch},
		"after its end":                   {clock: 10 * time.Minute, want: vocab.ReasonUseLicenseRejected},
		"signed under an unknown root":    {answer: signedBy(mine, nil), want: vocab.ReasonTrustRootMismatch},
		"signed with a stolen key, for another person": {token: erin.token, answer: signedBy(stolen, func(t *testing.T, h header) {
			h.Set(t, fieldPrincipal, bob.principal[:])
		}), want: vocab.ReasonUseLicenseRejected},
		"signed with a stolen key, with more rights": {answer: signedBy(stolen, func(t *testing.T, h header) {
			h.Set(t, fieldRights, uint32(vocab.AllRights))
		}), want: vocab.ReasonUseLicenseRejected},
		"signed with a stolen key, with a longer life": {answer: signedBy(stolen, func(t *testing.T, h header) {
			h.Set(t, fieldNotAfter, uint64(time.Now().Add(1000*time.Hour).UnixMilli()))
		}), want: vocab.ReasonUseLicenseRejected},
		"signed with another document's identity": {request: func(r *rmsv1.AcquireRequest) { r.Document = byName(other) },
			answer: signedBy(stolen, func(t *testing.T, h header) {
				h.Set(t, fieldContent, doc.content[:])
				h.Set(t, fieldCommitment, doc.parsed.Commitment[:])
			}), want: vocab.ReasonUseLicenseRejected},
		"signed with a certificate of ten years": {answer: signedBy(certified(t, func(h header) {
			h.Set(t, fieldCertNotAfter, uint64(time.Now().AddDate(10, 0, 0).UnixMilli()))
		}), nil), want: vocab.ReasonLicenseMalformed},
		"signed with a certificate that has ended": {answer: signedBy(certified(t, func(h header) {
			h.Set(t, fieldCertNotAfter, uint64(time.Now().Add(-time.Minute).UnixMilli()))
		}), nil), want: vocab.ReasonTrustRootMismatch},
		"signed with a certificate for licenses in files": {answer: signedBy(s.stolen(t, contoso, license.UsagePL), nil), want: vocab.ReasonTrustRootMismatch},
		"signed with another tenant's certificate":        {answer: signedBy(certify(t, s.root(t, fabrikam), s.trust[fabrikam].TenantID, license.UsageUL), nil), want: vocab.ReasonTrustRootMismatch},
	} {
		t.Run(name, func(t *testing.T) {
			b, address := s.inBetween(t)
			b.request, b.token = attack.request, attack.token
			if attack.answer != nil {
				b.answer = func(r *rmsv1.AcquireResponse) { attack.answer(t, r) }
			}
			bob := s.honest(t, "bob", address, nil)
			if attack.clock != 0 {
				bob = s.honest(t, "bob", address, func() time.Time { return time.Now().Add(attack.clock) })
			}
			got, _, err := read(t.Context(), bob, file)
			if vocab.ReasonOf(err) != attack.want || len(got) > 0 {
				t.Fatalf("%d bytes came out, %v; want none and %s", len(got), err, attack.want)
			}
		})
	}

	t.Run("untouched, it opens", func(t *testing.T) {
		_, address := s.inBetween(t)
		got, _, err := read(t.Context(), s.honest(t, "bob", address, nil), file)
		if err != nil || !bytes.Equal(got, content) {
			t.Fatalf("the way the attacks went does not work without them: %v", err)
		}
	})

	t.Run("a clock that was past the end, and is set back", func(t *testing.T) {
		var off atomic.Int64
		bob := s.honest(t, "bob", s.daemon.Addr(), func() time.Time { return time.Now().Add(time.Duration(off.Load())) })
		if _, _, err := read(t.Context(), bob, file); err != nil {
			t.Fatal(err)
		}
		off.Store(int64(10 * time.Minute))
		for _, back := range []time.Duration{10 * time.Minute, 0, -24 * time.Hour} {
			off.Store(int64(back))
			if got, _, err := read(t.Context(), bob, file); vocab.ReasonOf(err) != vocab.ReasonUseLicenseRejected || len(got) > 0 {
				t.Fatalf("with the clock at %s: %v", back, err)
			}
		}
	})

	t.Run("boxes exchanged inside one batch", func(t *testing.T) {
		key := newKey(t)
		resp, err := bob.protection().BatchAcquire(bob.ctx(), &rmsv1.BatchAcquireRequest{
			Parent: bob.parent(), Delivery: daemontest.SealedTo(key),
			Items: []*rmsv1.AcquireRequest{{Document: byName(doc), Right: view}, {Document: byName(other), Right: view}},
		})
		must(t, err)
		uls := [2][]byte{}
		for i, r := range resp.GetResults() {
			uls[i] = r.GetAcquired().GetUseLicense()
		}
		verifier := s.trust[contoso].verifier
		expect := license.Expect{
			Principal: bob.principal, Recipient: key.Hash(), Content: doc.content, Commitment: doc.parsed.Commitment, ContentSuite: 1, Now: time.Now(),
		}
		if _, err := verifier.VerifyUL(uls[1], resp.GetCertificate(), expect); vocab.ReasonOf(err) != vocab.ReasonUseLicenseRejected {
			t.Fatalf("another item's license: %v", err)
		}
		foreign, err := license.ParseEnvelope(uls[1])
		must(t, err)
		spliced := resign(t, uls[0], license.KindUL, stolen, func(h header, box *[]byte) {
			h.Set(t, fieldCertID, stolen.cert.ID[:])
			*box = foreign.Box
		})
		ul, err := verifier.VerifyUL(spliced, stolen.cert.Raw(), expect)
		must(t, err)
		if _, err := key.OpenUL(resp.GetEnc(), ul); vocab.ReasonOf(err) != vocab.ReasonUseLicenseRejected {
			t.Fatalf("a box opened under another license's header: %v", err)
		}
	})
}
