package evidence

import (
	"bytes"
	"strings"
	"time"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/operation"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/vocab"
)

// Verified is evidence that holds.
type Verified struct {
	Tenant vocab.TenantID
	// Made is when, Since from when on events are in it (zero: all of them), Key
	// the only key it is about (empty: all).
	Made, Since time.Time
	Key         string
	// Root is the root that signed the trust bundle.
	Root       license.KeyID
	Checkpoint audit.Checkpoint
	// Continues is the size of the earlier checkpoint that the log was shown to
	// continue; 0: none was named.
	Continues uint64
	Events    []audit.Entry
	Keys      map[string]*record.TenantKey
	Facts     []Facts

	resources map[string]*record.Resource
}

// Verify reads a bundle and checks all of it, with nothing but the key IDs of
// roots that the caller trusts. From is a checkpoint that the caller saved
// earlier, nil if there is none: the log must continue it. The error, LOG_DAMAGED
// or that of a signed object, names the first thing that is wrong.
func Verify(b []byte, trusted []license.KeyID, from *audit.Checkpoint) (*Verified, error) {
	bundle, err := Read(b)
	if err != nil {
		return nil, err
	}
	v := &verification{Bundle: bundle, out: &Verified{Keys: map[string]*record.TenantKey{}, resources: map[string]*record.Resource{}}}
	for _, step := range []func() error{
		func() error { return v.signatures(trusted) }, v.hashes, v.checkpoint, func() error { return v.continues(from) },
		v.events, v.resources, v.facts,
	} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return v.out, nil
}

type verification struct {
	*Bundle
	out      *Verified
	verifier *license.Verifier
	ids      map[vocab.EventID]*audit.Event
	// writers are, for each target that an event wrote, how many did and the
	// last of them.
	writers map[string]writers
}

type writers struct {
	n    uint32
	last *audit.Event
}

// signatures verifies the chain from the caller's root to the manifest.
func (v *verification) signatures(trusted []license.KeyID) error {
	m := v.manifest
	trusted = license.Follow(v.Transitions, m.Tenant, trusted)
	var err error
	if v.verifier, err = license.NewVerifier(v.Trust, m.Tenant, trusted, 0); err != nil {
		return bad("%s: %s", fileTrust, why(err)).Because(err)
	}
	if _, err := v.verifier.VerifyEvidence(v.Manifest); err != nil {
		return bad("%s: %s", fileManifest, why(err)).Because(err)
	}
	v.out.Tenant, v.out.Made, v.out.Since, v.out.Key = m.Tenant, m.IssuedAt, m.Since, m.Key
	v.out.Root = v.verifier.Bundle().Signers()[0]
	return nil
}

// hashes compares every file with the manifest.
func (v *verification) hashes() error {
	files, err := v.files()
	if err != nil {
		return err
	}
	for i, f := range files {
		if want := v.manifest.Files[i]; want.Name != f.name || want.Size != uint64(len(f.content)) || want.Hash != canon.Hash(f.content) {
			return bad("%s is not the file that the manifest names", f.name)
		}
	}
	return nil
}

// checkpoint verifies who signed the checkpoint.
func (v *verification) checkpoint() error {
	cert, err := license.ParseCertificate(v.Certificate)
	if err != nil {
		return bad("%s: %s", fileCertificate, why(err)).Because(err)
	}
	c, err := audit.OpenCheckpoint(v.Checkpoint, v.out.Tenant, cert.Subject)
	if err != nil {
		return bad("%s: %s", fileCheckpoint, why(err)).Because(err)
	}
	if err := v.verifier.VerifyCertificate(cert, license.UsageCheckpoint, c.Time); err != nil {
		return bad("%s: %s", fileCertificate, why(err)).Because(err)
	}
	v.out.Checkpoint = c
	return nil
}

// continues verifies that the log continues an earlier one: the one that the
// caller saved.
func (v *verification) continues(from *audit.Checkpoint) error {
	now := v.out.Checkpoint
	if p := v.Consistency; p != nil {
		if p.From == 0 || !(audit.Consistency{From: p.From, FromRoot: p.FromRoot, Size: now.Size, Root: now.Root, Hashes: p.Path}).Verify() {
			return bad("%s: the log does not continue the one of %d events", fileConsistency, p.From)
		}
		v.out.Continues = p.From
	}
	switch {
	case from == nil:
		return nil
	case from.Tenant != v.out.Tenant:
		return bad("the checkpoint you saved is another tenant's")
	case from.Size == now.Size && from.Root == now.Root:
		v.out.Continues = from.Size
		return nil
	case v.Consistency == nil || v.Consistency.From != from.Size:
		return bad("it does not prove that the log continues the checkpoint you saved, of %d events; ask for it with --from", from.Size)
	case v.Consistency.FromRoot != from.Root:
		return bad("the first %d events of the log are not those of the checkpoint you saved: the log was rewritten", from.Size)
	}
	return nil
}

// events verifies that every event is in the log, at its place.
func (v *verification) events() error {
	now := v.out.Checkpoint
	v.ids, v.writers = map[vocab.EventID]*audit.Event{}, map[string]writers{}
	for i, e := range v.Events {
		if i > 0 && e.Index <= v.Events[i-1].Index {
			return bad("%s: the event at position %d is out of order", fileEvents, e.Index)
		}
		event, err := audit.ParseEvent(e.Leaf)
		if err != nil {
			return bad("%s: the event at position %d cannot be read", fileEvents, e.Index).Because(err)
		}
		p := audit.Inclusion{Index: e.Index, LeafHash: audit.HashLeaf(e.Leaf), Size: now.Size, Root: now.Root, Hashes: e.Path}
		if event.Tenant != v.out.Tenant || !p.Verify() {
			return bad("%s: the event at position %d is not in the log", fileEvents, e.Index)
		}
		v.ids[event.ID] = event
		v.out.Events = append(v.out.Events, audit.Entry{Index: e.Index, Leaf: e.Leaf, Event: event})
		if event.State != [32]byte{} && event.Target != "" && event.Content.IsZero() {
			w := v.writers[event.Target]
			v.writers[event.Target] = writers{w.n + 1, event}
		}
	}
	if e := v.ids[v.manifest.Event]; e == nil || e.Kind != audit.KindEvidenceMade {
		return bad("%s: the event that says this evidence was made is missing", fileEvents)
	}
	return nil
}

// resources verifies that every resource is as its last event left it, and that
// no event of it is missing: each writes one revision.
func (v *verification) resources() error {
	last := ""
	for _, raw := range v.Resources {
		s, err := record.ParseResource(raw)
		if err != nil {
			return bad("%s: a resource cannot be read", fileResources).Because(err)
		}
		if s.Name <= last {
			return bad("%s: %s is out of order", fileResources, s.Name)
		}
		last = s.Name
		w := v.writers[s.Name]
		switch {
		case w.last == nil || w.last.ID != s.LastEvent:
			return bad("%s: %s is not as its last event left it", fileResources, s.Name)
		case w.last.State != canon.Hash(raw):
			return bad("%s: %s is not what the log says it is", fileResources, s.Name)
		case v.out.Since.IsZero() && w.n != s.Revision || w.n > s.Revision:
			return bad("%s: of %s there are %d events for %d revisions: some are missing", fileEvents, s.Name, w.n, s.Revision)
		}
		v.out.resources[s.Name] = s
		if name, ok := strings.CutPrefix(s.Name, record.PrefixKeys); ok {
			if v.out.Keys[name], err = record.DecodeTenantKey(s.Body); err != nil {
				return bad("%s: %s cannot be read", fileResources, s.Name).Because(err)
			}
		}
		if err := v.generation(s); err != nil {
			return err
		}
		if err := v.approvals(s); err != nil {
			return err
		}
	}
	for target := range v.writers {
		if v.out.resources[target] == nil && isCustody(target) {
			return bad("%s: %s is missing, which the log knows", fileResources, target)
		}
	}
	return nil
}

func isCustody(target string) bool {
	for _, p := range []string{record.PrefixKeys, record.PrefixGenerations, record.PrefixOperations} {
		if strings.HasPrefix(target, p) {
			return true
		}
	}
	return false
}

// generation verifies that the tenant's root signed a generation.
func (v *verification) generation(s *record.Resource) error {
	if !strings.HasPrefix(s.Name, record.PrefixGenerations) {
		return nil
	}
	g, err := record.DecodeGeneration(s.Body)
	if err == nil {
		_, err = v.verifier.VerifyGeneration(g.Signed)
	}
	if err != nil {
		return bad("%s: %s: %s", fileResources, s.Name, why(err)).Because(err)
	}
	return nil
}

// approvals verifies that what was done had the approvals that it took: where a
// quorum gave them, by the signatures of the approvers themselves, over exactly
// this operation. So not even the service can have made them up.
func (v *verification) approvals(s *record.Resource) error {
	name, ok := strings.CutPrefix(s.Name, record.PrefixOperations)
	if !ok || s.Gone != 0 {
		return nil
	}
	id, err := vocab.ParseOperationID(name)
	if err != nil {
		return bad("%s: %s cannot be read", fileResources, s.Name).Because(err)
	}
	o, err := operation.Decode(s.Body)
	if err != nil {
		return bad("%s: %s cannot be read", fileResources, s.Name).Because(err)
	}
	if o.Quorum != nil {
		st, err := operation.StatementOf(v.out.Tenant, id, o, o.Quorum.Set)
		if err != nil || !bytes.Equal(st.Bytes(), o.Quorum.Signed) {
			return bad("%s: what the approvers of %s signed is not what it is", fileResources, s.Name)
		}
	}
	switch o.State { //nolint:exhaustive // of the others nothing came
	case operation.Running, operation.Paused, operation.Succeeded:
		if !o.Approved() {
			return bad("%s: %s was done without the approvals that it took", fileResources, s.Name)
		}
	}
	return nil
}

// facts compares what the custodians said with what is registered.
func (v *verification) facts() error {
	last, seen := "", 0
	for i := range v.Facts {
		f := &v.Facts[i]
		k := v.out.Keys[f.Key]
		if f.Key <= last || k == nil || k.ID != f.ID || k.Kind != f.Kind {
			return bad("%s: the key %q is not one that is registered", fileFacts, f.Key)
		}
		last, seen = f.Key, seen+1
		if err := f.agrees(k); err != nil {
			return err
		}
	}
	if seen != len(v.out.Keys) {
		return bad("%s: a registered key is missing", fileFacts)
	}
	v.out.Facts = v.Facts
	return nil
}

// agrees compares facts that nothing is wrong with with the registered key.
func (f *Facts) agrees(k *record.TenantKey) error {
	if f.Fault != "" {
		return nil // it is told, and what was read is not believed
	}
	switch {
	case keys.State(k.State) == keys.Destroyed && f.Root == nil:
		return nil
	case f.Root == nil || f.Sign == nil || f.ReadAt == 0:
		return bad("%s: it does not say what the key %s is, nor why not", fileFacts, f.Key)
	case f.Root.Attributes&^allAttributes != 0 || f.Sign.Attributes&^allAttributes != 0:
		return bad("%s: an attribute of the key %s is not known", fileFacts, f.Key)
	case (f.Root.Attributes|f.Sign.Attributes)&leaks != 0:
		return bad("%s: the key %s could have left its custodian, and no fault is told", fileFacts, f.Key)
	case keys.Kind(f.Kind) == keys.KindVault && len(f.Requests) == 0:
		return bad("%s: no request of the reading of %s is named", fileFacts, f.Key)
	case f.Cluster != k.Cluster || f.Root.Latest > k.RootLatest || f.Sign.Latest > k.SignLatest:
		return bad("%s: the key %s is not what was registered", fileFacts, f.Key)
	}
	for _, r := range f.Root.Versions {
		if known := k.Version(r.Number); known == nil || known.Created != r.Created {
			return bad("%s: version %d of the key %s is not the one that was noted", fileFacts, r.Number, f.Key)
		}
	}
	for _, s := range f.Sign.Versions {
		if known := k.SignKeys[s.Number]; string(known[:]) != string(s.PublicKey) {
			return bad("%s: version %d of the signing key of %s is not the one that was noted", fileFacts, s.Number, f.Key)
		}
	}
	return nil
}
