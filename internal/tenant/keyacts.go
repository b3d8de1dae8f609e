package tenant

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// claimGrace is how long a new version of a key may be there before the log
// says, as an alarm, that nobody asked for it: time enough for whoever rotated
// it to say so.
const claimGrace = 15 * time.Minute

// maxKeys bounds how many keys a tenant has; what is destroyed counts.
const maxKeys = 64

// KeyView is a registered key as people see it.
type KeyView struct {
	Name string
	*record.TenantKey
	// Place is where the operator's file says that it is; zero if the file does
	// not name it.
	Place Place
	// Facts are what its custodian says now; nil if it does not say, and Fault
	// is why.
	Facts *keys.Facts
	Fault error
}

// VersionState is the state of one of its versions; 0 if it was never seen.
func (v KeyView) VersionState(version uint32) keys.State {
	s, _ := versionState(v.TenantKey, version)
	return s
}

// Custodians returns what the operator's file names.
func (t *Tenant) Custodians() []Place { return t.custodians.Named() }

// Keys returns the tenant's registered keys, the active one first, each with
// what its custodian says of it now.
func (t *Tenant) Keys(ctx context.Context) (out []KeyView, err error) {
	all := t.live.registered()
	for _, name := range sortedKeys(all) {
		out = append(out, t.viewKey(ctx, name, all[name]))
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Key returns one of them.
func (t *Tenant) Key(ctx context.Context, name string) (*KeyView, error) {
	k := t.live.key(name)
	if k == nil {
		return nil, noKey()
	}
	v := t.viewKey(ctx, name, k)
	return &v, nil
}

func (t *Tenant) viewKey(ctx context.Context, name string, k *record.TenantKey) KeyView {
	v := KeyView{Name: name, TenantKey: k, Place: t.placeOf(k)}
	c := t.openedKey(k.ID)
	if c == nil {
		if needed(k) {
			v.Fault = vocab.Errorf(vocab.ReasonCustodianUnreachable, "the operator's file does not name its custodian %s", k.Custodian).
				WithNext("Put it back into the tenant's file")
		}
		return v
	}
	if keys.State(k.State) == keys.Destroyed {
		return v // what its custodian still says of it is of no use to anybody
	}
	if v.Facts, v.Fault = c.Describe(ctx); v.Fault == nil {
		t.opened.mu.Lock()
		v.Fault = t.opened.faults[k.ID]
		t.opened.mu.Unlock()
	}
	if v.Fault == nil {
		v.Fault = lossFault(k, v.Facts)
	}
	return v
}

// placeOf is where the operator's file says that a key is; zero if the file does
// not name its custodian.
func (t *Tenant) placeOf(k *record.TenantKey) (out Place) {
	if k.Elsewhere != 0 {
		return out // whatever has that name here is another
	}
	for _, p := range t.custodians.Named() {
		if p.Name == k.Custodian {
			out = p
		}
	}
	return out
}

// openedKeys returns the custodians of all keys that could be opened.
func (t *Tenant) openedKeys() []keys.Custodian {
	t.opened.mu.Lock()
	defer t.opened.mu.Unlock()
	return slices.Clone(t.opened.list)
}

func (t *Tenant) openedKey(id vocab.CustodianID) keys.Custodian {
	for _, c := range t.openedKeys() {
		if c.ID() == id {
			return c
		}
	}
	return nil
}

// Registration is a key that shall be registered.
type Registration struct {
	Name, Custodian string
	// Root and Sign are the names of the two keys there; "root" and "sign" if
	// empty, which means nothing for a keyring.
	Root, Sign string
	// Provenance is what the custodian states of its newest version; may be nil.
	Provenance *record.Provenance
}

func (r *Registration) check() error {
	bad := func(format string, args ...any) error {
		return vocab.Errorf(vocab.ReasonRequestInvalid, format, args...)
	}
	if r.Root == "" {
		r.Root = rootKeyName
	}
	if r.Sign == "" {
		r.Sign = signKeyName
	}
	switch {
	case !vocab.ValidSlug(r.Name):
		return bad("%q cannot be the name of a key: 1 to 63 of a-z, 0-9 and hyphens", r.Name)
	case len(r.Root) > 128 || len(r.Sign) > 128:
		return bad("the name of a key at a custodian has at most 128 bytes")
	case r.Root == r.Sign:
		return bad("the root key and the signing key are two keys")
	}
	return nil
}

// RegisterKey makes a key at a custodian known, pre-active: it is read, judged
// and tried, and what it says is written down. Nothing is wrapped by it before
// [Tenant.ActivateKey]. Whatever is wrong with it is the error, with the
// reasons of [keys.Custodian], and nothing is registered.
func (t *Tenant) RegisterKey(ctx context.Context, c Call, reg Registration) (*KeyView, vocab.EventID, error) {
	e := t.newEvent(audit.KindKeyRegistered, c, t.now())
	e.Target = record.KeyName(reg.Name)
	if err := reg.check(); err != nil {
		return nil, vocab.EventID{}, err
	}
	k, custodian, err := t.tryKey(ctx, reg, e)
	if err != nil {
		return nil, vocab.EventID{}, t.refuse(ctx, e, err)
	}
	e.Custodian, e.KeyVersion, e.Detail = k.ID, k.RootLatest, "pre-active; "+placeText(k)
	_, event, err := t.changeResourceBy(ctx, e, func(_ store.Reader, now *record.Resource, _ *audit.Event) ([]byte, error) {
		if now != nil {
			return nil, vocab.Errorf(vocab.ReasonResourceExists, "there is a key %s already", reg.Name).WithNext("Choose another name")
		}
		if err := t.mayRegister(k); err != nil {
			return nil, err
		}
		return k.Encode()
	}, false)
	if err != nil {
		return nil, vocab.EventID{}, errors.Join(err, custodian.Close())
	}
	t.opened.mu.Lock()
	t.opened.list = append(t.opened.list, custodian)
	t.opened.mu.Unlock()
	t.allow(k.Custodian)
	t.ring.Add(custodian)
	t.adoptRoots()
	v := t.viewKey(ctx, reg.Name, t.live.key(reg.Name))
	return &v, event, nil
}

// mayRegister refuses a key that is registered under another name: two keys
// that are one would be destroyed together.
func (t *Tenant) mayRegister(k *record.TenantKey) error {
	all := t.live.registered()
	if len(all) >= maxKeys {
		return vocab.Errorf(vocab.ReasonOverloaded, "the tenant has %d keys, as many as may be", len(all))
	}
	for name, other := range all {
		same := other.Cluster == k.Cluster && other.Custodian == k.Custodian && other.Root == k.Root
		if needed(other) && (same || keys.Kind(k.Kind) == keys.KindEmbedded && other.Cluster == k.Cluster) {
			return vocab.Errorf(vocab.ReasonResourceExists, "this key is registered as %s already", name).WithNext("See rmsctl key list")
		}
	}
	return nil
}

// tryKey opens a key that shall be registered and proves that it can be used.
// The caller closes the custodian unless it keeps it.
func (t *Tenant) tryKey(ctx context.Context, reg Registration, e *audit.Event) (*record.TenantKey, keys.Custodian, error) {
	i := slices.IndexFunc(t.custodians.Named(), func(p Place) bool { return p.Name == reg.Custodian })
	if i < 0 {
		var names []string
		for _, p := range t.custodians.Named() {
			names = append(names, p.Name)
		}
		return nil, nil, vocab.Errorf(vocab.ReasonResourceNotFound, "the tenant's file names no custodian %q", reg.Custodian).
			WithNext("It names %s; the operator adds others and reloads", strings.Join(names, ", "))
	}
	kind := t.custodians.Named()[i].Kind
	if kind == keys.KindEmbedded {
		reg.Root, reg.Sign = rootKeyName, signKeyName // it has no others
	}
	k := &record.TenantKey{
		ID: vocab.NewCustodianID(), Custodian: reg.Custodian, Kind: string(kind), Root: reg.Root, Sign: reg.Sign,
		State: uint8(keys.PreActive), Since: record.ToMillis(e.Time), Registered: record.ToMillis(e.Time),
	}
	custodian, err := t.custodians.Open(k.ID, k.Custodian, k.Root, k.Sign)
	if err != nil {
		return nil, nil, err
	}
	facts, err := custodian.Describe(ctx)
	if err == nil {
		err = facts.Safe()
	}
	if err == nil {
		err = custodian.Check(ctx)
	}
	if vocab.ReasonOf(err) == vocab.ReasonCustodianRefused {
		err = vocab.Errorf(vocab.ReasonCustodianRefused, "the custodian does not let the service use the keys %s and %s", k.Root, k.Sign).
			WithNext("Give its login the policy for them (deploy/vault), then register the key again").Because(err)
	}
	if err != nil {
		return nil, nil, errors.Join(err, custodian.Close())
	}
	k = noted(k, facts.MarkOf(keys.Mark{}), facts, e.Time)
	for i := range k.Versions {
		k.Versions[i].ClaimedBy = e.Principal.Name // who registers it
	}
	if v := k.Version(k.RootLatest); v != nil && reg.Provenance != nil {
		v.Provenance = reg.Provenance
	}
	if len(facts.RequestIDs) > 0 {
		e.CustodianRequest = facts.RequestIDs[0]
	}
	return k, custodian, nil
}

// ActivateKey makes a registered key the one that wraps and signs what is new.
// The one before only opens from then on. Clients that pinned the root before
// follow, because it signs the trust bundle that names the next one: if it cannot
// be reached, the key is not activated unless alone is set, and then every client
// has to sign in anew. When it returns, what is new is under the new key, or
// will be as soon as its custodian answers again. What was wrapped before moves to
// it by a rewrap, unless leave says that it shall stay for now.
func (t *Tenant) ActivateKey(ctx context.Context, c Call, name string, alone, leave bool) (*KeyView, vocab.EventID, error) {
	k := t.live.key(name)
	if k == nil {
		return nil, vocab.EventID{}, noKey()
	}
	if keys.State(k.State) == keys.Active {
		event, err := t.RecordRead(ctx, c.Caller, c.Method)
		v := t.viewKey(ctx, name, k)
		return &v, event, err
	}
	e := t.newEvent(audit.KindKeyActivated, c, t.now())
	e.Target, e.Custodian = record.KeyName(name), k.ID
	event, err := t.activate(ctx, e, name, k, alone)
	if err != nil {
		return nil, vocab.EventID{}, t.refuse(ctx, e, err)
	}
	// What is left is made good by the next look, if it cannot be done now.
	if err := t.followKey(ctx); err != nil {
		t.logger.Warn("the new key is active, but not everything follows it yet", "tenant", t.name, "key", name, "error", err)
	}
	if !leave {
		t.followUp(ctx, c)
	}
	v := t.viewKey(ctx, name, t.live.key(name))
	return &v, event, nil
}

func (t *Tenant) activate(ctx context.Context, e *audit.Event, name string, k *record.TenantKey, alone bool) (vocab.EventID, error) {
	next := t.openedKey(k.ID)
	if next == nil {
		return vocab.EventID{}, vocab.Errorf(vocab.ReasonCustodianUnreachable, "the operator's file does not name custodian %s", k.Custodian).
			WithNext("Put it back into the tenant's file")
	}
	changes, err := t.ring.Sync(ctx, k.ID)
	if err != nil {
		return vocab.EventID{}, err
	}
	facts := changes[k.ID].Facts
	if err := changes[k.ID].Err; err != nil {
		return vocab.EventID{}, err
	}
	if err := next.Check(ctx); err != nil {
		return vocab.EventID{}, err
	}
	var previous license.Signer
	if old := t.active(); old != nil && old.ID() != k.ID {
		root, err := keys.CurrentRoot(ctx, old)
		current, _ := facts.Sign.PublicKey(0)
		switch {
		case err == nil && !root.PublicKey().Equal(current):
			previous = root
		case err != nil && !alone:
			return vocab.EventID{}, vocab.Errorf(vocab.ReasonOf(err), "the key that is active now cannot sign the way to the next one: %w", err).
				WithNext("Bring its custodian back, or activate without it: then every client has to sign in anew")
		case err != nil:
			e.Detail = "without the signature of the key before; clients sign in anew"
		}
	}
	t.trust.renewing.Lock()
	defer t.trust.renewing.Unlock()
	bundle, err := t.nextBundle(ctx, next, facts, *t.settings.Load(), previous)
	if err != nil {
		return vocab.EventID{}, err
	}
	e.KeyVersion = facts.Root.Latest
	return e.ID, t.commit(ctx, func(tx store.Tx) error {
		if err := t.deactivateKeys(tx, e, name); err != nil {
			return err
		}
		if _, err := t.putResource(tx, e.Target, e, editKey(func(k *record.TenantKey) error {
			if s := keys.State(k.State); s != keys.PreActive && s != keys.Deactivated {
				return badMove("key "+name, s, keys.Active)
			}
			k.State, k.Since, k.Why = uint8(keys.Active), record.ToMillis(e.Time), ""
			return nil
		})); err != nil {
			return err
		}
		return t.putBundle(tx, bundle)
	}, e)
}

// deactivateKeys takes the active key out of use for what is new, in the
// transaction of the event that makes another one active.
func (t *Tenant) deactivateKeys(tx store.Tx, because *audit.Event, name string) error {
	for other, k := range t.live.registered() {
		if other == name || keys.State(k.State) != keys.Active {
			continue
		}
		e := t.newEvent(audit.KindKeyRetired, Call{}, because.Time)
		e.Target, e.Custodian, e.Parent, e.Detail = record.KeyName(other), k.ID, because.ID, keys.Deactivated.String()
		if _, err := t.putResource(tx, e.Target, e, editKey(func(k *record.TenantKey) error {
			k.State, k.Since, k.Why = uint8(keys.Deactivated), record.ToMillis(e.Time), ""
			return nil
		})); err != nil {
			return err
		}
		if err := t.log.Append(tx, e); err != nil {
			return err
		}
	}
	return nil
}

// followKey makes what is new follow the active key and its newest version, by a
// generation of its own. The daemon's signing keys follow at half their life:
// until then the root before, which clients know, vouches for them.
func (t *Tenant) followKey(ctx context.Context) error {
	active := t.active()
	if t.live.activeGeneration() == nil && len(t.ring.Inventory()) > 0 {
		return nil // suspended on purpose
	}
	_, k := t.live.keyByID(active.ID())
	if g := t.live.activeGeneration(); g != nil && k != nil && g.MadeBy == k.ID && g.MadeVersion >= claimedVersion(k) {
		return nil
	}
	_, err := t.ring.NewGeneration(ctx)
	return err
}

// claimedVersion is the newest version of a key that was meant: what is new is
// expected under it. A version that nobody asked for gets no generation.
func claimedVersion(k *record.TenantKey) (newest uint32) {
	for _, v := range k.Versions {
		if v.Claim == record.Claimed {
			newest = v.Number
		}
	}
	return newest
}

// SyncKey looks at a key now, because its custodian acted on it, and takes the
// versions that were found for the caller's: they are not alarmed. What is
// stated of the newest is written down. If it is the active key and has a newer
// version, what is new follows it when this returns.
func (t *Tenant) SyncKey(ctx context.Context, c Call, name string, stated *record.Provenance, leave bool) (*KeyView, vocab.EventID, error) {
	k := t.live.key(name)
	if k == nil {
		return nil, vocab.EventID{}, noKey()
	}
	e := t.newEvent(audit.KindKeyClaimed, c, t.now())
	e.Target, e.Custodian = record.KeyName(name), k.ID
	if t.openedKey(k.ID) == nil {
		v := t.viewKey(ctx, name, k)
		return nil, vocab.EventID{}, t.refuse(ctx, e, v.Fault)
	}
	changes, err := t.ring.Sync(ctx, k.ID)
	if err == nil {
		err = changes[k.ID].Err
	}
	if err != nil {
		return nil, vocab.EventID{}, t.refuse(ctx, e, t.alarm(ctx, k.ID, err))
	}
	if err := t.alarmLosses(ctx, changes); err != nil {
		return nil, vocab.EventID{}, err
	}
	_, event, err := t.changeResourceBy(ctx, e, func(r store.Reader, now *record.Resource, e *audit.Event) ([]byte, error) {
		return editKey(func(k *record.TenantKey) error {
			return claim(k, e, stated, changes[k.ID].Facts)
		})(r, now, e)
	}, false)
	if err != nil {
		return nil, vocab.EventID{}, err
	}
	if keys.State(k.State) == keys.Active {
		if err := t.followKey(ctx); err != nil {
			t.logger.Warn("the key was looked at, but not everything follows it yet", "tenant", t.name, "key", name, "error", err)
		}
		if !leave {
			t.followUp(ctx, c)
		}
	}
	v := t.viewKey(ctx, name, t.live.key(name))
	return &v, event, nil
}

// claim takes every version that nobody claimed for the caller's.
func claim(k *record.TenantKey, e *audit.Event, stated *record.Provenance, f *keys.Facts) error {
	k.Versions = slices.Clone(k.Versions)
	var claimed []string
	for i := range k.Versions {
		if v := &k.Versions[i]; v.Claim != record.Claimed {
			v.Claim, v.ClaimedBy = record.Claimed, e.Principal.Name
			claimed = append(claimed, fmt.Sprintf("v%d", v.Number))
		}
	}
	if v := k.Version(k.RootLatest); v != nil && stated != nil {
		switch p := v.Provenance; {
		case p == nil:
			v.Provenance = stated
			claimed = append(claimed, "provenance stated")
		case stated.Proven == 1 && len(p.Fingerprint) > 0 && slices.Equal(p.Fingerprint, stated.Fingerprint):
			next := *p
			next.Proven = 1
			v.Provenance = &next
			claimed = append(claimed, "proven")
		default:
			return vocab.Errorf(vocab.ReasonResourceExists, "where version %d comes from was stated already", v.Number).
				WithNext("It stays as it was stated first")
		}
	}
	k.Rotates = record.Millis(f.Root.AutoRotate.Milliseconds())
	e.KeyVersion, e.Detail = k.RootLatest, "looked at; "+strings.Join(claimed, ", ")
	if len(claimed) == 0 {
		e.Detail = "looked at; nothing new"
	}
	return nil
}

// claimInTime raises an alarm for every version that appeared at a custodian and
// that no key custodian said was meant.
func (t *Tenant) claimInTime(ctx context.Context) error {
	for name, k := range t.live.registered() {
		overdue := func(v *record.KeyVersion) bool {
			return v.Claim == record.Unclaimed && t.now().Sub(v.Seen.Time()) > claimGrace
		}
		if !slices.ContainsFunc(k.Versions, func(v record.KeyVersion) bool { return overdue(&v) }) {
			continue
		}
		e := t.newEvent(audit.KindAlarm, Call{}, t.now())
		e.Target, e.Custodian, e.KeyVersion = record.KeyName(name), k.ID, k.RootLatest
		e.Alarm, e.Reason = true, vocab.ReasonRotationUnclaimed
		e.Detail = "a version of the key appeared at its custodian that nobody asked for"
		if _, _, err := t.changeResourceBy(ctx, e, func(r store.Reader, now *record.Resource, e *audit.Event) ([]byte, error) {
			return editKey(func(k *record.TenantKey) error {
				k.Versions = slices.Clone(k.Versions)
				for i := range k.Versions {
					if overdue(&k.Versions[i]) {
						k.Versions[i].Claim = record.Alarmed
					}
				}
				return nil
			})(r, now, e)
		}, false); err != nil {
			return err
		}
	}
	return nil
}

// Probe is something that is no secret, sealed by a key.
type Probe struct {
	Version                        uint32
	Context, Plaintext, Ciphertext []byte
	RequestID                      string
}

// ProbeKey has a key seal the payload of a generation that does not
// exist and never will, so that whoever has the key at hand can see that it is
// the one.
func (t *Tenant) ProbeKey(ctx context.Context, c Call, name string) (*Probe, vocab.EventID, error) {
	k := t.live.key(name)
	if k == nil {
		return nil, vocab.EventID{}, noKey()
	}
	e := t.newEvent(audit.KindRead, c, t.now())
	e.Target, e.Custodian, e.Detail = record.KeyName(name), k.ID, "probe"
	custodian := t.openedKey(k.ID)
	if custodian == nil {
		return nil, vocab.EventID{}, t.refuse(ctx, e, t.viewKey(ctx, name, k).Fault)
	}
	secret, b := vocab.NewSecret(), keys.TenantBinding(t.id, vocab.NewGenerationID())
	defer secret.Zero()
	wraps, err := custodian.Wrap(ctx, []keys.WrapItem{{Binding: b, Secret: secret}})
	if err == nil && len(wraps) != 1 {
		err = keys.Integrity(errors.New("one wrap was asked for"))
	}
	if err == nil {
		err = wraps[0].Err
	}
	if err != nil {
		return nil, vocab.EventID{}, t.refuse(ctx, e, err)
	}
	w, sum := wraps[0], b.Sum()
	e.KeyVersion, e.CustodianRequest = w.Wrap.L0Version, w.RequestID
	if err := t.commit(ctx, func(store.Tx) error { return nil }, e); err != nil {
		return nil, vocab.EventID{}, err
	}
	return &Probe{
		Version: w.Wrap.L0Version, Context: sum[:], Plaintext: b.Payload(secret), Ciphertext: w.Wrap.Ciphertext, RequestID: w.RequestID,
	}, e.ID, nil
}

// RotateKey makes a new version of a key whose custodian is this daemon itself.
// A key in Vault is rotated by its custodian, with rights of their own, who then
// calls SyncKey: CUSTODIAN_ACTS.
func (t *Tenant) RotateKey(ctx context.Context, c Call, name string, leave bool) (*KeyView, vocab.EventID, error) {
	k := t.live.key(name)
	if k == nil {
		return nil, vocab.EventID{}, noKey()
	}
	rotator, ok := t.openedKey(k.ID).(keys.Rotator)
	if !ok {
		e := t.newEvent(audit.KindKeyRotated, c, t.now())
		e.Target, e.Custodian = record.KeyName(name), k.ID
		return nil, vocab.EventID{}, t.refuse(ctx, e, vocab.Errorf(vocab.ReasonCustodianActs, "the key %s is rotated at its custodian, with a key custodian's own rights there", name).
			WithNext("Run rmsctl key rotate, which does it with your own Vault token"))
	}
	if _, err := rotator.RotateRoot(ctx); err != nil {
		return nil, vocab.EventID{}, err
	}
	return t.SyncKey(ctx, c, name, nil, leave)
}
