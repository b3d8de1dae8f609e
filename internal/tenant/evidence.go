package tenant

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/evidence"
	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/operation"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// evidenceLife is how long the key that signs a bundle of evidence is certified
// for. It signs that one and is forgotten.
const evidenceLife = time.Hour

// aboutDocuments are the kinds of operations that belong to documents and
// people, not to keys: evidence says nothing of them. Whatever is not named here
// is in it.
var aboutDocuments = map[operation.Kind]bool{
	operation.TemplateUpdate: true, operation.LicenseUpdate: true, operation.Recovery: true, operation.Transfer: true,
}

// notCustody begins the names of resources that belong to documents and people.
var notCustody = []string{record.PrefixGroups, record.PrefixPrincipals, record.PrefixRevocations}

// EvidenceScope says what evidence shall be about; the zero value is all of it.
type EvidenceScope struct {
	// Key is the name of one key; empty: all.
	Key string
	// Since leaves events before it out, but for those that say how something
	// is now.
	Since time.Time
	// From is the size of an earlier checkpoint that the log shall be shown to
	// continue; 0: none.
	From uint64
}

// Evidence looks at every key at its custodian and returns a signed bundle of
// what proves the life of the tenant's keys: see package evidence. It is signed
// by a key that the tenant's root certifies for it, so a tenant whose active key
// is switched off makes none. It has verified as an auditor would verify it.
func (t *Tenant) Evidence(ctx context.Context, c Call, scope EvidenceScope) ([]byte, vocab.EventID, error) {
	if !t.provingKeys.TryLock() {
		return nil, vocab.EventID{}, oneAtATime("evidence is being made for somebody else")
	}
	defer t.provingKeys.Unlock()
	e := t.newEvent(audit.KindEvidenceMade, c, t.now())
	x := &extract{t: t, scope: scope, event: e.ID}
	if scope.Key != "" {
		k := t.live.key(scope.Key)
		if k == nil {
			return nil, vocab.EventID{}, noKey()
		}
		x.key = k.ID
	}
	b, err := t.makeEvidence(ctx, x, e)
	if err != nil && x.recorded {
		made := e.ID
		e = t.newEvent(audit.KindEvidenceMade, c, t.now())
		e.Parent = made
	}
	if err != nil {
		return nil, vocab.EventID{}, t.refuse(ctx, e, err)
	}
	return b, e.ID, nil
}

// oneAtATime refuses what costs much while it is being done for another caller.
func oneAtATime(what string) error {
	return vocab.Errorf(vocab.ReasonOverloaded, "%s", what).WithNext("Try again when it is done")
}

func (t *Tenant) makeEvidence(ctx context.Context, x *extract, e *audit.Event) ([]byte, error) {
	changes, err := t.ring.Sync(ctx)
	if err != nil {
		return nil, err
	}
	signing, err := t.evidenceSigner(ctx)
	if err != nil {
		return nil, err
	}
	e.Target, e.Custodian, e.NotAfter = "certificate "+signing.Certificate.ID.String(), t.active().ID(), signing.Certificate.NotAfter
	if x.scope.Key != "" {
		e.Detail = "key " + x.scope.Key
	}
	if err := t.commit(ctx, func(store.Tx) error { return nil }, e); err != nil {
		return nil, err
	}
	x.recorded = true
	content, err := x.content(ctx)
	if err != nil {
		return nil, err
	}
	if content.Facts, err = x.facts(ctx, changes); err != nil {
		return nil, err
	}
	b, err := evidence.Seal(ctx, signing.Signer, signing.Certificate, license.Evidence{
		Tenant: t.id, IssuedAt: t.now().UTC().Truncate(time.Millisecond), Event: e.ID, Since: x.scope.Since.UTC().Truncate(time.Millisecond), Key: x.scope.Key,
	}, content)
	if err != nil {
		return nil, err
	}
	// The store is not trusted: what it says must hold for whoever gets it.
	_, err = evidence.Verify(b, t.rootIDs(), nil)
	return b, err
}

// evidenceSigner has the root of the active key certify a new key for evidence.
func (t *Tenant) evidenceSigner(ctx context.Context) (*keys.Signing, error) {
	active := t.active()
	if active == nil {
		return nil, t.unavailable()
	}
	root, err := keys.CurrentRoot(ctx, active)
	if err != nil {
		return nil, err
	}
	return keys.Certify(ctx, root, license.Certificate{
		Tenant: t.id, Usage: license.UsageEvidence, Instance: "evidence", NotBefore: t.now(), NotAfter: t.now().Add(evidenceLife),
	})
}

// extract is what a bundle is made from.
type extract struct {
	t        *Tenant
	scope    EvidenceScope
	event    vocab.EventID     // that says it was made; recorded: it is in the log
	key      vocab.CustodianID // of the only key it is about; zero: all
	recorded bool
	// names are the resources that are in it, with the event that wrote each.
	names map[string]vocab.EventID
	keys  map[string]*record.TenantKey
}

// content reads everything but the facts. What can be many is read in small
// steps; then one snapshot gives the checkpoint, the resources as they are at
// it, and the proofs.
func (x *extract) content(ctx context.Context) (*evidence.Content, error) {
	t := x.t
	signer, certificate, err := t.CheckpointSigner()
	if err != nil {
		return nil, err
	}
	v := t.trust.verifier.Load()
	if v == nil {
		return nil, t.unavailable()
	}
	n, err := t.log.Size(ctx, t.id)
	if err != nil {
		return nil, err
	}
	var found []audit.Entry
	for entry, err := range t.log.Range(ctx, t.id, 0, n) {
		if err != nil {
			return nil, err
		}
		if found, err = x.collect(found, entry); err != nil {
			return nil, err
		}
	}
	out := &evidence.Content{Trust: v.Bundle().Raw(), Certificate: certificate}
	var checkpoint audit.Checkpoint
	err = t.store.View(ctx, func(r store.Reader) error {
		if checkpoint, err = audit.CheckpointOf(r, t.id, t.now()); err != nil {
			return err
		}
		for at := n; at < checkpoint.Size; at++ {
			entry, err := audit.At(r, t.id, at)
			if err == nil {
				found, err = x.collect(found, entry)
			}
			if err != nil {
				return err
			}
		}
		if out.Transitions, err = record.ListTransitions(r, t.id, evidence.MaxTransitions); err != nil {
			return err
		}
		if err := x.resources(r, out); err != nil {
			return err
		}
		if x.scope.From > 0 {
			p, err := audit.ConsistencyOf(r, t.id, x.scope.From, checkpoint.Size)
			if err != nil {
				return err
			}
			out.Consistency = &evidence.Consistency{From: p.From, FromRoot: p.FromRoot, Path: p.Hashes}
		}
		return x.prove(r, out, found, checkpoint.Size)
	})
	if err != nil {
		return nil, err
	}
	out.Checkpoint, err = checkpoint.Sign(ctx, signer)
	return out, err
}

// collect keeps what may be about keys.
func (x *extract) collect(found []audit.Entry, entry audit.Entry) ([]audit.Entry, error) {
	e := entry.Event
	refused := e.Kind == audit.KindRefused && (strings.HasPrefix(e.Target, record.PrefixKeys) || strings.HasPrefix(e.Target, record.PrefixGenerations))
	if custody := e.Kind >= audit.KindTenantCreated && e.Kind < audit.KindServiceStarted; !custody && !refused {
		return found, nil
	}
	if len(found) == evidence.MaxEvents {
		return nil, vocab.Errorf(vocab.ReasonRequestInvalid, "more than %d events are about keys", evidence.MaxEvents)
	}
	return append(found, entry), nil
}

// resources takes the resources that are about keys.
func (x *extract) resources(r store.Reader, out *evidence.Content) error {
	x.names, x.keys = map[string]vocab.EventID{}, map[string]*record.TenantKey{}
	return record.ListResources(r, x.t.id, "", "", func(s *record.Resource) (bool, error) {
		wanted, err := x.wantsResource(s)
		if err != nil || !wanted {
			return err == nil, err
		}
		b, err := s.Encode()
		if err != nil {
			return false, err
		}
		if len(out.Resources) == evidence.MaxResources {
			return false, vocab.Errorf(vocab.ReasonRequestInvalid, "more than %d resources are about keys", evidence.MaxResources)
		}
		x.names[s.Name] = s.LastEvent
		out.Resources = append(out.Resources, b)
		return true, nil
	})
}

func (x *extract) wantsResource(s *record.Resource) (bool, error) {
	if slices.ContainsFunc(notCustody, func(prefix string) bool { return strings.HasPrefix(s.Name, prefix) }) {
		return false, nil
	}
	switch {
	case s.Gone != 0:
	case strings.HasPrefix(s.Name, record.PrefixOperations):
		o, err := operation.Decode(s.Body)
		if err != nil {
			return false, err
		}
		return !aboutDocuments[o.Kind], nil
	case strings.HasPrefix(s.Name, record.PrefixKeys):
		k, err := record.DecodeTenantKey(s.Body)
		if err != nil || !x.key.IsZero() && k.ID != x.key {
			return false, err
		}
		x.keys[s.ID()] = k
	case strings.HasPrefix(s.Name, record.PrefixGenerations) && !x.key.IsZero():
		g, err := record.DecodeGeneration(s.Body)
		if err != nil {
			return false, err
		}
		if len(g.Wrap) == 0 || g.MadeBy == x.key {
			return g.MadeBy == x.key, nil
		}
		w, err := license.ParseWrap(g.Wrap)
		return err == nil && w.Custodian == x.key, err
	}
	return true, nil
}

// wants says whether an event is about what the evidence is about.
func (x *extract) wants(e *audit.Event) bool {
	written, named := x.names[e.Target]
	switch {
	case e.ID == x.event || named && written == e.ID:
		return true
	case e.Time.Before(x.scope.Since):
		return false
	case named:
		return true
	case strings.HasPrefix(e.Target, record.PrefixKeys) || strings.HasPrefix(e.Target, record.PrefixGenerations):
		return e.Kind == audit.KindRefused && (x.key.IsZero() || e.Custodian == x.key) // another key's
	case !e.Operation.IsZero():
		_, of := x.names[record.OperationName(e.Operation)]
		return of
	case !e.Content.IsZero() || isResource(e.Target) && e.Kind != audit.KindRefused:
		return false
	}
	return x.key.IsZero() || e.Custodian.IsZero() && e.Kind != audit.KindRefused || e.Custodian == x.key
}

// prove adds the events that are wanted, with their proofs.
func (x *extract) prove(r store.Reader, out *evidence.Content, found []audit.Entry, size uint64) error {
	for _, entry := range found {
		if !x.wants(entry.Event) {
			continue
		}
		p, err := audit.InclusionOf(r, x.t.id, entry, size)
		if err != nil {
			return err
		}
		out.Events = append(out.Events, evidence.Event{Index: entry.Index, Leaf: entry.Leaf, Path: p.Hashes})
	}
	return nil
}

// facts are what the custodians of the keys said; what a look finds wrong is an
// alarm here as it is elsewhere.
func (x *extract) facts(ctx context.Context, changes map[vocab.CustodianID]keys.Change) (out []evidence.Facts, err error) {
	t := x.t
	active := t.active().ID()
	for _, name := range slices.Sorted(maps.Keys(x.keys)) {
		k := x.keys[name]
		change, looked := changes[k.ID]
		fault := change.Err
		switch {
		case !looked && needed(k):
			fault = t.viewKey(ctx, name, k).Fault
		case fault != nil && k.ID == active:
			fault = t.alarm(ctx, k.ID, fault)
		case fault != nil:
			if err := t.noteFault(ctx, k.ID, fault); err != nil {
				return nil, err
			}
		}
		out = append(out, evidence.FactsOf(name, k, t.placeOf(k).Text(), change.Facts, fault))
	}
	return out, nil
}
