package tenant_test

import (
	"context"
	"testing"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/tenant"
	"github.com/openrms/rms/internal/vocab"
)

// meddled is a store in which somebody else is faster: before the next
// transaction, meddle runs.
type meddled struct {
	store.Store
	meddle func()
}

func (m *meddled) Commit(ctx context.Context, fn func(store.Tx) error) error {
	if meddle := m.meddle; meddle != nil {
		m.meddle = nil
		meddle()
	}
	return m.Store.Commit(ctx, fn)
}

// recipient is a new key to have content keys sealed to.
func (s *served) recipient(t *testing.T) tenant.Recipient {
	t.Helper()
	key, err := license.NewRecipientKey(license.XWing)
	if err != nil {
		t.Fatal(err)
	}
	to, err := license.ParseRecipient(license.XWing, key.Public(), s.AllowedKEMs())
	if err != nil {
		t.Fatal(err)
	}
	return tenant.Recipient{Sealed: to}
}

// template writes a revision of the template "t" over whatever is there.
func (s *served) template(t *testing.T, state policy.State, grants ...policy.Grant) *policy.Template {
	t.Helper()
	s.call.Caller.Member = "contoso"
	_, err := s.GetTemplate(t.Context(), "t", 0)
	out, _, err := s.WriteTemplate(t.Context(), s.call, "t", &policy.Template{
		Names: map[string]string{"en": "T"}, State: state, Grants: grants, Offline: policy.OfflineMax,
	}, 0, err == nil, false)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// A refusal to protect that an edit overtakes is no refusal: it is decided
// again, so that the log never has one that was not right where it stands.
func TestRefusalToPublishIsDecidedAgain(t *testing.T) {
	var m *meddled
	s := serveThrough(t, func(s store.Store) store.Store { m = &meddled{Store: s}; return m })
	publish := func() error {
		_, err := s.Publish(t.Context(), s.call, tenant.PublishRequest{Template: "t", To: s.recipient(t)})
		return err
	}
	s.template(t, policy.StateArchived)
	if got := vocab.ReasonOf(publish()); got != vocab.ReasonTemplateArchived {
		t.Fatalf("protecting with an archived template gave %q", got)
	}
	m.meddle = func() { s.template(t, policy.StatePublished) }
	if err := publish(); err != nil {
		t.Errorf("protecting with a template that was published meanwhile: %v", err)
	}
	m.meddle = func() { s.template(t, policy.StateArchived) }
	if got := vocab.ReasonOf(publish()); got != vocab.ReasonTemplateArchived {
		t.Errorf("protecting with a template that was archived meanwhile gave %q", got)
	}
	if got := s.kinds(t); got[audit.KindRefused] != 2 || got[audit.KindPublished] != 1 {
		t.Errorf("events: %v, want two refusals and one publication", got)
	}
}
