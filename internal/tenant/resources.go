package tenant

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/directory"
	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/operation"
	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// live is what decisions read of the tenant's resources, kept in memory. It is
// read and verified when the tenant is opened, and follows every change in the
// order in which the changes became durable. What was decided on it is compared
// in the transaction that records the decision, by its epoch.
type live struct {
	mu          sync.RWMutex
	epoch       uint64
	pending     map[uint64]*record.Resource // durable, but an earlier one is not here yet
	arrived     chan struct{}               // closed when the epoch grows; nil while nobody waits
	directory   directory.Directory
	revocations policy.RevocationIndex
	// operations are those that go on; bell rings when one changed.
	operations map[vocab.OperationID]goingOn
	bell       bell
	approvers  *operation.ApproverSet // nil while there are none
	watchers   map[*watcher]struct{}
	// keys are the registered keys by name, generations those of the tenant by
	// number. ring follows them, once there is one.
	keys        map[string]*record.TenantKey
	generations map[uint32]*record.Generation
	ring        *keys.Ring
	// hold keeps a restored tenant from publishing and opening; nil: nothing does.
	hold *record.Hold
	// residence is where the tenant lives; nil if nobody ever moved it.
	residence *record.Residence
}

// watcher is called after every change of what decisions read.
type watcher struct{ look func() }

// watch has look called after every change, before the change returns to whoever
// made it. look must be short.
func (l *live) watch(look func()) (stop func()) {
	w := &watcher{look}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.watchers == nil {
		l.watchers = map[*watcher]struct{}{}
	}
	l.watchers[w] = struct{}{}
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.watchers, w)
	}
}

// changed calls the watchers.
func (l *live) changed() {
	l.mu.RLock()
	all := slices.Collect(maps.Keys(l.watchers))
	l.mu.RUnlock()
	for _, w := range all {
		w.look()
	}
}

// take takes over a resource whose writing made the epoch what it is. Commits
// return to several callers at once, so one may come before its predecessor.
func (l *live) take(epoch uint64, s *record.Resource) {
	l.apply(epoch, s)
	l.changed()
}

func (l *live) apply(epoch uint64, s *record.Resource) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pending == nil {
		l.pending = map[uint64]*record.Resource{}
	}
	l.pending[epoch] = s
	for {
		next := l.pending[l.epoch+1]
		if next == nil {
			return
		}
		delete(l.pending, l.epoch+1)
		l.epoch++
		// It was decoded before it was written, so that it can be.
		_ = l.set(next)
		if strings.HasPrefix(next.Name, record.PrefixOperations) {
			l.bell.ring()
		}
		if l.arrived != nil {
			close(l.arrived)
			l.arrived = nil
		}
	}
}

// set puts one resource into force.
func (l *live) set(s *record.Resource) error {
	gone := s.Gone != 0
	switch {
	case strings.HasPrefix(s.Name, record.PrefixGroups):
		if gone {
			l.directory.RemoveGroup(s.ID())
			return nil
		}
		g, err := record.DecodeGroup(s.Body)
		if err == nil {
			l.directory.SetGroup(s.ID(), g.Members)
		}
		return err
	case strings.HasPrefix(s.Name, record.PrefixRoles):
		role, err := vocab.ParseRole(s.ID())
		if err != nil {
			return err
		}
		if gone {
			l.directory.RemoveHolders(role)
			return nil
		}
		h, err := record.DecodeHolders(s.Body)
		if err == nil {
			l.directory.SetHolders(role, h.Principals)
		}
		return err
	case strings.HasPrefix(s.Name, record.PrefixPrincipals):
		p, err := vocab.ParsePrincipal(s.ID())
		if err == nil {
			l.directory.SetDisabled(p, !gone)
		}
		return err
	case strings.HasPrefix(s.Name, record.PrefixRevocations):
		return l.setRevocation(s)
	case strings.HasPrefix(s.Name, record.PrefixOperations):
		return l.setOperation(s)
	case strings.HasPrefix(s.Name, record.PrefixKeys):
		return l.setKey(s)
	case strings.HasPrefix(s.Name, record.PrefixGenerations):
		return l.setGeneration(s)
	case s.Name == record.NameResidence:
		return l.setResidence(s)
	case s.Name == record.NameApprovers:
		return l.setApprovers(s)
	case s.Name == record.NameHold:
		return l.setHold(s)
	}
	return nil // nothing that decisions read
}

// at reports whether memory is what the store holds at an epoch.
func (l *live) at(epoch uint64) bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.epoch == epoch
}

// catchUp waits until what is durable now is in memory.
func (t *Tenant) catchUp(ctx context.Context) error {
	var want uint64
	err := t.store.View(ctx, func(r store.Reader) (err error) {
		want, err = record.Epoch(r, t.id)
		return err
	})
	if err != nil {
		return err
	}
	for {
		t.live.mu.Lock()
		if t.live.epoch >= want {
			t.live.mu.Unlock()
			return nil
		}
		if t.live.arrived == nil {
			t.live.arrived = make(chan struct{})
		}
		arrived := t.live.arrived
		t.live.mu.Unlock()
		select {
		case <-arrived:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// load reads and verifies every resource. One that the log does not know, or
// knows otherwise, or that the log knows and that is not there, is a
// contradiction: without its disabled principals the tenant must not serve.
func (l *live) load(r store.Reader, t vocab.TenantID) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := eachResource(r, t, l.set); err != nil {
		return err
	}
	epoch, err := record.Epoch(r, t)
	l.epoch = epoch
	return err
}

// eachResource verifies every resource of a tenant and calls fn with it.
func eachResource(r store.Reader, t vocab.TenantID, fn func(*record.Resource) error) error {
	there := map[string]vocab.EventID{}
	writers := map[uint64]*audit.Event{} // by index
	tree, err := audit.NewProver(r, t)
	if err != nil {
		return err
	}
	err = record.ListResources(r, t, "", "", func(s *record.Resource) (bool, error) {
		writer, err := verifyState(r, t, s.Name, s.LastEvent, s.State)
		if err == nil {
			err = tree.Prove(writer)
		}
		if err == nil && writer.Event.Target != s.Name {
			err = contradicts(s.Name)
		}
		if err != nil {
			return false, err
		}
		there[s.Name], writers[writer.Index] = s.LastEvent, writer.Event
		return true, fn(s)
	})
	if err != nil {
		return err
	}
	return audit.EachTarget(r, t, writers, func(e *audit.Event) error {
		if isResource(e.Target) && there[e.Target] != e.ID {
			return contradicts(e.Target)
		}
		return nil
	})
}

// isResource tells the names of resources from the other targets of events.
func isResource(target string) bool {
	for _, prefix := range []string{
		record.PrefixGroups, record.PrefixRoles, record.PrefixPrincipals, record.PrefixRevocations, record.PrefixOperations,
		record.PrefixKeys, record.PrefixGenerations, record.PrefixBackups,
	} {
		if strings.HasPrefix(target, prefix) {
			return true
		}
	}
	return target == record.NameApprovers || target == record.NameResidence
}

// resource reads and verifies one resource; nil if there is none or it is gone.
func (t *Tenant) resource(r store.Reader, name string) (*record.Resource, error) {
	s, err := record.GetResource(r, t.id, name)
	if err != nil {
		return nil, err
	}
	last, err := audit.LastTargetWriter(r, t.id, name)
	switch {
	case err != nil:
		return nil, err
	case s == nil && last == nil:
		return nil, nil
	case s == nil || last == nil || last.ID != s.LastEvent:
		return nil, contradicts(name)
	}
	if _, err := verifyState(r, t.id, name, s.LastEvent, s.State); err != nil {
		return nil, err
	}
	if s.Gone != 0 {
		return nil, nil
	}
	return s, nil
}

// resourceEdit decides what becomes of a resource: its new body, or nil to
// delete it. now is the current one, nil if there is none. It may read in r and
// complete the event, and is called again when something changed meanwhile.
type resourceEdit func(r store.Reader, now *record.Resource, e *audit.Event) (body []byte, err error)

// changeResource is the way of every change to a resource: decide, write with
// the event, and put into force what was written before the call returns. No
// other resource changes between the decision and the writing.
func (t *Tenant) changeResource(ctx context.Context, c Call, kind audit.Kind, name string, edit resourceEdit) (*record.Resource, vocab.EventID, error) {
	return t.changeResourceOr(ctx, c, kind, name, edit, false)
}

// changeResourceOr is changeResource, or with dryRun a check of the edit that
// is recorded like a read and writes nothing.
func (t *Tenant) changeResourceOr(ctx context.Context, c Call, kind audit.Kind, name string, edit resourceEdit, dryRun bool) (*record.Resource, vocab.EventID, error) {
	first := t.newEvent(kind, c, t.now())
	first.Target, first.Operation = name, operationOf(name)
	return t.changeResourceBy(ctx, first, edit, dryRun)
}

// changeResourceBy is changeResourceOr by an event that is there already and
// names the resource as its target.
func (t *Tenant) changeResourceBy(ctx context.Context, first *audit.Event, edit resourceEdit, dryRun bool) (*record.Resource, vocab.EventID, error) {
	out, event, err := t.tryResource(ctx, first, edit, dryRun)
	if err != nil {
		return nil, vocab.EventID{}, t.refuse(ctx, first, err)
	}
	return out, event, nil
}

// tryResource is changeResourceBy for what nobody asks for: a refusal is no
// event.
func (t *Tenant) tryResource(ctx context.Context, first *audit.Event, edit resourceEdit, dryRun bool) (*record.Resource, vocab.EventID, error) {
	name := first.Target
	for range maxAttempts {
		var out *record.Resource
		own := *first
		e := &own
		err := t.commit(ctx, func(tx store.Tx) error {
			// All of it in the transaction: edits are rare and small. What is in
			// memory must be what tx sees, for edits look there too.
			epoch, err := record.Epoch(tx, t.id)
			if err != nil {
				return err
			}
			if !t.live.at(epoch) {
				return errStale
			}
			if dryRun {
				out, err = t.nextResource(tx, name, e, edit)
				e.Kind, e.State = audit.KindRead, [32]byte{}
				return err
			}
			out, err = t.putResource(tx, name, e, edit)
			return err
		}, e)
		if err == errStale { //nolint:errorlint // our own sentinel, unwrapped
			if err := t.catchUp(ctx); err != nil {
				return nil, vocab.EventID{}, err
			}
			continue
		}
		return out, e.ID, err
	}
	return nil, vocab.EventID{}, tooBusy()
}

// putResource writes a resource in a transaction whose event the caller
// appends.
func (t *Tenant) putResource(tx store.Tx, name string, e *audit.Event, edit resourceEdit) (*record.Resource, error) {
	next, err := t.nextResource(tx, name, e, edit)
	if err != nil {
		return nil, err
	}
	epoch, err := record.PutResource(tx, t.id, next)
	if err != nil {
		return nil, err
	}
	tx.AfterCommit(func() { t.live.take(epoch, next) })
	return next, nil
}

// nextResource makes what an edit writes, and completes its event.
func (t *Tenant) nextResource(r store.Reader, name string, e *audit.Event, edit resourceEdit) (*record.Resource, error) {
	now, err := t.resource(r, name)
	if err != nil {
		return nil, err
	}
	body, err := edit(r, now, e)
	if err != nil {
		return nil, err
	}
	// A tombstone counts on: revisions of a name never repeat.
	before, err := record.GetResource(r, t.id, name)
	if err != nil {
		return nil, err
	}
	next := &record.Resource{Name: name, Revision: 1, Updated: record.ToMillis(e.Time), LastEvent: e.ID, Body: body}
	if before != nil {
		next.Revision = before.Revision + 1
	}
	if body == nil {
		next.Gone = 1
	}
	e.State, err = next.State()
	return next, err
}

// standing is what the tenant's resources say of a caller, at an epoch.
type standing struct {
	caller   *vocab.Identity // with the groups of the tenant's directory
	disabled bool
	epoch    uint64
	// suspect is the caller as revocations see one: in the groups of every
	// address, and so is the service that calls for them. nil: there are none.
	suspect  *vocab.Identity
	rules    *live // the revocations by rule
	lineages bool  // some of them ask what a license was made from
}

// standingOf looks a caller up.
func (t *Tenant) standingOf(caller *vocab.Identity, settings record.Settings) standing {
	known := policy.KnownAs(caller, settings.GuestDomains)
	t.live.mu.RLock()
	defer t.live.mu.RUnlock()
	d := &t.live.directory
	// Whoever comes through a disabled service is refused as the service is.
	s := standing{
		caller: withGroups(caller, d.Groups(known)), epoch: t.live.epoch, disabled: d.Disabled(allNames(caller)),
		rules: &t.live, lineages: t.live.revocations.Lineages(),
	}
	if t.live.revocations.Len() > 0 {
		s.suspect = suspect(d, caller)
	}
	return s
}

// withGroups is an identity that is in further groups.
func withGroups(id *vocab.Identity, groups []string) *vocab.Identity {
	if len(groups) == 0 {
		return id
	}
	with := *id
	with.Groups = append(slices.Clip(id.Groups), groups...)
	return &with
}

// suspect is an identity, and the service that calls for it, in every group
// that one of their names is in.
func suspect(d *directory.Directory, id *vocab.Identity) *vocab.Identity {
	all := names(id)
	for _, g := range id.Groups {
		all = append(all, vocab.Principal{Kind: vocab.KindGroup, Value: g})
	}
	out := withGroups(id, d.Groups(all))
	if id.Actor != nil {
		with := *out
		with.Actor = suspect(d, id.Actor)
		out = &with
	}
	return out
}

// names is what an identity can be disabled by: every address that is verified,
// whether or not its domain counts here.
func names(id *vocab.Identity) []vocab.Principal {
	var out []vocab.Principal
	for _, a := range id.Addresses {
		out = append(out, vocab.Principal{Kind: vocab.KindUser, Value: a})
	}
	if id.Service != "" {
		out = append(out, vocab.Principal{Kind: vocab.KindService, Value: id.Service})
	}
	return out
}

// allNames are the names of a caller and of the service that acts for them.
func allNames(id *vocab.Identity) []vocab.Principal {
	out := names(id)
	if id.Actor != nil {
		out = append(out, names(id.Actor)...)
	}
	return out
}
