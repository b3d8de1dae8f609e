package tenant

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/openrms/rms/internal/archive"
	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/operation"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// Tables of an archive that are not rows of the store as they are.
const (
	archiveEvents       = 100 // position as u64 -> leaf
	archiveCertificates = 101 // hash -> certificate of a key that signed checkpoints
	archiveGenerations  = 102 // 1 and generation, or 2 and document -> archivedSecret
)

// First bytes of keys of archiveGenerations.
const (
	ofTenant   = byte(license.ScopeTenant)
	ofDocument = byte(license.ScopeDocument)
)

// archivedSecret is the sealed secret of a generation, or why there is none.
type archivedSecret struct {
	Box  []byte `cbor:"1,keyasint,omitempty"`
	Lost string `cbor:"2,keyasint,omitempty"`
}

// takeoutBudget is how much of a table one snapshot reads, in bytes.
const takeoutBudget = 1 << 20

// Exported archives.
type (
	// Takeout is what a caller of [Tenant.Export] needs to know first.
	Takeout struct {
		Archive vocab.ArchiveID
		Event   vocab.EventID
	}
	// TakenOut is an archive that is whole.
	TakenOut struct {
		Archive vocab.ArchiveID
		Event   vocab.EventID
		SHA256  [32]byte
		Bytes   int64
		// Signer is the key ID of the root that signed it.
		Signer license.KeyID
		// LogSize and LogRoot are those of the log in it.
		LogSize uint64
		LogRoot [32]byte
		// Secrets is how many generations are in it, Lost how many are not.
		Secrets, Lost int64
	}
)

// Export writes an archive of the tenant, which operation id froze, to w. Before
// it writes, the log says that it began, and began is called with the event;
// before it writes the last bytes, without which nobody can use it, the log says
// that it is whole, and what its hash is.
//
// It can be called again: every archive is another one. Memory is bounded; the
// store is read in short snapshots, since nothing of a frozen tenant changes. If
// something did all the same, the archive is broken off: ETAG_MISMATCH.
func (t *Tenant) Export(ctx context.Context, c Call, id vocab.OperationID, version string, w io.Writer, began func(Takeout)) (*TakenOut, error) {
	if !t.exporting.TryLock() {
		return nil, vocab.Errorf(vocab.ReasonOverloaded, "an archive of this tenant is being made already").WithNext("Wait for its end, or end that call")
	}
	defer t.exporting.Unlock()
	e := t.newEvent(audit.KindTenantFrozen, c, t.now())
	e.Target, e.Operation = record.NameResidence, id
	x := &takeout{t: t, call: c, operation: id, id: vocab.NewArchiveID()}
	root, err := x.prepare(ctx)
	if err != nil {
		return nil, t.refuse(ctx, e, err)
	}
	made := record.ArchiveMade{ID: x.id, Operation: id, Begun: record.ToMillis(e.Time), Recipient: x.to.Hash()}
	e.RecipientKey, e.Detail = x.to.Hash(), "archive "+x.id.String()+" begun"
	if _, _, err := t.changeResourceBy(ctx, e, editResidence(func(r *record.Residence) error {
		if r.Operation != id {
			return notFrozen()
		}
		r.Begin(made)
		return nil
	}), false); err != nil {
		return nil, err
	}
	began(Takeout{Archive: x.id, Event: e.ID})
	if err := x.write(ctx, w, e.ID, version); err != nil {
		return nil, err
	}
	defer x.w.Close()
	end, err := x.w.Finish(ctx, root, x.size, x.root, t.now().UTC().Truncate(time.Millisecond))
	if err != nil {
		return nil, err
	}
	out := &TakenOut{
		Archive: x.id, SHA256: end.SHA256, Bytes: end.Bytes, Signer: license.KeyIDOf(root.PublicKey()), LogSize: x.size, LogRoot: x.root, Secrets: x.secrets, Lost: x.lost,
	}
	if out.Event, err = x.whole(ctx, out, e.ID); err != nil {
		return nil, err
	}
	return out, end.Write()
}

// takeout is an archive on its way.
type takeout struct {
	t           *Tenant
	call        Call
	operation   vocab.OperationID
	id          vocab.ArchiveID
	to          *license.Recipient
	withoutLost bool

	w    *archive.Writer
	size uint64 // of the log in it
	root [32]byte

	generations   []*record.Generation
	states        keyStates
	secrets, lost int64
}

// prepare looks whether the operation lets an archive be made, and by whom it can
// be signed.
func (x *takeout) prepare(ctx context.Context) (*keys.RootKey, error) {
	t := x.t
	var o *operation.Operation
	if err := t.store.View(ctx, func(r store.Reader) (err error) {
		_, o, err = t.operation(r, x.operation)
		return err
	}); err != nil {
		return nil, err
	}
	if o == nil {
		return nil, noOperation(x.operation)
	}
	if o.Kind != operation.TenantExport || o.State != operation.Succeeded || t.Residence().Operation != x.operation {
		return nil, vocab.Errorf(vocab.ReasonOperationState, "the tenant is not frozen by this operation").
			WithNext("An export is asked for, and approved by a tenant-admin, before an archive can be taken")
	}
	params, err := operation.Params[operation.ExportParams](o)
	if err != nil {
		return nil, err
	}
	if x.to, err = license.ParseRecipient(license.KEM(params.KEM), params.Recipient, []license.KEM{license.XWing}); err != nil {
		return nil, err
	}
	x.withoutLost = params.WithoutLost != 0
	v := t.trust.verifier.Load()
	if v == nil {
		return nil, t.unavailable()
	}
	root, err := keys.CurrentRoot(ctx, t.active())
	if err != nil {
		return nil, err
	}
	if known, ok := v.Bundle().Root(license.KeyIDOf(root.PublicKey())); !ok || known.State != license.RootCurrent {
		return nil, vocab.Errorf(vocab.ReasonKeyState, "the signing key was rotated, and the trust bundle does not say so yet").WithNext("Try again in a moment")
	}
	return root, nil
}

// write writes everything but the end.
func (x *takeout) write(ctx context.Context, w io.Writer, begun vocab.EventID, version string) error {
	t := x.t
	m, certificates, err := x.manifest(ctx, begun, version)
	if err != nil {
		return err
	}
	if x.w, err = archive.NewWriter(w, x.to, t.id, x.id, m); err != nil {
		return err
	}
	err = x.tables(ctx)
	if err == nil {
		err = x.events(ctx)
	}
	for _, c := range certificates {
		if err == nil {
			h := canon.Hash(c)
			err = x.w.Row(archiveCertificates, archive.Row{Key: h[:], Value: c})
		}
	}
	if err == nil {
		err = x.tenantSecrets(ctx)
	}
	if err == nil {
		err = x.documentSecrets(ctx)
	}
	if err == nil {
		err = x.unchanged(ctx)
	}
	if err != nil {
		x.w.Close()
	}
	return err
}

// manifest reads what the archive is of, and cuts the log.
func (x *takeout) manifest(ctx context.Context, begun vocab.EventID, version string) (*archive.Manifest, [][]byte, error) {
	t, now := x.t, record.ToMillis(x.t.now())
	m := &archive.Manifest{
		Name: t.name, Schema: record.Schema.Version, Service: version, Source: t.instance, Time: uint64(now), Operation: x.operation,
		Frozen: t.Residence().Event, Begun: begun,
	}
	if err := t.store.View(ctx, func(r store.Reader) error {
		known, err := record.GetTenant(r, t.name)
		if err != nil {
			return err
		}
		m.Created = uint64(known.Created)
		if x.size, x.root, err = audit.Head(r, t.id); err != nil {
			return err
		}
		m.Bundle, err = record.GetBundle(r, t.id)
		return err
	}); err != nil {
		return nil, nil, err
	}
	signer, certificate, err := t.CheckpointSigner()
	if err != nil {
		return nil, nil, err
	}
	c := audit.Checkpoint{Tenant: t.id, Size: x.size, Root: x.root, Time: now.Time()}
	if m.Checkpoint, err = c.Sign(ctx, signer); err != nil {
		return nil, nil, err
	}
	m.Certificate = certificate
	// Earlier checkpoints, which people saved, were signed by earlier keys.
	certificates := [][]byte{certificate}
	if t.exported != nil {
		kept, err := t.exported(t.id)
		if err != nil {
			return nil, nil, err
		}
		certificates = append(certificates, kept.Certificates...)
	}
	compare := func(a, b []byte) int {
		x, y := canon.Hash(a), canon.Hash(b)
		return slices.Compare(x[:], y[:])
	}
	slices.SortFunc(certificates, compare)
	certificates = slices.CompactFunc(certificates, func(a, b []byte) bool { return compare(a, b) == 0 })
	return m, slices.DeleteFunc(certificates, func(b []byte) bool { return len(b) == 0 }), nil
}

// tables writes the rows of the store.
func (x *takeout) tables(ctx context.Context) error {
	for _, number := range record.Carried() {
		for after := []byte(nil); ; {
			var rows []record.Moved
			if err := x.t.store.View(ctx, func(r store.Reader) (err error) {
				rows, err = record.MoveOut(r, x.t.id, number, after, takeoutBudget)
				return err
			}); err != nil {
				return err
			}
			if len(rows) == 0 {
				break
			}
			for _, row := range rows {
				if err := x.w.Row(number, archive.Row{Key: row.Key, Value: row.Value}); err != nil {
					return err
				}
			}
			// A row without a key is the only one of its table.
			if after = rows[len(rows)-1].Key; len(after) == 0 {
				break
			}
		}
	}
	return nil
}

// events writes the log as it was cut.
func (x *takeout) events(ctx context.Context) error {
	for e, err := range x.t.log.Range(ctx, x.t.id, 0, x.size) {
		if err != nil {
			return err
		}
		if err := x.w.Row(archiveEvents, archive.Row{Key: position(e.Index), Value: e.Leaf}); err != nil {
			return err
		}
	}
	return nil
}

// secret writes one secret, or that it is lost.
func (x *takeout) secret(scope byte, name []byte, b keys.Binding, u keys.UnwrapResult) error {
	var a archivedSecret
	if u.Secret != nil {
		var err error
		if a.Box, err = b.SealFor(x.w.Keys(), u.Secret); err != nil {
			return err
		}
		x.secrets++
	} else {
		a.Lost = string(vocab.ReasonOf(u.Err))
		x.lost++
	}
	v, err := canon.Marshal(&a)
	if err != nil {
		return err
	}
	return x.w.Row(archiveGenerations, archive.Row{Key: append([]byte{scope}, name...), Value: v})
}

// mayLose says that a generation may be left out: it was destroyed, or it cannot
// be taken along and whoever approved the export accepts that.
func (x *takeout) mayLose(what string, err error, destroyed bool) error {
	next := "Bring the key back, or ask for an export that leaves out what is lost"
	switch vocab.ReasonOf(err) {
	case vocab.ReasonKeySuspended:
		next = "Resume it first: a suspension of a key does not go along with a document. Or ask for an export that leaves out what is lost"
	case vocab.ReasonKeyState, vocab.ReasonCustodyIntegrity:
	default:
		return err
	}
	if destroyed || x.withoutLost {
		return nil
	}
	return vocab.Errorf(vocab.ReasonOf(err), "%s cannot be taken along: %w", what, err).WithNext("%s", next)
}

// tenantSecrets writes the secrets of the tenant's generations.
func (x *takeout) tenantSecrets(ctx context.Context) error {
	t := x.t
	if err := x.readKeys(ctx); err != nil {
		return err
	}
	items, commitments := make([]keys.UnwrapItem, len(x.generations)), make([][32]byte, len(x.generations))
	var wrapped []int // the others are destroyed: nothing is left of them to unwrap
	for i, g := range x.generations {
		signed, err := license.VerifyGeneration(g.Signed, t.id, t.trust.keys()...)
		if err != nil {
			return err
		}
		items[i].Binding = keys.TenantBinding(t.id, signed.ID)
		if len(g.Wrap) == 0 && keys.State(g.State) == keys.Destroyed {
			continue
		}
		wrapped = append(wrapped, i)
		wrap, err := license.ParseWrap(g.Wrap)
		if err != nil {
			return err
		}
		items[i].Wrap, commitments[i] = *wrap, signed.Commitment
	}
	// In the order of their IDs, as the archive has them.
	order := make([]int, len(items))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return items[a].Binding.Generation.Compare(items[b].Binding.Generation) })
	asked := make([]keys.UnwrapItem, len(wrapped))
	for at, i := range wrapped {
		asked[at] = items[i]
	}
	taken, err := t.ring.TakeOut(ctx, asked, func(at int) *[32]byte { return &commitments[wrapped[at]] })
	if err != nil {
		return err
	}
	us := make([]keys.UnwrapResult, len(items))
	for at, i := range wrapped {
		us[i] = taken[at]
	}
	defer keys.ZeroAll(us)
	for _, i := range order {
		g, id := x.generations[i], items[i].Binding.Generation
		destroyed := keys.State(g.State) == keys.Destroyed || x.states.of(items[i].Wrap) == keys.Destroyed
		if destroyed {
			us[i].Secret.Zero()
			us[i] = keys.UnwrapResult{Err: vocab.Errorf(vocab.ReasonKeyState, "it was destroyed")}
		}
		if us[i].Err != nil {
			if err := x.mayLose(fmt.Sprintf("generation g%d", g.Number), us[i].Err, destroyed); err != nil {
				return err
			}
		}
		if err := x.secret(ofTenant, id[:], items[i].Binding, us[i]); err != nil {
			return err
		}
	}
	return nil
}

// readKeys reads the generations, and the states of keys and versions.
func (x *takeout) readKeys(ctx context.Context) error {
	return x.t.store.View(ctx, func(r store.Reader) (err error) {
		if err := record.ListGenerations(r, x.t.id, func(g *record.Generation) error {
			x.generations = append(x.generations, g)
			return nil
		}); err != nil {
			return err
		}
		x.states, err = readKeyStates(r, x.t.id)
		return err
	})
}

// keyStates are the states of the tenant's keys and their versions.
type keyStates map[vocab.CustodianID]keys.KeyStates

func readKeyStates(r store.Reader, t vocab.TenantID) (keyStates, error) {
	out := keyStates{}
	err := record.ListKeys(r, t, func(name string, k *record.TenantKey) error {
		out[k.ID] = statesOf(name, k)
		return nil
	})
	return out, err
}

// of is the state of what a wrap is under, if that forbids its use; 0 if it does
// not. Of the key's state and the version's, the worse counts.
func (s keyStates) of(w license.Wrap) (worst keys.State) {
	k := s[w.Custodian]
	for _, state := range []keys.State{k.State, k.Versions[w.L0Version]} {
		if state >= keys.Suspended {
			worst = max(worst, state)
		}
	}
	return worst
}

// documentSecrets writes the secrets of strict licenses, a batch of the custodian
// at a time.
func (x *takeout) documentSecrets(ctx context.Context) error {
	t := x.t
	for after := (vocab.ContentID{}); ; {
		var list []*record.License
		more := false
		if err := t.store.View(ctx, func(r store.Reader) (err error) {
			list, after, more, err = record.NextOf(r, t.id, after, keys.MaxBatch)
			return err
		}); err != nil {
			return err
		}
		list = slices.DeleteFunc(list, func(l *record.License) bool { return len(l.Wrap) == 0 })
		items := make([]keys.UnwrapItem, len(list))
		for i, l := range list {
			w, err := license.ParseWrap(l.Wrap)
			if err != nil {
				return err
			}
			items[i] = keys.UnwrapItem{Binding: keys.DocumentBinding(t.id, l.Generation, l.Content), Wrap: *w}
		}
		if err := x.documents(ctx, list, items); err != nil || !more {
			return err
		}
	}
}

// documents writes the secrets of some strict licenses. What is suspended or
// compromised with the version of the key that it is under cannot go along: under
// the key where the tenant goes it would be neither.
func (x *takeout) documents(ctx context.Context, list []*record.License, items []keys.UnwrapItem) error {
	us := make([]keys.UnwrapResult, len(items))
	defer func() { keys.ZeroAll(us) }()
	var take []int
	var open []keys.UnwrapItem
	for i := range items {
		state := x.states.of(items[i].Wrap)
		switch state {
		case 0:
			take, open = append(take, i), append(open, items[i])
		case keys.Suspended:
			us[i].Err = vocab.Errorf(vocab.ReasonKeySuspended, "the key that it is under is suspended")
		default:
			us[i].Err = vocab.Errorf(vocab.ReasonKeyState, "the key that it is under is %s", state)
		}
	}
	taken, err := x.t.ring.TakeOut(ctx, open, func(int) *[32]byte { return nil })
	if err != nil {
		return err
	}
	for n, i := range take {
		us[i] = taken[n]
	}
	for i, l := range list {
		if us[i].Err != nil {
			if err := x.mayLose("license "+l.Content.String(), us[i].Err, x.states.of(items[i].Wrap) == keys.Destroyed); err != nil {
				return err
			}
		}
		if err := x.secret(ofDocument, l.Content[:], items[i].Binding, us[i]); err != nil {
			return err
		}
	}
	return nil
}

// unchanged reports that something was written while the archive was: the log
// says so of everything that matters.
func (x *takeout) unchanged(ctx context.Context) error {
	t := x.t
	size, err := t.log.Size(ctx, t.id)
	if err != nil {
		return err
	}
	for e, err := range t.log.Range(ctx, t.id, x.size, size) {
		if err != nil {
			return err
		}
		if e.Event.State != [32]byte{} || !whileFrozen[e.Event.Kind] {
			return vocab.Errorf(vocab.ReasonEtagMismatch, "%s was written while the archive was being made (event %s)",
				firstOf(e.Event.Target, e.Event.Kind.String()), e.Event.ID).WithNext("Take the archive again")
		}
	}
	return nil
}

func firstOf(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// whole makes it durable that the archive is whole but for its last bytes.
func (x *takeout) whole(ctx context.Context, out *TakenOut, begun vocab.EventID) (vocab.EventID, error) {
	t := x.t
	e := t.newEvent(audit.KindTenantFrozen, x.call, t.now())
	e.Target, e.Operation, e.Parent, e.RecipientKey = record.NameResidence, x.operation, begun, x.to.Hash()
	e.Detail = fmt.Sprintf("archive %s is whole: %d bytes, SHA-256 %x, log of %d events, root %x; %d keys of generations, %d lost",
		x.id, out.Bytes, out.SHA256, out.LogSize, out.LogRoot, out.Secrets, out.Lost)
	_, event, err := t.changeResourceBy(ctx, e, editResidence(func(r *record.Residence) error {
		a := r.Archive(x.id)
		if a == nil || r.Operation != x.operation {
			return notFrozen()
		}
		a.Whole, a.SHA256, a.Bytes = record.ToMillis(e.Time), out.SHA256, uint64(out.Bytes)
		a.LogSize, a.LogRoot = out.LogSize, out.LogRoot
		return nil
	}), false)
	return event, err
}

// position is a place in the log as a key.
func position(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }
