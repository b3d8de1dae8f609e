package tenant_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/tenant"
	"github.com/openrms/rms/internal/vocab"
)

func anyOwner(vocab.Principal) error             { return nil }
func anyRevocation(*record.RevocationRule) error { return nil }

func (d *desk) revoke(req tenant.RevocationRequest) (*tenant.RevocationView, *tenant.Coverage) {
	d.t.Helper()
	if req.Reason == "" {
		req.Reason = "a test"
	}
	v, c, _, err := d.at().RevokeLicenses(d.t.Context(), d.call(), req, anyOwner)
	if err != nil {
		d.t.Fatal(err)
	}
	return v, c
}

func (d *desk) restore(id vocab.EventID) {
	d.t.Helper()
	if _, _, err := d.at().RestoreLicenses(d.t.Context(), d.call(), id, anyRevocation); err != nil {
		d.t.Fatal(err)
	}
}

// event returns the event an error names.
func (d *desk) event(err error) *audit.Event {
	d.t.Helper()
	v, ok := errors.AsType[*vocab.Error](err)
	if !ok || v.Event.IsZero() {
		d.t.Fatalf("%v names no event", err)
	}
	e, err := d.log.Get(d.t.Context(), d.at().ID(), v.Event)
	if err != nil {
		d.t.Fatal(err)
	}
	return e.Event
}

const revoked = vocab.ReasonLicenseRevoked

func (d *desk) template(slug string) {
	d.t.Helper()
	if _, _, err := d.at().WriteTemplate(d.t.Context(), d.call(), slug, &policy.Template{
		State: policy.StatePublished, Names: map[string]string{"en": slug}, Offline: policy.OfflineMax,
		Grants: []policy.Grant{{To: user("bob"), Rights: vocab.AllRights}, {To: user("carol"), Rights: vocab.AllRights}},
	}, 0, false, false); err != nil {
		d.t.Fatal(err)
	}
}

// Each condition covers what it says, and nothing else; taken back, everything
// opens again; and a restart changes nothing of either.
func TestRevocationByCondition(t *testing.T) {
	o := newOffice(t, "contoso")
	alice, bob, carol := o.as("alice", "contoso"), o.as("bob", "contoso"), o.as("carol", "contoso")
	alice.template("finance")
	first := alice.mustPublish("")
	second := alice.mustPublish("finance")
	for !alice.published(second).After(alice.published(first)) {
		second = alice.mustPublish("finance")
	}
	between := alice.published(second)
	third := carol.mustPublish("")
	child := bob.mustPublish("", first)
	grandchild := bob.mustPublish("", child, third)
	docs := []vocab.ContentID{first, second, third, child, grandchild}
	open := make([]vocab.Reason, len(docs))
	if d := cmp.Diff(open, bob.opens(docs...)); d != "" {
		t.Fatal(d)
	}
	for _, c := range []struct {
		name       string
		rule       policy.RevocationRule
		template   string
		bob, carol string // first, second, third, child, grandchild: x is revoked
	}{
		{"owner", policy.RevocationRule{Owner: user("alice")}, "", "xx---", "xx---"},
		{"template", policy.RevocationRule{}, "finance", "-x---", "-x---"},
		{"principal", policy.RevocationRule{Principal: user("bob")}, "", "xxxxx", "-----"},
		{"published until", policy.RevocationRule{Until: between}, "", "x----", "x----"},
		{"published from", policy.RevocationRule{From: between}, "", "-xxxx", "-xxxx"},
		{"lineage of the first", policy.RevocationRule{Lineage: first}, "", "x--xx", "x--xx"},
		{"lineage of the third", policy.RevocationRule{Lineage: third}, "", "--x-x", "--x-x"},
		{"owner and lineage", policy.RevocationRule{Owner: user("bob"), Lineage: first}, "", "---xx", "---xx"},
		{"owner, template and principal", policy.RevocationRule{Owner: user("alice"), Principal: user("bob")}, "finance", "-x---", "-----"},
	} {
		t.Run(c.name, func(t *testing.T) {
			v, _ := alice.revoke(tenant.RevocationRequest{Rule: c.rule, Template: c.template})
			see := func(when string) {
				t.Helper()
				for _, d := range []struct {
					who  *desk
					want string
				}{{bob, c.bob}, {carol, c.carol}} {
					got := ""
					for _, r := range d.who.opens(docs...) {
						got += map[vocab.Reason]string{"": "-", revoked: "x"}[r]
					}
					if got != d.want {
						t.Errorf("%s, %s: %s, want %s", d.who.who.Subject, when, got, d.want)
					}
				}
			}
			see("at once")
			o.restart()
			see("after a restart")
			alice.restore(v.ID)
			o.restart()
			if d := cmp.Diff(open, bob.opens(docs...)); d != "" {
				t.Errorf("taken back (-want +got):\n%s", d)
			}
		})
	}
}

// Whatever acquire begins after the call returned is refused, however many are
// under way, alone and in batches; and one that begins after it was taken back
// is not. What was under way meanwhile, and every publication from a covered
// document, is in the log where its outcome belongs.
func TestRevocationIsInForceAtOnce(t *testing.T) {
	const acquirers, rounds = 16, 6
	o := newOffice(t, "contoso")
	alice := o.as("alice", "contoso")
	docs := []vocab.ContentID{alice.mustPublish(""), alice.mustPublish("")}
	free := o.as("carol", "contoso").mustPublish("")
	// state counts up before and after each change: odd while one is under
	// way; 2 mod 4 is revoked.
	var state atomic.Int64
	var seen [2]atomic.Int64
	var wg sync.WaitGroup
	done := make(chan struct{})
	progress := make(chan struct{}, acquirers)
	for i := range acquirers {
		bob := o.as("bob", "contoso")
		wg.Go(func() {
			for {
				before := state.Load()
				batch := []vocab.ContentID{docs[i%2]}
				if i%4 == 0 {
					batch = []vocab.ContentID{docs[0], free, docs[1]}
				}
				got := bob.opens(batch...)
				if i%4 == 1 {
					if _, err := bob.publish("", docs[0]); err != nil && vocab.ReasonOf(err) != revoked {
						t.Error(err)
					}
				}
				if after := state.Load(); before == after && before%2 == 0 {
					want := vocab.Reason("")
					if before%4 == 2 {
						want = revoked
					}
					seen[before%4/2].Add(1)
					for j, c := range batch {
						if w := want; c != free && got[j] != w || c == free && got[j] != "" {
							t.Errorf("acquirer %d in state %d: %v, want %q", i, before, got, want)
						}
					}
				}
				select {
				case progress <- struct{}{}:
				case <-done:
					return
				}
			}
		})
	}
	for range rounds {
		for range 2 * acquirers {
			<-progress
		}
		state.Add(1)
		v, _ := alice.revoke(tenant.RevocationRequest{Rule: policy.RevocationRule{Owner: user("alice")}})
		state.Add(1)
		for range 2 * acquirers {
			<-progress
		}
		state.Add(1)
		alice.restore(v.ID)
		state.Add(1)
	}
	close(done)
	wg.Wait()
	o.replay(t, alice.at().ID(), docs, "bob@contoso.test")
	if seen[0].Load() == 0 || seen[1].Load() == 0 {
		t.Errorf("too little was seen: %d acquires while in force not, %d while in force", seen[0].Load(), seen[1].Load())
	}
}

// replay reads the log as the order of what happened: while a rule was in
// force no key of the documents was released and the reader published nothing,
// and without one nobody was refused to open one.
func (o *office) replay(t *testing.T, id vocab.TenantID, docs []vocab.ContentID, reader string) {
	t.Helper()
	n, err := o.log.Size(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	inForce := false
	for e, err := range o.log.Range(t.Context(), id, 0, n) {
		if err != nil {
			t.Fatal(err)
		}
		switch ev := e.Event; ev.Kind {
		case audit.KindLicensesRevoked, audit.KindLicensesRestored:
			inForce = ev.Kind == audit.KindLicensesRevoked
		case audit.KindReleased:
			if inForce && slices.Contains(docs, ev.Content) {
				t.Errorf("position %d: a key was released while the rule was in force", e.Index)
			}
		case audit.KindPublished:
			if inForce && ev.Principal.Name == reader {
				t.Errorf("position %d: something was made of a document while the rule was in force", e.Index)
			}
		case audit.KindRefused:
			if !inForce && !ev.Content.IsZero() {
				t.Errorf("position %d: %s while no rule was in force", e.Index, ev.Reason)
			}
		default: // what the tenant does for itself
		}
	}
}

// A refused caller is told nothing of the rule; the log names the event that
// made it.
func TestRevocationIsNamedInTheLogAlone(t *testing.T) {
	o := newOffice(t, "contoso")
	alice, bob, mallory := o.as("alice", "contoso"), o.as("bob", "contoso"), o.as("mallory", "contoso")
	doc := alice.mustPublish("")
	older, _ := alice.revoke(tenant.RevocationRequest{Rule: policy.RevocationRule{Owner: user("alice")}, Reason: "a leak nobody must hear of"})
	alice.revoke(tenant.RevocationRequest{Rule: policy.RevocationRule{Lineage: doc}})

	err := bob.acquire(doc)[0]
	if text := err.Error(); strings.Contains(text, "leak") || strings.Contains(text, "alice") || strings.Contains(text, older.ID.String()) {
		t.Errorf("the caller reads %q", text)
	}
	e := bob.event(err)
	if e.Parent != older.ID || e.Reason != revoked || strings.Contains(e.Detail, "leak") {
		t.Errorf("the event says %s, parent %s, detail %q; want parent %s", e.Reason, e.Parent, e.Detail, older.ID)
	}
	made, err := o.log.Get(t.Context(), alice.at().ID(), older.ID)
	if err != nil {
		t.Fatal(err)
	}
	if made.Event.Kind != audit.KindLicensesRevoked || made.Event.Target != "revocations/"+older.ID.String() ||
		made.Event.Detail != "owner user:alice@contoso.test: a leak nobody must hear of" {
		t.Errorf("made by %s of %s: %q", made.Event.Kind, made.Event.Target, made.Event.Detail)
	}

	// A stranger is a stranger whatever is revoked, and his event says no more.
	err = mallory.acquire(doc)[0]
	if e := mallory.event(err); vocab.ReasonOf(err) != vocab.ReasonNoRights || !e.Parent.IsZero() {
		t.Errorf("mallory is told %v, with parent %s", err, e.Parent)
	}
}

// Only a document that is revoked by itself opens for its issuer.
func TestIssuerPassesNoRule(t *testing.T) {
	o := newOffice(t, "contoso")
	alice := o.as("alice", "contoso")
	doc := alice.mustPublish("")
	if _, _, err := alice.at().RevokeLicense(t.Context(), alice.call(), doc, "alone", anyOwner); err != nil {
		t.Fatal(err)
	}
	if got := alice.opens(doc); got[0] != "" {
		t.Fatalf("the issuer of a revoked document: %s", got[0])
	}
	for _, rule := range []policy.RevocationRule{{Lineage: doc}, {Owner: user("alice")}, {Principal: user("alice")}, {Until: time.Now().Add(time.Hour).Truncate(time.Millisecond)}} {
		v, _ := alice.revoke(tenant.RevocationRequest{Rule: rule})
		if got := alice.opens(doc); got[0] != revoked {
			t.Errorf("%s: the issuer gets %q", rule.String(), got[0])
		}
		alice.restore(v.ID)
	}
}

// From what a rule covers nothing is made, and nothing is made that a rule
// would cover.
func TestNothingIsPublishedIntoARevocation(t *testing.T) {
	o := newOffice(t, "contoso")
	alice, bob := o.as("alice", "contoso"), o.as("bob", "contoso")
	alice.template("finance")
	parent := alice.mustPublish("")
	child := bob.mustPublish("", parent)
	for _, c := range []struct {
		name     string
		rule     policy.RevocationRule
		template string
		who      *desk
		publish  string
		parents  []vocab.ContentID
		want     vocab.Reason
	}{
		{"a parent is covered", policy.RevocationRule{Lineage: parent}, "", bob, "", []vocab.ContentID{parent}, revoked},
		{"a parent's parent is", policy.RevocationRule{Lineage: parent}, "", bob, "", []vocab.ContentID{child}, revoked},
		{"a parent is, of its own issuer", policy.RevocationRule{Owner: user("alice"), Lineage: parent}, "", alice, "", []vocab.ContentID{parent}, revoked},
		{"a parent is not, but what bob makes of it is", policy.RevocationRule{Owner: user("bob"), Lineage: parent}, "", bob, "", []vocab.ContentID{parent}, revoked},
		{"a parent is for somebody else", policy.RevocationRule{Principal: user("carol")}, "", bob, "", []vocab.ContentID{parent}, ""},
		{"the owner is", policy.RevocationRule{Owner: user("bob")}, "", bob, "", nil, revoked},
		{"the template is", policy.RevocationRule{}, "finance", bob, "finance", nil, revoked},
		{"another template is", policy.RevocationRule{}, "finance", bob, "", nil, ""},
		{"the publisher is", policy.RevocationRule{Principal: user("bob")}, "", bob, "", nil, revoked},
		{"the past is", policy.RevocationRule{Until: time.Now().Truncate(time.Millisecond)}, "", bob, "", nil, ""},
		{"all that comes is", policy.RevocationRule{From: time.Now().Truncate(time.Millisecond)}, "", bob, "", nil, revoked},
	} {
		t.Run(c.name, func(t *testing.T) {
			v, _ := alice.revoke(tenant.RevocationRequest{Rule: c.rule, Template: c.template})
			defer alice.restore(v.ID)
			_, err := c.who.publish(c.publish, c.parents...)
			if got := vocab.ReasonOf(err); got != c.want {
				t.Fatalf("got %v, want %q", err, c.want)
			}
			if c.want != "" {
				if e := c.who.event(err); e.Parent != v.ID {
					t.Errorf("the event's parent is %s, not the revocation", e.Parent)
				}
			}
		})
	}
}

// The rules of one tenant are no other's.
func TestRevocationStaysInItsTenant(t *testing.T) {
	o := newOffice(t, "contoso", "fabrikam")
	alice, dora := o.as("alice", "contoso"), o.as("alice", "fabrikam")
	dora.who.Addresses = []string{"bob@contoso.test"} // as if vouched for there
	theirs := dora.mustPublish("")
	alice.revoke(tenant.RevocationRequest{Rule: policy.RevocationRule{Owner: user("bob")}})
	alice.revoke(tenant.RevocationRequest{Rule: policy.RevocationRule{Principal: user("bob")}})
	alice.revoke(tenant.RevocationRequest{Rule: policy.RevocationRule{Until: time.Now().Add(time.Hour).Truncate(time.Millisecond)}})
	if got := dora.opens(theirs); got[0] != "" {
		t.Errorf("the other tenant's document: %s", got[0])
	}
	if _, _, _, err := alice.at().RevokeLicenses(t.Context(), alice.call(), tenant.RevocationRequest{
		Rule: policy.RevocationRule{Lineage: theirs}, Reason: "a test",
	}, anyOwner); vocab.ReasonOf(err) != vocab.ReasonNoRights {
		t.Errorf("the other tenant's document as lineage: %v", err)
	}
}

// The owner of what is revoked because of its owner does not give it away; an
// administrator does, and then it opens for whom the policy says.
func TestRevokedIsNotGivenAway(t *testing.T) {
	o := newOffice(t, "contoso")
	alice, bob := o.as("alice", "contoso"), o.as("bob", "contoso")
	doc, other := alice.mustPublish(""), alice.mustPublish("")
	give := func(c vocab.ContentID, byOwner bool) vocab.Reason {
		to := user("carol")
		_, _, err := alice.at().UpdateLicense(t.Context(), alice.call(), c, 0, true, tenant.LicenseEdit{Owner: &to, ByOwner: byOwner}, anyOwner)
		return vocab.ReasonOf(err)
	}
	v, _ := alice.revoke(tenant.RevocationRequest{Rule: policy.RevocationRule{Owner: user("alice"), Principal: user("bob"), Lineage: doc}})
	if got := give(doc, true); got != revoked {
		t.Fatalf("the owner gave it away: %q", got)
	}
	if got := give(other, true); got != "" {
		t.Errorf("what is not covered: %q", got)
	}
	if got := bob.opens(doc); got[0] != revoked {
		t.Errorf("it opens: %v", got)
	}
	if got := give(doc, false); got != "" {
		t.Errorf("an administrator: %q", got)
	}
	if got := bob.opens(doc); got[0] != "" {
		t.Errorf("it is carol's and does not open: %v", got)
	}
	alice.restore(v.ID)
}

// What may not be revoked together is refused, and nothing is changed; a check
// changes nothing either.
func TestRevocationIsChecked(t *testing.T) {
	o := newOffice(t, "contoso")
	alice, bob := o.as("alice", "contoso"), o.as("bob", "contoso")
	doc := alice.mustPublish("")
	own, _ := alice.revoke(tenant.RevocationRequest{Rule: policy.RevocationRule{Owner: user("carol")}, ByOwner: true})
	for name, c := range map[string]struct {
		req  tenant.RevocationRequest
		want vocab.Reason
	}{
		"no reason":            {tenant.RevocationRequest{Rule: policy.RevocationRule{Owner: user("alice")}}, vocab.ReasonRequestInvalid},
		"a reason of escapes":  {tenant.RevocationRequest{Rule: policy.RevocationRule{Owner: user("alice")}, Reason: "\x1b[2J"}, vocab.ReasonRequestInvalid},
		"no condition":         {tenant.RevocationRequest{Reason: "x"}, vocab.ReasonRequestInvalid},
		"everybody":            {tenant.RevocationRequest{Rule: policy.RevocationRule{Principal: vocab.Principal{Kind: vocab.KindAnyone}}, Reason: "x"}, vocab.ReasonRequestInvalid},
		"no such template":     {tenant.RevocationRequest{Template: "none", Reason: "x"}, vocab.ReasonResourceNotFound},
		"no such document":     {tenant.RevocationRequest{Rule: policy.RevocationRule{Lineage: vocab.NewContentID()}, Reason: "x"}, vocab.ReasonNoRights},
		"the same again":       {tenant.RevocationRequest{Rule: policy.RevocationRule{Owner: user("carol")}, Reason: "x", ByOwner: true}, vocab.ReasonResourceExists},
		"the same, as a check": {tenant.RevocationRequest{Rule: policy.RevocationRule{Owner: user("carol")}, Reason: "x", ByOwner: true, Dry: true}, vocab.ReasonResourceExists},
	} {
		if _, _, _, err := alice.at().RevokeLicenses(t.Context(), alice.call(), c.req, anyOwner); vocab.ReasonOf(err) != c.want {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
	v, cover, event, err := alice.at().RevokeLicenses(t.Context(), alice.call(), tenant.RevocationRequest{
		Rule: policy.RevocationRule{Owner: user("alice")}, Reason: "x", Dry: true,
	}, anyOwner)
	if err != nil {
		t.Fatal(err)
	}
	if cover.Licenses != 1 || cover.MoreLicenses {
		t.Errorf("the check counts %+v", cover)
	}
	if e, err := o.log.Get(t.Context(), alice.at().ID(), event); err != nil || e.Event.Kind != audit.KindRead {
		t.Errorf("the check is recorded as %v (%v)", e.Event, err)
	}
	if _, err := alice.at().GetRevocation(t.Context(), v.ID, anyRevocation); vocab.ReasonOf(err) != vocab.ReasonResourceNotFound {
		t.Errorf("the check made something: %v", err)
	}
	if got := bob.opens(doc); got[0] != "" {
		t.Errorf("the check revoked: %v", got)
	}
	// An administrator's is another than the owner's own, and outlives it.
	admins, _ := alice.revoke(tenant.RevocationRequest{Rule: policy.RevocationRule{Owner: user("carol")}})
	alice.restore(own.ID)
	if _, err := alice.at().GetRevocation(t.Context(), admins.ID, anyRevocation); err != nil {
		t.Error(err)
	}
	// Taken back once is taken back.
	if _, _, err := alice.at().RestoreLicenses(t.Context(), alice.call(), own.ID, anyRevocation); vocab.ReasonOf(err) != vocab.ReasonResourceNotFound {
		t.Errorf("taken back twice: %v", err)
	}
}

// Who may not know of a revocation learns nothing and changes nothing.
func TestRevocationAsksWhoCalls(t *testing.T) {
	o := newOffice(t, "contoso")
	alice := o.as("alice", "contoso")
	doc := alice.mustPublish("")
	v, _ := alice.revoke(tenant.RevocationRequest{Rule: policy.RevocationRule{Owner: user("alice")}})
	no := vocab.Errorf(vocab.ReasonRoleRequired, "no")
	var asked []*record.RevocationRule
	deny := func(r *record.RevocationRule) error { asked = append(asked, r); return no }
	for _, id := range []vocab.EventID{v.ID, vocab.NewEventID()} {
		if got, err := alice.at().GetRevocation(t.Context(), id, deny); vocab.ReasonOf(err) != vocab.ReasonRoleRequired || got != nil {
			t.Errorf("read: %v %v", got, err)
		}
		if got, _, err := alice.at().RestoreLicenses(t.Context(), alice.call(), id, deny); vocab.ReasonOf(err) != vocab.ReasonRoleRequired || got != nil {
			t.Errorf("took back: %v %v", got, err)
		}
	}
	if len(asked) != 4 || asked[0] == nil || asked[0].Rule.Owner != user("alice") || asked[2] != nil {
		t.Errorf("asked about %v", asked)
	}
	if _, _, _, err := alice.at().RevokeLicenses(t.Context(), alice.call(), tenant.RevocationRequest{
		Rule: policy.RevocationRule{Lineage: doc}, Reason: "x",
	}, func(owner vocab.Principal) error {
		if owner != user("alice") {
			t.Errorf("asked about %s", owner)
		}
		return no
	}); vocab.ReasonOf(err) != vocab.ReasonRoleRequired {
		t.Errorf("the lineage of somebody else's document: %v", err)
	}
	if _, err := alice.at().GetRevocation(t.Context(), v.ID, anyRevocation); err != nil {
		t.Error(err)
	}
}

// A license shows which rules cover it for everybody.
func TestLicenseShowsItsRules(t *testing.T) {
	o := newOffice(t, "contoso")
	alice, bob := o.as("alice", "contoso"), o.as("bob", "contoso")
	parent := alice.mustPublish("")
	child := bob.mustPublish("", parent)
	lineage, _ := alice.revoke(tenant.RevocationRequest{Rule: policy.RevocationRule{Lineage: parent}})
	owner, _ := alice.revoke(tenant.RevocationRequest{Rule: policy.RevocationRule{Owner: user("bob")}})
	alice.revoke(tenant.RevocationRequest{Rule: policy.RevocationRule{Owner: user("bob"), Principal: user("carol")}})
	v, err := alice.at().GetLicense(t.Context(), child, anyOwner)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]vocab.EventID{lineage.ID, owner.ID}, v.Rules); d != "" {
		t.Errorf("child (-want +got):\n%s", d)
	}
	title := "another"
	if v, _, err = alice.at().UpdateLicense(t.Context(), alice.call(), child, 0, true, tenant.LicenseEdit{Title: &title}, anyOwner); err != nil || len(v.Rules) != 2 {
		t.Errorf("after an edit: %v (%v)", v, err)
	}
	_, _, err = alice.at().RestoreLicense(t.Context(), alice.call(), child, anyOwner)
	if e, _ := errors.AsType[*vocab.Error](err); e == nil || e.Reason != vocab.ReasonRequestInvalid || !strings.Contains(e.Next, "revocations/"+lineage.ID.String()) {
		t.Errorf("restoring one that is revoked with others: %v", err)
	}
}

// Revocations are listed newest first, in pages.
func TestRevocationsAreListed(t *testing.T) {
	o := newOffice(t, "contoso")
	alice := o.as("alice", "contoso")
	alice.template("finance")
	var want []string
	for i := range 5 {
		owner := user([]string{"bob", "carol"}[i%2])
		v, _ := alice.revoke(tenant.RevocationRequest{
			Rule: policy.RevocationRule{Owner: owner, From: time.UnixMilli(int64(i + 1)).UTC()}, Template: "finance", ByOwner: i == 2, Reason: fmt.Sprint("reason ", i),
		})
		if i == 1 {
			alice.restore(v.ID)
			continue
		}
		want = slices.Insert(want, 0, fmt.Sprintf("%s finance reason %d alice@contoso.test", owner, i))
	}
	read := func(owner vocab.Principal, byOwner bool, limit int) (got []string) {
		var owners []vocab.Principal
		if !owner.IsZero() {
			owners = append(owners, owner)
		}
		for before := (vocab.EventID{}); ; {
			page, next, err := alice.at().ListRevocations(t.Context(), owners, byOwner, before, limit)
			if err != nil || len(page) > limit {
				t.Fatal(len(page), err)
			}
			for _, v := range page {
				got = append(got, fmt.Sprintf("%s %s %s %s", v.Rule.Owner, v.TemplateSlug, v.Reason, v.By))
			}
			if before = next; next.IsZero() {
				return got
			}
		}
	}
	for limit := 1; limit < 6; limit++ {
		if d := cmp.Diff(want, read(vocab.Principal{}, false, limit)); d != "" {
			t.Errorf("in pages of %d (-want +got):\n%s", limit, d)
		}
	}
	if d := cmp.Diff([]string{want[0], want[2], want[3]}, read(user("bob"), false, 2)); d != "" {
		t.Errorf("bob's (-want +got):\n%s", d)
	}
	if d := cmp.Diff([]string{want[2]}, read(user("bob"), true, 2)); d != "" {
		t.Errorf("bob's own (-want +got):\n%s", d)
	}
}
