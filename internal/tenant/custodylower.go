package tenant

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/operation"
	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// Lowering custody lets content open for longer after the custodian has refused.
// It is under dual control, and it is a change of its own: an edit that does
// anything else beside it is refused, so that what is approved is this alone.

// lowers reports whether a change of settings lowers custody: the mode itself,
// or one of the times becomes longer than it is and longer than a new tenant's.
// Below that, one person changes them as before.
func lowers(from, to record.Settings) bool {
	usual := record.DefaultSettings()
	longer := func(from, to, usual time.Duration) bool { return to > from && to > usual }
	return to.Custody < from.Custody ||
		longer(from.CacheTTL, to.CacheTTL, usual.CacheTTL) ||
		longer(from.OutageGrace, to.OutageGrace, usual.OutageGrace) ||
		longer(from.MaxOffline, to.MaxOffline, usual.MaxOffline)
}

// lowering says, inside this package, that a change of settings lowers custody.
type lowering struct{ from, to record.Settings }

func (lowering) Error() string { return "lowers custody" }

// requestCustody asks for settings to be lowered. It always returns an error.
func (t *Tenant) requestCustody(ctx context.Context, c Call, l lowering) error {
	if err := onlyCustody(l.from, l.to); err != nil {
		return err
	}
	params := &operation.CustodySettings{Base: l.from.Revision, From: timesOf(l.from), To: timesOf(l.to)}
	return t.requestApproval(ctx, c, wish{
		kind: operation.CustodyLower, params: &operation.CustodyParams{Settings: params}, about: detailOf(params.Changes()),
	})
}

// onlyCustody refuses an edit that lowers custody and does something else too.
func onlyCustody(from, to record.Settings) error {
	setTimes(&to, timesOf(from))
	to.Revision, to.LastEvent = from.Revision, from.LastEvent
	was, err := from.State()
	if err != nil {
		return err
	}
	is, err := to.State()
	if err == nil && is != was {
		err = notAlone()
	}
	return err
}

func notAlone() error {
	return vocab.Errorf(vocab.ReasonRequestInvalid, "this lowers custody, which is under dual control, and changes something else too").
		WithNext("Make the other changes first, by themselves")
}

func timesOf(s record.Settings) operation.CustodyTimes {
	ms := func(d time.Duration) uint64 { return uint64(max(d, 0).Milliseconds()) }
	return operation.CustodyTimes{Custody: s.Custody, CacheTTL: ms(s.CacheTTL), OutageGrace: ms(s.OutageGrace), OfflineMax: ms(s.MaxOffline)}
}

func setTimes(s *record.Settings, to operation.CustodyTimes) {
	ms := func(v uint64) time.Duration { return time.Duration(v) * time.Millisecond }
	s.Custody, s.CacheTTL, s.OutageGrace, s.MaxOffline = to.Custody, ms(to.CacheTTL), ms(to.OutageGrace), ms(to.OfflineMax)
}

// lowersFloor reports whether a revision lowers a template's floor.
func lowersFloor(before, draft *policy.Template) bool {
	return before != nil && before.Custody == vocab.CustodyStrict && draft.Custody != vocab.CustodyStrict
}

// requestFloor asks for a template's floor to be lowered. It always returns an
// error.
func (t *Tenant) requestFloor(ctx context.Context, c Call, kind audit.Kind, before, draft *policy.Template) error {
	if err := onlyFloor(before, draft); err != nil {
		return err
	}
	b, err := license.EncodeTemplate(draft)
	if err != nil {
		return err
	}
	return t.requestApproval(ctx, c, wish{
		kind: operation.CustodyLower,
		params: &operation.CustodyParams{Template: &operation.TemplateParams{
			Slug: draft.Slug, Base: before.Revision, Draft: b, Event: uint16(kind),
		}},
		about: fmt.Sprintf("template %s no longer demands %s custody (revision %d)", draft.Slug, before.Custody, draft.Revision), reason: draft.Comment,
	})
}

// onlyFloor refuses a revision that lowers the floor and does something else too.
func onlyFloor(before, draft *policy.Template) error {
	same := *draft
	same.UID, same.Slug, same.Custody = before.UID, before.Slug, before.Custody
	same.Revision, same.Time, same.Author, same.Comment = before.Revision, before.Time, before.Author, before.Comment
	was, err := license.EncodeTemplate(before)
	if err != nil {
		return err
	}
	is, err := license.EncodeTemplate(&same)
	if err != nil {
		return err
	}
	if !bytes.Equal(is, was) {
		return notAlone()
	}
	return nil
}

// custodyBasis: lowering custody rests on the settings, or the template, that it
// changes.
func (t *Tenant) custodyBasis(r store.Reader, o *operation.Operation) (*operation.Basis, error) {
	params, err := operation.Params[operation.CustodyParams](o)
	if err != nil {
		return nil, err
	}
	if p := params.Settings; p != nil {
		now, err := record.GetSettings(r, t.id)
		if err != nil {
			return nil, err
		}
		if now.Revision != p.Base || timesOf(now) != p.From {
			return nil, conflict("settings", "somebody else", now.Revision, p.Base)
		}
		state, err := now.State()
		if err != nil {
			return nil, err
		}
		return &operation.Basis{
			Hash: canon.Hash(canon.D("rms/v1/basis/settings", canon.Fields{1: uint64(now.Revision), 2: state[:]})),
			Text: []string{fmt.Sprintf("revision %d of the settings", now.Revision)},
		}, nil
	}
	if err := t.checkTemplateBasis(r, o); err != nil {
		return nil, err
	}
	current, err := t.findTemplate(r, params.Template.Slug)
	if err != nil {
		return nil, err
	}
	b, err := license.EncodeTemplate(current.Template)
	if err != nil {
		return nil, err
	}
	return &operation.Basis{
		Hash: canon.Hash(canon.D("rms/v1/basis/template", canon.Fields{1: current.UID[:], 2: b})),
		Text: []string{fmt.Sprintf("revision %d of template %s", current.Revision, current.Slug)},
	}, nil
}

// prepareCustody does what was approved.
func (t *Tenant) prepareCustody(ctx context.Context, o *operation.Operation) (effect, error) {
	params, err := operation.Params[operation.CustodyParams](o)
	if err != nil {
		return nil, err
	}
	if params.Template != nil {
		return t.prepareTemplate(ctx, o)
	}
	if params.Settings == nil {
		return nil, contradicts("an operation")
	}
	return func(tx store.Tx, o *operation.Operation, id vocab.OperationID, now time.Time) (string, error) {
		e := t.effectEvent(audit.KindSettingsChanged, o, id, now)
		e.Target, e.Detail = "settings", detailOf(params.Settings.Changes())
		next, err := record.GetSettings(tx, t.id)
		if err != nil {
			return "", err
		}
		setTimes(&next, params.Settings.To)
		next.Revision++
		next.LastEvent = e.ID
		if err := checkSettings(next); err != nil {
			return "", err
		}
		if err := record.PutSettings(tx, t.id, next); err != nil {
			return "", err
		}
		if e.State, err = next.State(); err != nil {
			return "", err
		}
		tx.AfterCommit(func() { t.adopt(next) })
		return fmt.Sprintf("revision %d of the settings", next.Revision), t.log.Append(tx, e)
	}, nil
}
