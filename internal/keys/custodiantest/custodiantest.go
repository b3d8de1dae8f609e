// Package custodiantest is what every custodian of tenant keys must do, as
// tests. An implementation runs [Run] on itself; one that passes can be put
// under a tenant.
package custodiantest

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/vocab"
)

// Subject is a custodian under test and what somebody else does to its keys.
type Subject struct {
	keys.Custodian
	// Other is another tenant's custodian of the same kind.
	Other keys.Custodian
	// RotateRoot and RotateSign add a version.
	RotateRoot, RotateSign func(t *testing.T)
	// Withdraw makes the custodian refuse versions of the root key below n.
	Withdraw func(t *testing.T, n uint32)
	// RequestIDs says that results must carry the custodian's request ID.
	RequestIDs bool
}

// Run runs the suite. make returns a subject at version 1 of both keys; it is
// called once per group of cases, and cleans up after itself.
func Run(t *testing.T, make func(t *testing.T) Subject) {
	for name, group := range map[string]func(*testing.T, Subject){
		"Facts": facts, "Wraps": wraps, "Swaps": swaps, "Bytes": everyByte, "Rotation": rotation, "Signing": signing, "Calls": calls, "Close": closing,
	} {
		t.Run(name, func(t *testing.T) { group(t, make(t)) })
	}
}

var tenant = vocab.TenantID{0xaa, 1}

func newItem() keys.WrapItem {
	return keys.WrapItem{Binding: keys.TenantBinding(tenant, vocab.NewGenerationID()), Secret: vocab.NewSecret()}
}

func wrap(t *testing.T, s keys.Custodian, items ...keys.WrapItem) []keys.UnwrapItem {
	t.Helper()
	rs, err := s.Wrap(t.Context(), items)
	if err != nil {
		t.Fatalf("Wrap: %v (%v)", err, errors.Unwrap(err))
	}
	if len(rs) != len(items) {
		t.Fatalf("Wrap of %d gave %d results", len(items), len(rs))
	}
	var out []keys.UnwrapItem
	for i, r := range rs {
		if r.Err != nil {
			t.Fatalf("Wrap, item %d: %v (%v)", i, r.Err, errors.Unwrap(r.Err))
		}
		out = append(out, keys.UnwrapItem{Binding: items[i].Binding, Wrap: r.Wrap})
	}
	return out
}

// unwrapOne returns the reason for which an item does not open, "" if it does.
func unwrapOne(t *testing.T, s keys.Custodian, it keys.UnwrapItem) (*vocab.Secret, vocab.Reason) {
	t.Helper()
	rs, err := s.Unwrap(t.Context(), []keys.UnwrapItem{it})
	if err != nil {
		return nil, vocab.ReasonOf(err)
	}
	if rs[0].Err != nil && rs[0].Secret != nil {
		t.Error("Unwrap gave an error and a secret")
	}
	return rs[0].Secret, vocab.ReasonOf(rs[0].Err)
}

func wantReason(t *testing.T, what string, got vocab.Reason, want ...vocab.Reason) {
	t.Helper()
	if !slices.Contains(want, got) {
		t.Errorf("%s: reason %q, want %q", what, got, want)
	}
}

func facts(t *testing.T, s Subject) {
	f, err := s.Describe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Safe(); err != nil {
		t.Errorf("keys are not safe: %v", err)
	}
	if f.Custodian != s.ID() || f.ClusterID == "" || f.ReadAt.IsZero() {
		t.Errorf("facts lack who, where or when: %+v", f)
	}
	if f.Root.Latest != 1 || f.Sign.Latest != 1 {
		t.Errorf("latest versions %d and %d, want 1", f.Root.Latest, f.Sign.Latest)
	}
	if err := f.Since(f.MarkOf(keys.Mark{})); err != nil {
		t.Errorf("facts contradict their own mark: %v", err)
	}
	if err := s.Check(t.Context()); err != nil {
		t.Errorf("Check: %v (%v)", err, errors.Unwrap(err))
	}
	if h := s.Health(t.Context()); !h.OK() || h.ClusterID != f.ClusterID {
		t.Errorf("Health = %+v", h)
	}
	s.RotateRoot(t)
	s.RotateSign(t)
	g, err := s.Describe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if g.Root.Latest != 2 || g.Sign.Latest != 2 {
		t.Errorf("after rotation: versions %d and %d, want 2", g.Root.Latest, g.Sign.Latest)
	}
	if err := g.Since(f.MarkOf(keys.Mark{})); err != nil {
		t.Errorf("a rotation is not a change of custodian: %v", err)
	}
	if err := f.Since(g.MarkOf(keys.Mark{})); vocab.ReasonOf(err) != vocab.ReasonCustodianChanged {
		t.Errorf("versions going back: %v, want CUSTODIAN_CHANGED", err)
	}
	old, _ := f.Sign.PublicKey(1)
	if kept, ok := g.Sign.PublicKey(1); !ok || !kept.Equal(old) {
		t.Error("version 1 of the signing key changed with the rotation")
	}
}

func wraps(t *testing.T, s Subject) {
	for _, n := range []int{1, 2, 100, keys.MaxBatch} {
		var items []keys.WrapItem
		for range n {
			items = append(items, newItem())
		}
		items[0].Binding = keys.DocumentBinding(tenant, items[0].Binding.Generation, vocab.ContentID{1})
		before := items[0].Secret.Clone()
		wrapped := wrap(t, s, items...)
		if !items[0].Secret.Equal(before) {
			t.Error("Wrap changed the caller's secret")
		}
		rs, err := s.Unwrap(t.Context(), wrapped)
		if err != nil {
			t.Fatal(err)
		}
		for i, r := range rs {
			if r.Err != nil || !r.Secret.Equal(items[i].Secret) {
				t.Fatalf("batch of %d, item %d did not come back: %v", n, i, r.Err)
			}
			if s.RequestIDs && r.RequestID == "" {
				t.Errorf("item %d without request ID", i)
			}
			w := wrapped[i].Wrap
			if w.Custodian != s.ID() || w.L0Version != 1 {
				t.Fatalf("wrap names key %s version %d", w.Custodian, w.L0Version)
			}
			if bytes.Contains(w.Ciphertext, items[i].Secret.Reveal()) {
				t.Fatal("wrap shows the secret")
			}
			if p, err := license.ParseWrap(w.Encode()); err != nil || !bytes.Equal(p.Ciphertext, w.Ciphertext) {
				t.Fatalf("wrap does not survive its encoding: %v", err)
			}
		}
	}
	it := newItem()
	two := wrap(t, s, it, it)
	if bytes.Equal(two[0].Wrap.Ciphertext, two[1].Wrap.Ciphertext) {
		t.Error("two wraps of one secret are equal")
	}
	right, wrong := it.Binding.Commitment(it.Secret), it.Binding.Commitment(vocab.NewSecret())
	if _, _, err := keys.Unwrap(t.Context(), s, two[0], &right); err != nil {
		t.Errorf("Unwrap with the right commitment: %v", err)
	}
	if _, _, err := keys.Unwrap(t.Context(), s, two[0], &wrong); vocab.ReasonOf(err) != vocab.ReasonCustodyIntegrity {
		t.Errorf("Unwrap with another commitment: %v", err)
	}
	if _, _, err := keys.Unwrap(t.Context(), s, two[0], nil); vocab.ReasonOf(err) != vocab.ReasonCustodyIntegrity {
		t.Errorf("Unwrap of a tenant generation without commitment: %v", err)
	}
	for _, n := range []int{0, keys.MaxBatch + 1} {
		_, err := s.Wrap(t.Context(), make([]keys.WrapItem, n))
		wantReason(t, "Wrap of a wrong number", vocab.ReasonOf(err), vocab.ReasonBatchTooLarge)
		_, err = s.Unwrap(t.Context(), make([]keys.UnwrapItem, n))
		wantReason(t, "Unwrap of a wrong number", vocab.ReasonOf(err), vocab.ReasonBatchTooLarge)
		_, err = s.Rewrap(t.Context(), make([]keys.UnwrapItem, n))
		wantReason(t, "Rewrap of a wrong number", vocab.ReasonOf(err), vocab.ReasonBatchTooLarge)
	}
}

// swaps exchanges wraps between generations, documents, scopes and tenants.
func swaps(t *testing.T, s Subject) {
	g := vocab.NewGenerationID()
	items := []keys.WrapItem{
		{Binding: keys.TenantBinding(tenant, g), Secret: vocab.NewSecret()},
		{Binding: keys.TenantBinding(tenant, vocab.NewGenerationID()), Secret: vocab.NewSecret()},
		{Binding: keys.TenantBinding(vocab.TenantID{0xbb}, g), Secret: vocab.NewSecret()},
		{Binding: keys.DocumentBinding(tenant, g, vocab.ContentID{1}), Secret: vocab.NewSecret()},
		{Binding: keys.DocumentBinding(tenant, g, vocab.ContentID{2}), Secret: vocab.NewSecret()},
		{Binding: keys.DocumentBinding(tenant, g, vocab.ContentID{}), Secret: vocab.NewSecret()},
	}
	wrapped := wrap(t, s, items...)
	var matrix []keys.UnwrapItem
	for _, w := range wrapped {
		for _, it := range items {
			matrix = append(matrix, keys.UnwrapItem{Binding: it.Binding, Wrap: w.Wrap})
		}
	}
	check := func(op string, i int, ok bool, err error) {
		same := i/len(items) == i%len(items)
		switch {
		case same && !ok:
			t.Errorf("%s: item %d in a batch with swapped ones does not open: %v", op, i, err)
		case !same && ok:
			t.Errorf("%s: wrap of %d opened as %d", op, i/len(items), i%len(items))
		case !same:
			wantReason(t, op+" of a swapped wrap", vocab.ReasonOf(err), vocab.ReasonCustodyIntegrity)
		}
	}
	us, err := s.Unwrap(t.Context(), matrix)
	if err != nil {
		t.Fatal(err)
	}
	for i, u := range us {
		check("Unwrap", i, u.Err == nil && u.Secret.Equal(items[i%len(items)].Secret), u.Err)
	}
	s.RotateRoot(t)
	ws, err := s.Rewrap(t.Context(), matrix)
	if err != nil {
		t.Fatal(err)
	}
	for i, w := range ws {
		check("Rewrap", i, w.Err == nil, w.Err)
	}

	// Another tenant's key, as it is and with our name on it.
	theirs := wrap(t, s.Other, items[0])[0]
	_, why := unwrapOne(t, s, theirs)
	wantReason(t, "another tenant's wrap", why, vocab.ReasonCustodyIntegrity)
	theirs.Wrap.Custodian = s.ID()
	_, why = unwrapOne(t, s, theirs)
	wantReason(t, "another tenant's wrap under our name", why, vocab.ReasonCustodyIntegrity)
	ours := wrapped[0]
	ours.Wrap.L0Type = license.L0RSA
	_, why = unwrapOne(t, s, ours)
	wantReason(t, "RSA wrap", why, vocab.ReasonSuiteUnsupported)
}

// everyByte changes a wrap in every place; all must fail and one good one
// beside them must not.
func everyByte(t *testing.T, s Subject) {
	good := wrap(t, s, newItem())[0]
	batch := []keys.UnwrapItem{good}
	for i := range good.Wrap.Ciphertext {
		bad := good
		bad.Wrap.Ciphertext = bytes.Clone(good.Wrap.Ciphertext)
		bad.Wrap.Ciphertext[i] ^= 0x40
		batch = append(batch, bad)
	}
	for _, cut := range [][]byte{good.Wrap.Ciphertext[:len(good.Wrap.Ciphertext)-1], append(bytes.Clone(good.Wrap.Ciphertext), 0), good.Wrap.Ciphertext[:12], {1}} {
		bad := good
		bad.Wrap.Ciphertext = cut
		batch = append(batch, bad)
	}
	us, err := s.Unwrap(t.Context(), batch)
	if err != nil {
		t.Fatal(err)
	}
	for i, u := range us {
		if i == 0 {
			if u.Err != nil {
				t.Errorf("the unchanged wrap does not open: %v", u.Err)
			}
			continue
		}
		if u.Err == nil {
			t.Errorf("changed wrap %d opened", i)
		}
		wantReason(t, "changed wrap", vocab.ReasonOf(u.Err), vocab.ReasonCustodyIntegrity)
	}
	// All bad: the answer must still be one per item.
	us, err = s.Unwrap(t.Context(), batch[1:])
	if err != nil || len(us) != len(batch)-1 {
		t.Errorf("batch of bad wraps: %d results, %v", len(us), err)
	}
	future := good
	future.Wrap.L0Version = 99
	_, why := unwrapOne(t, s, future)
	wantReason(t, "version the key never had", why, vocab.ReasonCustodianChanged)
}

func rotation(t *testing.T, s Subject) {
	it := newItem()
	v1 := wrap(t, s, it)[0]
	s.RotateRoot(t)
	if got, why := unwrapOne(t, s, v1); why != "" || !got.Equal(it.Secret) {
		t.Errorf("after rotation the old wrap does not open: %s", why)
	}
	v2 := wrap(t, s, it)[0]
	if v2.Wrap.L0Version != 2 {
		t.Errorf("new wrap has version %d, want 2", v2.Wrap.L0Version)
	}
	lied := v1
	lied.Wrap.L0Version = 2
	_, why := unwrapOne(t, s, lied)
	wantReason(t, "wrong version on a wrap", why, vocab.ReasonCustodyIntegrity)

	rs, err := s.Rewrap(t.Context(), []keys.UnwrapItem{v1, v2, lied})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		if rs[i].Err != nil || rs[i].Wrap.L0Version != 2 || rs[i].Wrap.Custodian != s.ID() {
			t.Fatalf("Rewrap, item %d: %+v", i, rs[i])
		}
		if got, why := unwrapOne(t, s, keys.UnwrapItem{Binding: it.Binding, Wrap: rs[i].Wrap}); why != "" || !got.Equal(it.Secret) {
			t.Errorf("rewrapped item %d does not open: %s", i, why)
		}
	}
	wantReason(t, "Rewrap with a wrong version", vocab.ReasonOf(rs[2].Err), vocab.ReasonCustodyIntegrity)

	s.Withdraw(t, 2)
	_, why = unwrapOne(t, s, v1)
	wantReason(t, "withdrawn version", why, vocab.ReasonKeyState)
	if _, why := unwrapOne(t, s, v2); why != "" {
		t.Errorf("after withdrawing version 1, version 2 does not open: %s", why)
	}
	if f, err := s.Describe(t.Context()); err != nil || f.Root.MinDecryption != 2 {
		t.Errorf("facts do not show the withdrawal: %+v, %v", f, err)
	}
}

func signing(t *testing.T, s Subject) {
	root1, err := keys.CurrentRoot(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{1, 32, 4096, license.MaxEnvelope} {
		message := bytes.Repeat([]byte{7}, size)
		sig, err := root1.Sign(t.Context(), message)
		if err != nil || !ed25519.Verify(root1.PublicKey(), message, sig) {
			t.Fatalf("signature over %d bytes: %v", size, err)
		}
	}
	s.RotateSign(t)
	root2, err := keys.CurrentRoot(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	if root2.Version() != 2 || root2.PublicKey().Equal(root1.PublicKey()) {
		t.Error("rotation did not give another root")
	}
	for _, k := range []*keys.RootKey{root1, root2} { // old roots sign the next bundle
		if _, err := k.Sign(t.Context(), []byte("message")); err != nil {
			t.Errorf("root version %d does not sign: %v", k.Version(), err)
		}
	}
	if sig, err := s.Sign(t.Context(), 0, []byte("message")); err != nil || sig.Version != 2 || s.RequestIDs && sig.RequestID == "" {
		t.Errorf("version 0 must be the newest: %+v, %v", sig, err)
	}
	if _, err := s.Sign(t.Context(), 9, []byte("message")); err == nil {
		t.Error("a version that is not there signed")
	}
}

func calls(t *testing.T, s Subject) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	it := newItem()
	_, err := s.Wrap(ctx, []keys.WrapItem{it})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Wrap of a caller that gave up: %v", err)
	}
	w := wrap(t, s, it)[0]
	var all sync.WaitGroup
	for range 32 {
		all.Go(func() {
			for range 8 {
				us, err := s.Unwrap(t.Context(), []keys.UnwrapItem{w})
				if err != nil || us[0].Err != nil || !us[0].Secret.Equal(it.Secret) {
					t.Errorf("at the same time as others: %v %+v", err, us)
					return
				}
				us[0].Secret.Zero() // must not be anybody else's copy
			}
		})
	}
	all.Wait()
}

func closing(t *testing.T, s Subject) {
	w := wrap(t, s, newItem())[0]
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	_, why := unwrapOne(t, s, w)
	wantReason(t, "after Close", why, vocab.ReasonCustodianUnreachable)
	if _, err := s.Sign(t.Context(), 0, []byte("x")); vocab.ReasonOf(err) != vocab.ReasonCustodianUnreachable {
		t.Errorf("Sign after Close: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}
