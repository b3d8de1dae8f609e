package tenant_test

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/openrms/rms/internal/directory"
	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/tenant"
	"github.com/openrms/rms/internal/vocab"
)

// tally is what was read of a table.
type tally struct{ Gets, Scans, Items, Bytes int }

// counting is a store that counts what is read.
type counting struct {
	store.Store
	mu     sync.Mutex
	reads  map[store.Table]tally
	writer bool // count only what is read in transactions
}

func (c *counting) View(ctx context.Context, fn func(store.Reader) error) error {
	if c.writer {
		return c.Store.View(ctx, fn)
	}
	return c.Store.View(ctx, func(r store.Reader) error { return fn(countingReader{r, c}) })
}

func (c *counting) Commit(ctx context.Context, fn func(store.Tx) error) error {
	return c.Store.Commit(ctx, func(tx store.Tx) error { return fn(countingTx{tx, countingReader{tx, c}}) })
}

func (c *counting) add(table store.Table, r tally) {
	c.mu.Lock()
	defer c.mu.Unlock()
	sum := c.reads[table]
	c.reads[table] = tally{sum.Gets + r.Gets, sum.Scans + r.Scans, sum.Items + r.Items, sum.Bytes + r.Bytes}
}

// during returns what fn has read, without the log: what is read of that grows
// with its own size, as the logarithm.
func (c *counting) during(fn func()) map[store.Table]tally {
	c.mu.Lock()
	c.reads = map[store.Table]tally{}
	c.mu.Unlock()
	fn()
	c.mu.Lock()
	defer c.mu.Unlock()
	out := map[store.Table]tally{}
	for table, r := range c.reads {
		if !strings.HasPrefix(string(table), "audit-") {
			out[table] = r
		}
	}
	return out
}

type countingReader struct {
	store.Reader
	c *counting
}

func (r countingReader) Get(table store.Table, key []byte) ([]byte, bool, error) {
	b, ok, err := r.Reader.Get(table, key)
	r.c.add(table, tally{Gets: 1, Bytes: len(b)})
	return b, ok, err
}

func (r countingReader) Scan(table store.Table, rng store.Range) iter.Seq2[store.Item, error] {
	r.c.add(table, tally{Scans: 1})
	return func(yield func(store.Item, error) bool) {
		for item, err := range r.Reader.Scan(table, rng) {
			r.c.add(table, tally{Items: 1, Bytes: len(item.Key) + len(item.Value)})
			if !yield(item, err) {
				return
			}
		}
	}
}

type countingTx struct {
	store.Tx
	r countingReader
}

func (t countingTx) Get(table store.Table, key []byte) ([]byte, bool, error) {
	return t.r.Get(table, key)
}

func (t countingTx) Scan(table store.Table, rng store.Range) iter.Seq2[store.Item, error] {
	return t.r.Scan(table, rng)
}

// TestDecisionsReadWhatMatches counts what is read of the store for a decision:
// it is the same with 10 grants and with 50,000, among one template and among
// 10,000, with the caller's two groups and with 10,000 of others beside them.
// The other templates are not even readable.
func TestDecisionsReadWhatMatches(t *testing.T) {
	const many = 10_000
	var base map[string]map[store.Table]tally
	for _, size := range []struct{ grants, templates, groups int }{
		{10, 1, 0}, {policy.MaxTemplateGrants, 1, 0}, {10, many, 0}, {10, 1, many}, {policy.MaxTemplateGrants, many, many},
	} {
		t.Run(fmt.Sprintf("%d grants, %d templates, %d groups of others", size.grants, size.templates, size.groups), func(t *testing.T) {
			got := readsOfDecisions(t, size.grants, size.templates, size.groups)
			if base == nil {
				base = got
			}
			if d := cmp.Diff(base, got); d != "" {
				t.Errorf("more or less was read than with 10 grants, one template and no group of others: %s", d)
			}
		})
	}
}

// groupsOf are bob's two groups, one in the other, and as many of others, ten of
// which stand in each eleventh.
func groupsOf(others int) map[string]record.Group {
	bob := vocab.Principal{Kind: vocab.KindUser, Value: "bob@contoso.test"}
	out := map[string]record.Group{
		"team@contoso.test":  {Members: []vocab.Principal{bob}},
		"staff@contoso.test": {Members: []vocab.Principal{directory.Group("team@contoso.test")}},
	}
	address := func(i int) string { return fmt.Sprintf("others-%d@contoso.test", i) }
	for i := range others {
		g := record.Group{Members: []vocab.Principal{{Kind: vocab.KindUser, Value: fmt.Sprintf("other-%d@contoso.test", i)}}}
		if i%11 == 10 {
			for j := range 10 {
				g.Members = append(g.Members, directory.Group(address(i-10+j)))
			}
		}
		slices.SortFunc(g.Members, vocab.Principal.Compare)
		out[address(i)] = g
	}
	return out
}

func readsOfDecisions(t *testing.T, grants, templates, groups int) map[string]map[store.Table]tally {
	t.Helper()
	c := &counting{reads: map[store.Table]tally{}}
	s := serveThrough(t, func(s store.Store) store.Store { c.Store = s; return c })
	if err := s.PutGroups(t.Context(), s.call, groupsOf(groups)); err != nil {
		t.Fatal(err)
	}
	var list []policy.Grant
	for i := range grants - 1 {
		list = append(list, policy.Grant{
			To: vocab.Principal{Kind: vocab.KindUser, Value: fmt.Sprintf("other-%d@contoso.test", i)}, Rights: vocab.RightsOf(vocab.RightView),
		})
	}
	s.template(t, policy.StatePublished, append(list, policy.Grant{To: directory.Group("staff@contoso.test"), Rights: vocab.RightsOf(vocab.RightView)})...)
	if err := c.Commit(t.Context(), func(tx store.Tx) error {
		for i := range templates - 1 {
			head := record.TemplateHead{Slug: fmt.Sprintf("other-%d", i), Revision: 1}
			if err := record.PutTemplateRevision(tx, s.ID(), vocab.NewTemplateUID(), head, []byte("not a template")); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	to := s.recipient(t)
	var pl []byte
	publish := func() {
		made, err := s.Publish(t.Context(), s.call, tenant.PublishRequest{Template: "t", To: to})
		if err != nil {
			t.Fatal(err)
		}
		pl = made.PublishingLicense
	}
	open := func(who string, want vocab.Reason) func() {
		return func() {
			caller := &vocab.Identity{Issuer: "https://idp.contoso.test", Subject: who, Addresses: []string{who + "@contoso.test"}, Member: "contoso"}
			out, err := s.Acquire(t.Context(), tenant.Call{Method: "test", Caller: caller}, to, []tenant.AcquireItem{{PublishingLicense: pl, Right: vocab.RightView}})
			if err != nil {
				t.Fatal(err)
			}
			if got := vocab.ReasonOf(out.Results[0].Err); got != want {
				t.Fatalf("%s was answered %q, want %q", who, got, want)
			}
		}
	}
	out := map[string]map[store.Table]tally{}
	for name, do := range map[string]func(){
		"publish": publish, "open": open("bob", ""), "refuse": open("mallory", vocab.ReasonNoRights),
	} {
		publish() // also has the template compiled
		out[name] = c.during(do)
	}
	return out
}

// TestWriterReadsNoTemplate has edits overtake a publish and an acquire, so that
// nobody has read the template's new revision when their transactions look
// whether the decision still holds. They must see that without reading it: what
// one of them reads, all writers wait for.
func TestWriterReadsNoTemplate(t *testing.T) {
	c := &counting{reads: map[store.Table]tally{}, writer: true}
	m := &meddled{Store: c}
	s := serveThrough(t, func(s store.Store) store.Store { c.Store = s; return m })
	everybody := policy.Grant{To: vocab.Principal{Kind: vocab.KindAnyone}, Rights: vocab.RightsOf(vocab.RightView)}
	s.template(t, policy.StatePublished, everybody)
	overtaken := func() {
		m.meddle = func() {
			s.template(t, policy.StatePublished, everybody)
			s.ForgetTemplates()
		}
	}
	to := s.recipient(t)
	reads := c.during(func() {
		overtaken()
		made, err := s.Publish(t.Context(), s.call, tenant.PublishRequest{Template: "t", To: to})
		if err != nil {
			t.Fatal(err)
		}
		overtaken()
		out, err := s.Acquire(t.Context(), s.call, to, []tenant.AcquireItem{{PublishingLicense: made.PublishingLicense, Right: vocab.RightView}})
		if err != nil || out.Results[0].Err != nil {
			t.Fatal(err, out.Results[0].Err)
		}
	})
	if got := reads["template-revisions"]; got != (tally{}) {
		t.Errorf("transactions read revisions of the template: %+v", got)
	}
	if reads["templates"].Gets == 0 {
		t.Error("transactions did not look at the template's head: nothing was counted")
	}
}
