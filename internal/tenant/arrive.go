package tenant

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/openrms/rms/internal/archive"
	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/config"
	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// ImportConfig is what an import is made of.
type ImportConfig struct {
	// File is the operator's file of the tenant here. Its name is the one that
	// the tenant had: grants name it.
	File  config.Tenant
	Store store.Store
	Log   *audit.Log
	// Custodians are what the file names; Custodian is the one whose keys root
	// and sign are the tenant's from now on. Empty: the only one.
	Custodians Custodians
	Custodian  string
	// Open opens the archive from its beginning. It is read twice.
	Open func() (io.ReadCloser, error)
	// Key opens the archive, Root is the key ID of the source's root as the
	// operator knows it.
	Key  *license.RecipientKey
	Root license.KeyID
	// Now is the clock; time.Now if nil.
	Now func() time.Time
	// Say is told what is being done; may be nil.
	Say func(format string, args ...any)
}

// Imported is what an import did.
type Imported struct {
	Tenant  vocab.TenantID
	Archive vocab.ArchiveID
	SHA256  [32]byte
	Bytes   int64
	// Event is the first event that the log has from here; Size and Root are
	// those of the log as it came.
	Event vocab.EventID
	Size  uint64
	Root  [32]byte
	// Source is how the service that it comes from names itself, Frozen the event
	// by which it was frozen there.
	Source string
	Frozen vocab.EventID
	// Licenses is how many there are, Secrets how many generations' keys are
	// under the key here now, Lost how many the archive does not have.
	Licenses, Secrets, Lost int64
	// Closed are licenses whose content key does not open although the key of
	// their generation is here: they did not open at the source either.
	Closed []vocab.ContentID
	// ClosedMore is how many more there are than are named.
	ClosedMore int64
	// Checkpoint is the log's as it came, signed, and Certificates are of the keys
	// that signed this and earlier ones.
	Checkpoint   []byte
	Certificates [][]byte
}

// maxClosed is how many licenses that do not open are named.
const maxClosed = 100

// Import brings a tenant here from an archive. It reads all of the archive first,
// and writes nothing unless it is whole, sealed to the key and signed by the
// root. Until the last transaction nobody sees the tenant: an import that was
// broken off leaves nothing that is served, and the next one clears it away.
//
// Errors: RESOURCE_EXISTS if the tenant is here already; REQUEST_INVALID if it
// has another name; TRUST_ROOT_MISMATCH and LICENSE_SIGNATURE if the archive is
// not the root's; those of [archive.Reader]; those of a custodian; STORE_DAMAGED
// and LOG_DAMAGED if what is in it contradicts its log.
func Import(ctx context.Context, c ImportConfig) (_ *Imported, err error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Say == nil {
		c.Say = func(string, ...any) {}
	}
	x := &arrival{cfg: c, out: &Imported{}}
	c.Say("reading the archive")
	if err := x.inspect(ctx); err != nil {
		return nil, err
	}
	if err := x.mayArrive(ctx); err != nil {
		return nil, err
	}
	x.t = &Tenant{
		name: c.File.ID, id: x.out.Tenant, store: c.Store, log: c.Log, logger: slog.New(slog.DiscardHandler), now: c.Now, custodians: c.Custodians,
	}
	x.t.file.Store(&c.File)
	registered := x.t.newEvent(audit.KindKeyRegistered, importing, c.Now())
	if err := x.openKey(ctx, registered); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, x.custodian.Close()) }()
	c.Say("writing %d events and what they tell of", x.out.Size)
	if err := x.clear(ctx); err != nil {
		return nil, err
	}
	if err := x.bring(ctx, registered); err != nil {
		// What is left of it nobody sees.
		return nil, errors.Join(err, x.clear(context.WithoutCancel(ctx)))
	}
	return x.out, nil
}

// importing is the call of what an import does.
var importing = Call{Method: "import"}

// arrival is a tenant on its way in.
type arrival struct {
	cfg ImportConfig
	t   *Tenant
	out *Imported

	name      string
	created   uint64
	operation vocab.OperationID

	key       *record.TenantKey
	custodian keys.Custodian
	imported  *audit.Event
	// archiveKeys open the secrets in it.
	archiveKeys *license.ArchiveKeys
	// generations are the tenant's, by ID.
	generations map[vocab.GenerationID]promised
	// held are the secrets of the tenant's generations, until all is done.
	held map[vocab.GenerationID]*vocab.Secret
}

// inspect reads all of the archive and believes none of it before its end.
func (x *arrival) inspect(ctx context.Context) error {
	var tree audit.Tree
	r, err := x.read(ctx, func(table uint64, rows []archive.Row) error {
		switch table {
		case archiveEvents:
			for _, row := range rows {
				if string(row.Key) != string(position(tree.Size())) {
					return notItsLog()
				}
				tree.Add(audit.HashLeaf(row.Value))
			}
		case archiveCertificates:
			for _, row := range rows {
				if len(x.out.Certificates) < maxCertificates {
					x.out.Certificates = append(x.out.Certificates, row.Value)
				}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	defer r.Close()
	m, end := r.Manifest(), r.End()
	v, err := license.NewVerifier(m.Bundle, r.Tenant(), []license.KeyID{x.cfg.Root}, 0)
	if err != nil {
		return vocab.Errorf(vocab.ReasonTrustRootMismatch, "the root that you named did not sign the trust bundle of the archive").
			WithNext("Ask the source for its root's key ID, on another way than that of the archive: rmsctl login shows it").Because(err)
	}
	if err := end.Verify(v.Bundle()); err != nil {
		return err
	}
	certificate, err := license.ParseCertificate(m.Certificate)
	if err == nil {
		err = v.VerifyCertificate(certificate, license.UsageCheckpoint, certificate.NotBefore)
	}
	if err != nil {
		return err
	}
	checkpoint, err := audit.OpenCheckpoint(m.Checkpoint, r.Tenant(), certificate.Subject)
	if err != nil {
		return err
	}
	if end.LogSize != tree.Size() || end.LogRoot != tree.Root() || checkpoint.Size != end.LogSize || checkpoint.Root != end.LogRoot {
		return notItsLog()
	}
	if m.Schema != record.Schema.Version {
		return vocab.Errorf(vocab.ReasonStoreNewer, "the archive has records of version %d, this program knows %d", m.Schema, record.Schema.Version).
			WithNext("Import it with the version that wrote it")
	}
	if m.Name != x.cfg.File.ID {
		return vocab.Errorf(vocab.ReasonRequestInvalid, "the archive is of tenant %s, not %s", m.Name, x.cfg.File.ID).
			WithNext("A tenant keeps its name, for grants and links name it: give its file here that name")
	}
	o := x.out
	o.Tenant, o.Archive, o.SHA256, o.Bytes, o.Size, o.Root = r.Tenant(), r.ID(), r.SHA256(), r.Bytes(), end.LogSize, end.LogRoot
	o.Source, o.Frozen, o.Checkpoint = m.Source, m.Frozen, m.Checkpoint
	x.name, x.created, x.operation = m.Name, m.Created, m.Operation
	return nil
}

// maxCertificates is how many certificates of checkpoint keys are taken over.
const maxCertificates = 20_000

func notItsLog() error {
	return vocab.Errorf(vocab.ReasonLogDamaged, "the log in the archive is not the one that its root signed")
}

// read goes through the archive. fn gets every row, in its order.
func (x *arrival) read(ctx context.Context, fn func(table uint64, rows []archive.Row) error) (_ *archive.Reader, err error) {
	f, err := x.cfg.Open()
	if err != nil {
		return nil, vocab.Errorf(vocab.ReasonConfigurationInvalid, "the archive: %w", err)
	}
	defer f.Close()
	r, err := archive.NewReader(f, x.cfg.Key)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			r.Close()
		}
	}()
	x.keysOf(r)
	for {
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		table, rows, err := r.Next()
		if errors.Is(err, io.EOF) {
			return r, nil
		}
		if err == nil {
			err = fn(table, rows)
		}
		if err != nil {
			return nil, err
		}
	}
}

// mayArrive refuses a tenant that is here already.
func (x *arrival) mayArrive(ctx context.Context) error {
	return x.cfg.Store.View(ctx, func(r store.Reader) error {
		all, err := record.ListTenants(r)
		if err != nil {
			return err
		}
		for name, known := range all {
			switch {
			case known.ID == x.out.Tenant:
				return vocab.Errorf(vocab.ReasonResourceExists, "this tenant is here already, as %s", name).
					WithNext("It is imported once; what happened to it here since is in its log")
			case name == x.name:
				return vocab.Errorf(vocab.ReasonResourceExists, "there is another tenant %s here already", name).
					WithNext("It was made when rmsd was started with its file. Import into a data directory that never served it")
			}
		}
		return nil
	})
}

// openKey looks at the key that the tenant shall have here, and tries it.
func (x *arrival) openKey(ctx context.Context, e *audit.Event) error {
	name := x.cfg.Custodian
	if named := x.cfg.Custodians.Named(); name == "" {
		if len(named) != 1 {
			return vocab.Errorf(vocab.ReasonConfigurationInvalid, "the tenant's file names %d custodians", len(named)).
				WithNext("Say which of them shall have the tenant's key: --custodian")
		}
		name = named[0].Name
	}
	var err error
	x.key, x.custodian, err = x.t.tryKey(ctx, Registration{Custodian: name, Root: rootKeyName, Sign: signKeyName}, e)
	return err
}

// clear takes away what an import that was broken off has left.
func (x *arrival) clear(ctx context.Context) error {
	for _, drop := range []func(store.Tx, vocab.TenantID) (int, error){record.DropTenant, audit.DropTenant} {
		for n := -1; n != 0; {
			if err := x.cfg.Store.Commit(ctx, func(tx store.Tx) error {
				all, err := record.ListTenants(tx)
				if err != nil {
					return err
				}
				for _, known := range all {
					if known.ID == x.out.Tenant {
						n = 0 // it is whole
						return nil
					}
				}
				n, err = drop(tx, x.out.Tenant)
				return err
			}); err != nil {
				return err
			}
		}
	}
	return nil
}

// bring writes everything, and at last that the tenant is here.
func (x *arrival) bring(ctx context.Context, registered *audit.Event) error {
	x.held = map[vocab.GenerationID]*vocab.Secret{}
	defer func() {
		for _, s := range x.held {
			s.Zero()
		}
	}()
	r, err := x.read(ctx, func(table uint64, rows []archive.Row) error {
		switch table {
		case archiveEvents:
			return x.bringEvents(ctx, rows)
		case archiveCertificates:
			return nil // known since it was inspected
		case archiveGenerations:
			if err := x.begin(ctx, registered); err != nil {
				return err
			}
			return x.bringSecrets(ctx, rows)
		}
		return x.bringRows(ctx, table, rows)
	})
	if err != nil {
		return err
	}
	defer r.Close()
	if r.SHA256() != x.out.SHA256 {
		return vocab.Errorf(vocab.ReasonStoreDamaged, "the archive was changed while it was being read")
	}
	if err := x.begin(ctx, registered); err != nil { // of a tenant that has no generation
		return err
	}
	if err := x.tryBoxes(ctx); err != nil {
		return err
	}
	return x.cfg.Store.Commit(ctx, func(tx store.Tx) error {
		return record.PutTenant(tx, x.name, &record.Tenant{ID: x.out.Tenant, Created: record.Millis(x.created)})
	})
}

func (x *arrival) bringRows(ctx context.Context, table uint64, rows []archive.Row) error {
	moved := make([]record.Moved, len(rows))
	for i, r := range rows {
		moved[i] = record.Moved{Key: r.Key, Value: r.Value}
	}
	return x.cfg.Store.Commit(ctx, func(tx store.Tx) error { return record.MoveIn(tx, x.out.Tenant, table, moved) })
}

func (x *arrival) bringEvents(ctx context.Context, rows []archive.Row) error {
	return x.cfg.Store.Commit(ctx, func(tx store.Tx) error {
		for _, r := range rows {
			if len(r.Key) != 8 {
				return notItsLog()
			}
			if err := x.cfg.Log.AppendLeaf(tx, x.out.Tenant, binary.BigEndian.Uint64(r.Key), r.Value); err != nil {
				return err
			}
		}
		return nil
	})
}

// begin compares everything that came with the log, once all of it is there, and
// goes on with the log here.
func (x *arrival) begin(ctx context.Context, registered *audit.Event) error {
	if x.imported != nil {
		return nil
	}
	x.cfg.Say("comparing everything with the log")
	if err := x.verify(ctx); err != nil {
		return err
	}
	t := x.t
	if err := t.store.View(ctx, func(r store.Reader) error { return t.live.load(r, t.id) }); err != nil {
		return err
	}
	t.adoptRoots()
	e := t.newEvent(audit.KindTenantImported, importing, t.now())
	e.Target, e.Operation = record.NameResidence, x.operation
	e.Detail = fmt.Sprintf("archive %s, SHA-256 %x, from %q, signed by root SHA256:%s; log of %d events, root %x",
		x.out.Archive, x.out.SHA256, x.out.Source, base64.RawStdEncoding.EncodeToString(x.cfg.Root[:]), x.out.Size, x.out.Root)
	err := t.commit(ctx, func(tx store.Tx) error {
		_, err := t.putResource(tx, e.Target, e, editResidence(func(r *record.Residence) error {
			r.Arrive(record.Arrival{
				Archive: x.out.Archive, SHA256: x.out.SHA256, At: record.ToMillis(e.Time), Root: x.cfg.Root, Source: x.out.Source,
				LogSize: x.out.Size, LogRoot: x.out.Root,
			})
			return nil
		}))
		return err
	}, e)
	if err != nil {
		return err
	}
	x.imported, x.out.Event = e, e.ID
	return x.exchangeKeys(ctx, registered)
}

// verify is what fsck does, for this tenant alone.
func (x *arrival) verify(ctx context.Context) error {
	var first error
	more := 0
	found := func(err error) {
		if first == nil {
			first = err
		} else {
			more++
		}
	}
	t := x.t
	report, err := t.log.Verify(ctx, t.id, audit.Checkpoint{Tenant: t.id, Size: x.out.Size, Root: x.out.Root, Time: t.now()})
	if err != nil {
		return err
	}
	if report.Size != x.out.Size {
		return notItsLog()
	}
	if err := t.store.View(ctx, func(r store.Reader) error {
		if err := t.verifyName(r); err != nil {
			return err
		}
		_, err := record.Check(r, t.id, found)
		return err
	}); err != nil {
		return err
	}
	if err := CheckBinding(ctx, t.store, t.log, t.id, found); err != nil {
		return err
	}
	if first != nil {
		return vocab.Errorf(vocab.ReasonStoreDamaged, "what is in the archive contradicts its log: %s, and %d more", first, more).
			WithNext("Run rmsd fsck at the source")
	}
	return nil
}

// exchangeKeys makes the key here the active one. Those of the source stay known
// for what they signed, and are out of reach.
func (x *arrival) exchangeKeys(ctx context.Context, registered *audit.Event) error {
	t := x.t
	all := t.live.registered()
	name := firstKey
	for n := 2; all[name] != nil; n++ {
		name = fmt.Sprintf("%s-%d", firstKey, n)
	}
	x.key.State = uint8(keys.Active)
	e := registered
	e.Time = t.now().UTC().Truncate(time.Millisecond)
	e.Target, e.Custodian, e.KeyVersion, e.Parent = record.KeyName(name), x.key.ID, x.key.RootLatest, x.imported.ID
	e.Detail = "active; " + placeText(x.key)
	return t.store.Commit(ctx, func(tx store.Tx) error {
		for _, other := range sortedKeys(all) {
			if err := x.retireKey(tx, other); err != nil {
				return err
			}
		}
		if _, err := t.putResource(tx, e.Target, e, func(store.Reader, *record.Resource, *audit.Event) ([]byte, error) { return x.key.Encode() }); err != nil {
			return err
		}
		return t.log.Append(tx, e)
	})
}

// retireKey notes that a key is where the tenant was.
func (x *arrival) retireKey(tx store.Tx, name string) error {
	t := x.t
	e := t.newEvent(audit.KindKeyRetired, importing, t.now())
	e.Target, e.Parent, e.Detail = record.KeyName(name), x.imported.ID, "it stays where the tenant was"
	if _, err := t.putResource(tx, e.Target, e, editKey(func(k *record.TenantKey) error {
		if k.Elsewhere == 0 {
			k.Elsewhere = record.ToMillis(e.Time)
		}
		if s := keys.State(k.State); s == keys.Active || s == keys.PreActive {
			k.State, k.Since, k.Why = uint8(keys.Deactivated), record.ToMillis(e.Time), ""
		}
		e.Custodian = k.ID
		return nil
	})); err != nil {
		return err
	}
	return t.log.Append(tx, e)
}
