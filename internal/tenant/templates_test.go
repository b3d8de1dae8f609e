package tenant_test

import (
	"context"
	"errors"
	"testing"

	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/tenant"
	"github.com/openrms/rms/internal/vocab"
)

// watched is a store that counts what is read and lets the test act before a
// transaction.
type watched struct {
	*counting
	beforeCommit func()
}

func (w *watched) Commit(ctx context.Context, fn func(store.Tx) error) error {
	if act := w.beforeCommit; act != nil {
		w.beforeCommit = nil
		act()
	}
	return w.counting.Commit(ctx, fn)
}

// watchedTenant is a tenant with a template, and how much is read of its store.
type watchedTenant struct {
	*served
	store *watched
	to    tenant.Recipient
}

func newWatchedTenant(t *testing.T) *watchedTenant {
	t.Helper()
	o := &watchedTenant{store: &watched{counting: &counting{reads: map[store.Table]tally{}}}}
	o.served = serveThrough(t, func(s store.Store) store.Store {
		o.store.counting.Store = s
		return o.store
	})
	o.call.Caller.Member = "contoso"
	key, err := license.NewRecipientKey(license.XWing)
	if err != nil {
		t.Fatal(err)
	}
	if o.to.Sealed, err = license.ParseRecipient(license.XWing, key.Public(), o.AllowedKEMs()); err != nil {
		t.Fatal(err)
	}
	o.write(t, internal(), 0)
	return o
}

func internal() *policy.Template {
	return &policy.Template{
		Names: map[string]string{"en": "Internal"}, State: policy.StatePublished, Offline: 7 * policy.Day,
		Grants: []policy.Grant{{To: vocab.Principal{Kind: vocab.KindTenant, Value: "contoso"}, Rights: policy.CoAuthor.Rights()}},
	}
}

func (o *watchedTenant) write(t *testing.T, next *policy.Template, want uint32) {
	t.Helper()
	if _, _, err := o.WriteTemplate(t.Context(), o.call, "internal", next, want, false, false); err != nil {
		t.Fatal(err)
	}
}

func (o *watchedTenant) protect(t *testing.T) {
	t.Helper()
	if _, err := o.Publish(t.Context(), o.call, tenant.PublishRequest{Template: "internal", To: o.to}); err != nil {
		t.Fatal(err)
	}
}

// A preview says how many licenses follow the template, and reads none of them.
func TestPreviewReadsNoLicenses(t *testing.T) {
	o := newWatchedTenant(t)
	next := internal()
	next.Grants[0].Rights, next.Contact = policy.Viewer.Rights(), "help@contoso.test"
	look := func() (p *tenant.TemplatePreview, rows int) {
		t.Helper()
		for _, r := range o.store.during(func() {
			var err error
			if p, err = o.PreviewTemplate(t.Context(), "internal", next); err != nil {
				t.Fatal(err)
			}
		}) {
			rows += r.Gets + r.Items
		}
		return p, rows
	}
	look() // from here on the template is in the cache
	_, few := look()
	for range 50 {
		o.protect(t)
	}
	p, many := look()
	if many != few {
		t.Errorf("%d reads for no license, %d for 50", few, many)
	}
	lost := vocab.RightsOf(vocab.RightDocEdit, vocab.RightEdit, vocab.RightReply, vocab.RightReplyAll, vocab.RightForward, vocab.RightExtract, vocab.RightPrint)
	if p.Followers != 50 || p.Current.Revision != 1 || len(p.Changes) != 1 || p.Changes[0].Loses != lost || len(p.Fields) != 1 || p.Fields[0] != "contact" {
		t.Errorf("%+v", p)
	}
	if now, err := o.GetTemplate(t.Context(), "internal", 0); err != nil || now.Revision != 1 {
		t.Errorf("revision %d after a preview, %v", now.Revision, err)
	}
}

// A template that a license came to follow between the look and the deletion is
// not deleted.
func TestDeletionSeesTheLastLicense(t *testing.T) {
	o := newWatchedTenant(t)
	o.store.beforeCommit = func() { o.protect(t) }
	_, _, err := o.DeleteTemplate(t.Context(), o.call, "internal", 1, false, false)
	if !errors.Is(err, vocab.ReasonTemplateInUse) {
		t.Errorf("%v, want TEMPLATE_IN_USE", err)
	}
	if now, err := o.GetTemplate(t.Context(), "internal", 0); err != nil || now.State != policy.StatePublished {
		t.Errorf("it is %v, %v", now, err)
	}
	if _, _, err := o.DeleteTemplate(t.Context(), o.call, "internal", 1, false, true); err != nil {
		t.Errorf("forced: %v", err)
	}
}
