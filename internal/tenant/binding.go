package tenant

import (
	"context"
	"sync"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// The store is bound to the log. Whatever the service writes, the event of the
// same transaction says: for licenses, resources and settings the hash of the record, for
// templates the revision. So a revocation that was taken out of its record, an
// older record that was put back, or settings that nobody set, contradict the
// log, and the log cannot be changed without contradicting a checkpoint.
//
// While serving, what is at hand is compared: the record with the event it
// names, which is proven to be in the tree, and with the newest event about it.
// Who puts an older record back and takes the newer events out of the log's
// index gets past that; [CheckBinding], with a verification of the log, finds
// everything.

func contradicts(what string) *vocab.Error {
	return vocab.Errorf(vocab.ReasonStoreDamaged, "%s is not what the log says was written", what).
		WithNext("Ask an administrator to check the store")
}

// verifyRecord refuses a license's record that is not the one its last event
// wrote, or older than the log knows it. The revision is the highest known.
func (t *Tenant) verifyRecord(r store.Reader, l *record.License) (revision uint32, err error) {
	if revision, err = t.verifyRecordOnce(r, l); err == nil {
		t.proven.add(l.LastEvent)
	}
	return revision, err
}

// verifyRecordOnce is verifyRecord for what nobody asks for: work on very many
// licenses does not drive those out of memory that people open.
func (t *Tenant) verifyRecordOnce(r store.Reader, l *record.License) (revision uint32, err error) {
	writer, err := verifyState(r, t.id, "this document's record", l.LastEvent, l.State)
	if err == nil && !t.proven.has(l.LastEvent) {
		err = audit.Prove(r, t.id, writer)
	}
	if err != nil {
		return l.Revision, err
	}
	latest, err := audit.LatestRevision(r, t.id, l.Content)
	if err == nil && latest > l.Revision {
		return latest, contradicts("this document's record, which is an older one,")
	}
	return l.Revision, err
}

// verifyState compares a record's hash with that in the event it names, and
// returns the event.
func verifyState(r store.Reader, t vocab.TenantID, what string, id vocab.EventID, state func() ([32]byte, error)) (audit.Entry, error) {
	got, err := state()
	if err != nil {
		return audit.Entry{}, err
	}
	entry, err := audit.Find(r, t, id)
	if vocab.ReasonOf(err) == vocab.ReasonResourceNotFound || err == nil && entry.Event.State != got {
		err = contradicts(what)
	}
	return entry, err
}

// proven remembers which events were found in the tree, since nobody else can
// write the store while the daemon has it: proving again would cost a read of
// the tree's height at every open.
type proven struct {
	mu     sync.Mutex
	events map[vocab.EventID]struct{}
}

// maxProven bounds it; an event takes about 50 bytes.
const maxProven = 200_000

func (p *proven) has(id vocab.EventID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, known := p.events[id]
	return known
}

func (p *proven) add(id vocab.EventID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, known := p.events[id]; known {
		return
	}
	if p.events == nil || len(p.events) >= maxProven {
		p.events = map[vocab.EventID]struct{}{}
	}
	p.events[id] = struct{}{}
}

// verifySettings refuses settings that their last event did not write.
func verifySettings(r store.Reader, t vocab.TenantID, s record.Settings) error {
	if s.Revision == 0 && s.LastEvent.IsZero() {
		return nil // the defaults: that nothing was ever written, CheckBinding checks
	}
	writer, err := verifyState(r, t, "the tenant's settings", s.LastEvent, s.State)
	if err != nil {
		return err
	}
	return audit.Prove(r, t, writer)
}

// CheckBinding compares every license, template, resource and the settings of a tenant,
// and what earlier decisions read of them, with the whole log, and reports what
// contradicts it. The log itself is
// verified by [audit.Log.Verify]. The error is one that kept it from finishing.
func CheckBinding(ctx context.Context, s store.Store, log *audit.Log, t vocab.TenantID, found func(error)) error {
	revisions := map[vocab.TemplateUID]uint32{}
	var settings vocab.EventID
	resources := map[string]vocab.EventID{} // name to its last writer
	history := historyCheck{store: s, tenant: t, found: found}
	size, err := log.Size(ctx, t)
	if err != nil {
		return err
	}
	for e, err := range log.Range(ctx, t, 0, size) {
		if err == nil {
			err = history.event(ctx, e.Event)
		}
		if err != nil {
			return err
		}
		switch e.Event.Kind {
		case audit.KindTemplateCreated, audit.KindTemplateUpdated, audit.KindTemplateDeleted, audit.KindTemplateUndeleted:
			revisions[e.Event.Template] = max(revisions[e.Event.Template], e.Event.TemplateRevision)
		case audit.KindSettingsChanged:
			settings = e.Event.ID
		default: // about neither templates nor settings
			if isResource(e.Event.Target) && e.Event.State != [32]byte{} {
				resources[e.Event.Target] = e.Event.ID
			}
		}
	}
	return s.View(ctx, func(r store.Reader) error {
		now, err := record.GetSettings(r, t)
		if err == nil && now.LastEvent != settings {
			err = contradicts("the tenant's settings, which are older ones,")
		}
		if err == nil {
			err = verifySettings(r, t, now)
		}
		if err := report(err, found); err != nil {
			return err
		}
		if err := history.settings(r, now.Revision); err != nil {
			return err
		}
		for uid, revision := range revisions {
			head, err := record.GetTemplate(r, t, uid)
			if err == nil && (head == nil || head.Revision < revision) {
				err = contradicts("template " + uid.String())
			}
			if err := report(err, found); err != nil {
				return err
			}
		}
		if err := checkResources(r, t, resources, found); err != nil {
			return err
		}
		return checkLicenses(r, t, found)
	})
}

// checkResources compares what is there with who wrote it last, by the log.
func checkResources(r store.Reader, t vocab.TenantID, writers map[string]vocab.EventID, found func(error)) error {
	err := record.ListResources(r, t, "", "", func(s *record.Resource) (bool, error) {
		_, err := verifyState(r, t, s.Name, s.LastEvent, s.State)
		if err == nil && writers[s.Name] != s.LastEvent {
			err = contradicts(s.Name + ", which is an older one,")
		}
		delete(writers, s.Name)
		return true, report(err, found)
	})
	for name := range writers {
		found(contradicts(name + ", which is missing,"))
	}
	return report(err, found)
}

func checkLicenses(r store.Reader, t vocab.TenantID, found func(error)) error {
	return record.EachLicense(r, t, func(l *record.License, err error) error {
		if err != nil {
			return report(err, found)
		}
		what := "license " + l.Content.String()
		_, err = verifyState(r, t, what, l.LastEvent, l.State)
		if err == nil {
			var last *audit.Event
			if last, err = audit.LastWriter(r, t, l.Content); err == nil && (last == nil || last.ID != l.LastEvent) {
				err = contradicts(what + ", which is an older one,")
			}
		}
		return report(err, found)
	})
}

// report passes on what is a finding and returns what is not.
func report(err error, found func(error)) error {
	switch vocab.ReasonOf(err) {
	case "":
	case vocab.ReasonStoreDamaged, vocab.ReasonLogDamaged:
		found(err)
	default:
		return err
	}
	return nil
}

// verified adds the check of the record to what readInputs read.
func (t *Tenant) verified(r store.Reader, in *inputs) error {
	if in.record == nil {
		return nil
	}
	_, err := t.verifyRecord(r, in.record)
	return err
}
