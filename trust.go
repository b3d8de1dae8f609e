package rms

import (
	"context"
	"crypto/tls"
	"slices"
	"sync"
	"time"

	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// Trust is what a client believes of a tenant: its identity and its signing
// roots, pinned once, and the newest trust bundle seen since.
type Trust struct {
	// TenantID is the tenant's identity, as documents carry it. Required.
	TenantID TenantID
	// RootKeyIDs are the pinned roots: SHA-256 key IDs. At least one is
	// required.
	RootKeyIDs [][32]byte
	// Bundle is the newest trust bundle seen; empty: the client fetches one.
	Bundle []byte
	// BundleSeq is its sequence number. Older bundles are refused.
	BundleSeq uint64
	// Updated, if set, is told when the client has verified a newer bundle:
	// keep RootKeyIDs, Bundle and BundleSeq of its argument for the next
	// [Dial], so that the client follows a rotated root and cannot be set
	// back. It is called by one goroutine at a time and must not call the
	// client.
	Updated func(Trust)
}

// TrustInfo is what a server claims about a tenant. Nothing of it is to be
// believed before a person has compared a root's key ID with what the tenant's
// administrator says it is.
type TrustInfo struct {
	// Tenant is the tenant's name, TenantID its identity.
	Tenant   string
	TenantID TenantID
	// RootKeyIDs are the roots that may be pinned, the current one first.
	RootKeyIDs [][32]byte
	// Bundle is the trust bundle, which verifies under RootKeyIDs.
	Bundle    []byte
	BundleSeq uint64
	// LogKey is the key that signs checkpoints of the tenant's log, as a note
	// verifier key, LogCertificate the signed certificate of it.
	LogKey         string
	LogCertificate []byte
	// IdentityProviders say where to sign in.
	IdentityProviders []*rmsv1.IdentityProvider
	// ServerVersion is the server's version; Development says that it is a
	// development daemon, whose keys protect nothing.
	ServerVersion string
	Development   bool
}

// Trust returns what a client needs once the roots are pinned.
func (i *TrustInfo) Trust() Trust {
	return Trust{TenantID: i.TenantID, RootKeyIDs: slices.Clone(i.RootKeyIDs), Bundle: i.Bundle, BundleSeq: i.BundleSeq}
}

// FetchTrust asks a server, without signing in, what it claims about a tenant;
// tenant may be empty where the server has only one. It checks that the answer
// does not contradict itself, no more: see [TrustInfo].
func FetchTrust(ctx context.Context, address string, config *tls.Config, tenant string) (*TrustInfo, error) {
	request := &rmsv1.GetTrustRequest{}
	if tenant != "" {
		if !vocab.ValidSlug(tenant) {
			return nil, vocab.Errorf(vocab.ReasonConfigurationInvalid, "%q is not a tenant's name", clip(tenant))
		}
		request.Parent = tenantPrefix + tenant
	}
	conn, err := connect(address, config, new(presenter), &caller{pause: sleep})
	if err != nil {
		return nil, err
	}
	defer conn.Close() //nolint:errcheck // nothing is left to lose
	answer, err := rmsv1.NewProtectionServiceClient(conn).GetTrust(ctx, request)
	if err != nil {
		return nil, err
	}
	return readTrust(answer, tenant)
}

const tenantPrefix = "tenants/"

func readTrust(answer *rmsv1.GetTrustResponse, tenant string) (*TrustInfo, error) {
	contradiction := func(what string) error {
		return vocab.Errorf(vocab.ReasonTrustRootMismatch, "the server's answer cannot be trusted: %s", what)
	}
	info := &TrustInfo{
		Bundle: answer.GetTrustBundle(), LogKey: answer.GetLogKey(), LogCertificate: answer.GetLogCertificate(),
		IdentityProviders: answer.GetIdentityProviders(), ServerVersion: clip(answer.GetServerVersion()), Development: answer.GetDevelopment(),
	}
	info.Tenant, _ = trimTenant(answer.GetTenant())
	if !vocab.ValidSlug(info.Tenant) || tenant != "" && info.Tenant != tenant {
		return nil, contradiction("it is about another tenant")
	}
	var err error
	if info.TenantID, err = vocab.ParseTenantID(answer.GetTenantId()); err != nil {
		return nil, contradiction("it names no tenant ID")
	}
	for _, id := range answer.GetRootKeyIds() {
		if len(id) != 32 {
			return nil, contradiction("a root has no key ID")
		}
		info.RootKeyIDs = append(info.RootKeyIDs, [32]byte(id))
	}
	bundle, err := license.VerifyBundle(info.Bundle, info.TenantID, pins(info.RootKeyIDs), 0)
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(pins(info.RootKeyIDs), func(id license.KeyID) bool {
		root, ok := bundle.Root(id)
		return !ok || root.State == license.RootCompromised
	}) {
		return nil, contradiction("it offers a root that its own trust bundle does not believe")
	}
	info.BundleSeq = bundle.Seq
	return info, nil
}

func pins(ids [][32]byte) []license.KeyID {
	out := make([]license.KeyID, len(ids))
	for i, id := range ids {
		out[i] = license.KeyID(id)
	}
	return out
}

const (
	// freshFor is how long a bundle is used before a client that lives long
	// looks for a newer one, and freshWithin how long that may take.
	freshFor    = time.Hour
	freshWithin = 5 * time.Second
	// refreshPause is how often a signature that no known root vouches for may
	// make the client look for a newer bundle: a document must not be able to
	// make it call the server again and again.
	refreshPause = time.Minute
	// maxTransitions bounds how many changes of root are followed at once.
	maxTransitions = 64
)

// keeper holds the newest verified trust bundle and the highest time the client
// has any proof of. It is safe for concurrent use.
type keeper struct {
	now   func() time.Time
	fetch func(context.Context) (*rmsv1.GetTrustResponse, error)
	turn  chan struct{} // held by whoever asks the server: one at a time

	mu      sync.Mutex
	trust   Trust
	current *license.Verifier // nil before the first
	looked  time.Time         // when the server was last asked
	asked   time.Time         // when an unknown signature last led to that
	highest time.Time
}

// newKeeper verifies the pinned trust.
func newKeeper(t Trust, now func() time.Time, fetch func(context.Context) (*rmsv1.GetTrustResponse, error)) (*keeper, error) {
	if t.TenantID.IsZero() || len(t.RootKeyIDs) == 0 {
		return nil, vocab.Errorf(vocab.ReasonConfigurationInvalid, "the client has no pinned root of the tenant").
			WithNext("Fetch it with FetchTrust, have a person confirm it, and keep it")
	}
	t.RootKeyIDs = slices.Clone(t.RootKeyIDs)
	k := &keeper{now: now, fetch: fetch, turn: make(chan struct{}, 1), trust: t, looked: now()}
	if len(t.Bundle) == 0 {
		return k, nil
	}
	v, err := license.NewVerifier(t.Bundle, t.TenantID, pins(t.RootKeyIDs), t.BundleSeq)
	if err != nil {
		return nil, err
	}
	k.adopt(v)
	return k, nil
}

// time returns the highest time seen: a clock that was set back does not revive
// what has ended.
func (k *keeper) time() time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.see(k.now())
}

// sawTime notes a time that the tenant has signed.
func (k *keeper) sawTime(t time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.see(t)
}

// see notes a time. mu is held.
func (k *keeper) see(t time.Time) time.Time {
	if t.After(k.highest) {
		k.highest = t
	}
	return k.highest
}

// newest returns what there is, whether it is in force, and whether it is time
// to look for a newer one.
func (k *keeper) newest() (v *license.Verifier, inForce, due bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.see(k.now())
	inForce = k.current != nil && now.Before(k.current.Bundle().NextUpdate)
	if due = now.Sub(k.looked) >= freshFor; due {
		k.looked = now // also when that fails
	}
	return k.current, inForce, due
}

// verifier returns what vouches for the tenant's signatures. It asks the server
// if there is no bundle or it has ended, and, as well as it can, if the server
// has not been asked for long.
func (k *keeper) verifier(ctx context.Context) (*license.Verifier, error) {
	v, inForce, due := k.newest()
	switch {
	case !inForce:
		return k.refresh(ctx, v)
	case due:
		ctx, cancel := context.WithTimeout(ctx, freshWithin)
		defer cancel()
		newer, err := k.refresh(ctx, v)
		switch {
		case err == nil:
			return newer, nil
		case ReasonOf(err) == vocab.ReasonTrustRootMismatch:
			// Not what a server that is away looks like: it stays refused.
			k.lookAgain()
			return nil, err
		}
	}
	return v, nil
}

// lookAgain makes the next use look for a newer bundle.
func (k *keeper) lookAgain() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.looked = time.Time{}
}

// newer returns a newer verifier after v did not vouch for a signature, or nil
// if there is none.
func (k *keeper) newer(ctx context.Context, v *license.Verifier) *license.Verifier {
	k.mu.Lock()
	now := k.see(k.now())
	soon := k.current == v && !k.asked.IsZero() && now.Sub(k.asked) < refreshPause
	if k.current == v && !soon {
		k.asked = now
	}
	k.mu.Unlock()
	if soon {
		return nil
	}
	newer, err := k.refresh(ctx, v)
	if err != nil || newer == v {
		return nil
	}
	return newer
}

// refresh asks the server for a newer bundle than v's, unless somebody else
// just did, and returns the newest.
func (k *keeper) refresh(ctx context.Context, v *license.Verifier) (*license.Verifier, error) {
	select {
	case k.turn <- struct{}{}:
		defer func() { <-k.turn }()
	case <-ctx.Done():
		return nil, vocab.Errorf(vocab.ReasonServerUnreachable, "the server did not answer in time").WithNext("Try again").Because(ctx.Err())
	}
	k.mu.Lock()
	current, t := k.current, k.trust
	k.mu.Unlock()
	if current != v {
		return current, nil
	}
	answer, err := k.fetch(ctx)
	if err != nil {
		return nil, err
	}
	if answer.GetTenantId() != t.TenantID.String() {
		return nil, vocab.Errorf(vocab.ReasonTrustRootMismatch, "the server gives the tenant another identity than the pinned one").
			WithNext("Do not go on; ask the tenant's administrator")
	}
	pinned := pins(t.RootKeyIDs)
	newer, err := license.NewVerifier(answer.GetTrustBundle(), t.TenantID, pinned, t.BundleSeq)
	if ReasonOf(err) == vocab.ReasonTrustRootMismatch {
		// The tenant may have gone to another root while this client was away.
		transitions := answer.GetTrustTransitions()
		pinned = license.Follow(transitions[:min(len(transitions), maxTransitions)], t.TenantID, pinned)
		newer, err = license.NewVerifier(answer.GetTrustBundle(), t.TenantID, pinned, t.BundleSeq)
	}
	if err != nil {
		return nil, err
	}
	if current != nil && newer.Bundle().Seq == t.BundleSeq {
		return current, nil
	}
	k.mu.Lock()
	k.adopt(newer)
	t = k.trust
	k.mu.Unlock()
	if t.Updated != nil {
		t.RootKeyIDs = slices.Clone(t.RootKeyIDs)
		t.Updated(t)
	}
	return newer, nil
}

// adopt makes a verified bundle the newest: its roots are pinned from now on,
// those it calls compromised no longer. mu is held, or nobody else is there.
func (k *keeper) adopt(v *license.Verifier) {
	b := v.Bundle()
	k.trust.RootKeyIDs = slices.Clone(k.trust.RootKeyIDs)
	k.current, k.trust.Bundle, k.trust.BundleSeq = v, b.Raw(), b.Seq
	k.see(b.IssuedAt)
	for _, root := range b.Roots {
		id := [32]byte(root.ID())
		known := slices.Contains(k.trust.RootKeyIDs, id)
		switch {
		case root.State == license.RootCompromised:
			k.trust.RootKeyIDs = slices.DeleteFunc(k.trust.RootKeyIDs, func(pin [32]byte) bool { return pin == id })
		case !known:
			k.trust.RootKeyIDs = append(k.trust.RootKeyIDs, id)
		}
	}
}

// verified runs check with the newest verifier, and again with a newer one if
// the tenant has rotated meanwhile.
func verified[T any](ctx context.Context, k *keeper, check func(*license.Verifier) (T, error)) (T, error) {
	var none T
	v, err := k.verifier(ctx)
	if err != nil {
		return none, err
	}
	out, err := check(v)
	if ReasonOf(err) != vocab.ReasonTrustRootMismatch {
		return out, err
	}
	if newer := k.newer(ctx, v); newer != nil {
		return check(newer)
	}
	return none, err
}
