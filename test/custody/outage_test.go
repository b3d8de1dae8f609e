package custody_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openrms/rms/internal/vaulttest"
	"github.com/openrms/rms/internal/vaulttest/realvault"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
	"github.com/openrms/rms/test/rmsdtest"
)

// The promise of a tenant with a TTL of ttl.
const (
	ttl          = 10 * time.Second
	strictWithin = time.Second     // strict documents stop after a seal
	surely       = 3 * time.Second // cached documents open until so long before the TTL
	slack        = time.Second     // and not later than so long after it
	backWithin   = 5 * time.Second // everything opens after an unseal
)

// TestOutage seals and unseals a tenant's Vault under a running daemon. Strict
// documents stop opening at once; documents of custody mode cached go on until
// the copy of their key has lived its TTL, and stop then; soon after the unseal
// everything opens again. The daemon is one process throughout, and every
// decryption that Vault's own audit file shows is one the daemon asked for.
func TestOutage(t *testing.T) {
	v := vaulttest.Start(t)
	place := vaulttest.Tenant(t, v, rmsdtest.Tenant)
	site := rmsdtest.New(t, custodianOf(v, place, v.Address, v.CAFile, ""))
	site.LogLevel = "debug"
	p := site.Start(t, rmsdtest.Build(t, ""))
	p.AwaitServing(t)
	life := status(t, site)

	o := &outage{site: site, bob: site.Caller(t, "bob")}
	o.setUp(t)
	o.awaitNewCopy(t)
	asked := time.Now() // not earlier than the copy in use

	// Everybody goes on opening through all that follows.
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	cached := o.keepOpening(ctx, t, o.cached)
	strict := o.keepOpening(ctx, t, o.strict)
	if err := v.Seal(t.Context()); err != nil {
		t.Fatal(err)
	}
	sealed := time.Now()
	// The log of what happens is judged afterwards; this only lasts long
	// enough. The TTL is the daemon's own clock.
	wait(t, time.Until(asked.Add(ttl+slack+2*time.Second)))
	unsealing := time.Now()
	if err := v.Unseal(t.Context()); err != nil {
		t.Fatal(err)
	}
	unsealed := time.Now()
	o.awaitAll(t, unsealed)
	back := time.Now()
	wait(t, 2*time.Second) // it must stay so
	stop()

	// Openings are refused for the right reason, and only then.
	for _, a := range strict.all() {
		switch {
		case a.done.Before(sealed) || a.began.After(back):
			a.must(t, "a strict document, Vault unsealed", true)
		case a.began.After(sealed.Add(strictWithin)) && a.done.Before(unsealing):
			a.must(t, "a strict document, Vault sealed", false)
		}
	}
	copied := o.copied // the copy in use is not older than that
	for _, a := range cached.all() {
		switch {
		case a.done.Before(copied.Add(ttl-surely)) || a.began.After(back):
			a.must(t, "a cached document within the TTL", true)
		case a.began.After(asked.Add(ttl+slack)) && a.done.Before(unsealing):
			a.must(t, "a cached document after the TTL", false)
		}
	}
	firstRefused := strict.firstRefused(sealed)
	if d := firstRefused.Sub(sealed); firstRefused.IsZero() || d > strictWithin {
		t.Errorf("a strict document was first refused %s after the seal", d)
	}
	if now := status(t, site); now != life || now.PID != fmt.Sprint(p.PID) {
		t.Errorf("it was not one process throughout: %v, then %v; %d was started", life, now, p.PID)
	}
	t.Logf("after the seal: strict refused within %s, cached refused after %s of a TTL of %s; all opened %s after the unseal; %d openings",
		firstRefused.Sub(sealed).Round(time.Millisecond), cached.firstRefused(sealed).Sub(copied).Round(10*time.Millisecond), ttl,
		back.Sub(unsealed).Round(time.Millisecond), len(cached.all())+len(strict.all()))

	o.noteEvents(t)
	if err := p.Stop(); err != nil {
		t.Fatalf("%v\n%s", err, p.LogEnd())
	}
	o.compareDecrypts(t, v, place, p)
}

// process is a life of a daemon as it tells its operator.
type process struct {
	PID     string `json:"pid"`
	Started string `json:"start_time"`
}

// status asks the daemon who it is.
func status(t *testing.T, site *rmsdtest.Site) (p process) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), rmsdtest.Build(t, ""), "status", "-c", site.Config, "-o", "json").Output()
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(out, &p); err != nil {
		t.Fatal(err)
	}
	return p
}

// wait lets time pass: what is tested here is what happens in it.
func wait(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case <-time.After(d):
	case <-t.Context().Done():
		t.Fatal(t.Context().Err())
	}
}

// outage is the documents of the test and whoever opens them.
type outage struct {
	site           *rmsdtest.Site
	bob            *rmsdtest.Caller
	cached, strict []*rmsdtest.Document
	copied         time.Time // the copy of the generation in use is not older
	requests       map[string]bool
}

// setUp gives the tenant its TTL and its documents.
func (o *outage) setUp(t *testing.T) {
	t.Helper()
	alice := o.site.Caller(t, "alice")
	prepare(t, o.site)
	for i := range 20 {
		template, kind := "", &o.cached
		if i%2 == 1 {
			template, kind = "strict", &o.strict
		}
		r := alice.Publish(t.Context(), template)
		if r.Outcome != rmsdtest.Received {
			t.Fatal(r.Err)
		}
		*kind = append(*kind, r.Document)
	}
}

// awaitNewCopy opens a cached document until the daemon has asked Vault for the
// generation anew, so that the age of the copy in use is known.
func (o *outage) awaitNewCopy(t *testing.T) {
	t.Helper()
	events := o.events(t)
	first := ""
	deadline := time.Now().Add(2 * ttl)
	for {
		began := time.Now()
		r := o.bob.Acquire(t.Context(), o.cached[0])
		if r.Outcome != rmsdtest.Received {
			t.Fatal(r.Err)
		}
		id := events(r.Event).GetCustodianRequestId()
		switch {
		case id == "":
			t.Fatal("the event does not say by which request of the custodian its key came")
		case first == "":
			first = id
		case id != first:
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the daemon does not renew its copy")
		}
		o.copied = began
		wait(t, 20*time.Millisecond)
	}
}

// events returns how an auditor reads an event.
func (o *outage) events(t *testing.T) func(vocab.EventID) *rmsv1.Event {
	erin := o.site.Caller(t, "erin")
	conn, signed := erin.Conn()
	log := rmsv1.NewAuditServiceClient(conn)
	return func(id vocab.EventID) *rmsv1.Event {
		e, err := log.GetEvent(t.Context(), &rmsv1.GetEventRequest{Name: rmsdtest.Parent + "/events/" + id.String()}, signed)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
}

// attempt is one opening.
type attempt struct {
	began, done time.Time
	reply       *rmsdtest.Reply
}

// must says whether the document must have opened; if not, because Vault was
// sealed.
func (a attempt) must(t *testing.T, what string, open bool) {
	t.Helper()
	switch {
	case open && a.reply.Outcome != rmsdtest.Received:
		t.Errorf("%s does not open: %v", what, a.reply.Err)
	case !open && a.reply.Outcome == rmsdtest.Received:
		t.Errorf("%s opens", what)
	case !open && a.reply.Reason != vocab.ReasonCustodianSealed:
		t.Errorf("%s is refused for another reason: %v", what, a.reply.Err)
	}
}

// attempts are openings as they happen.
type attempts struct {
	mu   sync.Mutex
	list []attempt
}

func (a *attempts) all() []attempt {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.list)
}

// firstRefused returns when an opening that began after a time was first
// refused.
func (a *attempts) firstRefused(after time.Time) time.Time {
	for _, x := range a.all() {
		if x.began.After(after) && x.reply.Outcome == rmsdtest.Refused {
			return x.done
		}
	}
	return time.Time{}
}

// keepOpening opens the documents one after the other until the context ends.
func (o *outage) keepOpening(ctx context.Context, t *testing.T, docs []*rmsdtest.Document) *attempts {
	out := &attempts{}
	bob := o.site.Caller(t, "bob")
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait)
	wg.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			a := attempt{began: time.Now()}
			a.reply = bob.Acquire(context.WithoutCancel(ctx), docs[i%len(docs)])
			a.done = time.Now()
			if err := a.reply.BadAnswer(); err != nil {
				t.Errorf("an answer that no client may accept: %v", err)
			}
			out.mu.Lock()
			out.list = append(out.list, a)
			out.mu.Unlock()
			select {
			case <-ctx.Done():
			case <-time.After(20 * time.Millisecond):
			}
		}
	})
	return out
}

// awaitAll waits until every document opens and a new one can be protected,
// and fails the test if that is later than promised.
func (o *outage) awaitAll(t *testing.T, unsealed time.Time) {
	t.Helper()
	alice := o.site.Caller(t, "alice")
	all := slices.Concat(o.cached, o.strict)
	for {
		var last error
		replies, err := o.bob.AcquireAll(t.Context(), all)
		if err != nil {
			last = err
		}
		for _, r := range replies {
			if r.Outcome != rmsdtest.Received {
				last = r.Err
			}
		}
		for _, template := range []string{"", "strict"} {
			if r := alice.Publish(t.Context(), template); r.Outcome != rmsdtest.Received {
				last = r.Err
			}
		}
		if last == nil {
			if d := time.Since(unsealed); d > backWithin {
				t.Errorf("everything opened only %s after the unseal", d)
			}
			return
		}
		if time.Since(unsealed) > 12*backWithin {
			t.Fatalf("long after the unseal: %v", last)
		}
		wait(t, 50*time.Millisecond)
	}
}

// noteEvents collects the custodian's request IDs that the events name.
func (o *outage) noteEvents(t *testing.T) {
	t.Helper()
	o.requests = map[string]bool{}
	erin := o.site.Caller(t, "erin")
	conn, signed := erin.Conn()
	req := &rmsv1.ListEventsRequest{
		Parent: rmsdtest.Parent, PageSize: 1000, Filter: &rmsv1.EventFilter{Kinds: []string{"released", "published"}},
	}
	for {
		page, err := rmsv1.NewAuditServiceClient(conn).ListEvents(t.Context(), req, signed)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page.GetEvents() {
			if e.GetCustodianRequestId() == "" {
				t.Errorf("event %s does not say by which request of the custodian its key came", e.GetName())
			}
			o.requests[e.GetCustodianRequestId()] = true
		}
		if req.PageToken = page.GetNextPageToken(); req.PageToken == "" {
			return
		}
	}
}

// compareDecrypts compares Vault's own audit file with what the daemon says it
// asked for, and that with the events.
func (o *outage) compareDecrypts(t *testing.T, v *realvault.Server, place *realvault.Tenant, p *rmsdtest.Process) {
	t.Helper()
	entries, err := v.ReadAudit()
	if err != nil {
		t.Fatal(err)
	}
	theirs, wraps := map[string]bool{}, map[string]bool{}
	for _, e := range entries {
		switch {
		case e.Type != "response" || e.Error != "":
		case e.Request.Path == place.Mount+"/decrypt/root":
			theirs[e.Request.ID] = true
		case e.Request.Path == place.Mount+"/encrypt/root":
			wraps[e.Request.ID] = true
		}
	}
	ours := custodianCalls(t, p, "unwrap", "refresh")
	sorted := func(m map[string]bool) []string { return slices.Sorted(maps.Keys(m)) }
	if diff := cmp.Diff(sorted(theirs), sorted(ours)); diff != "" {
		t.Errorf("decryptions in Vault's audit file (-) and in the daemon's log (+) differ:\n%s", diff)
	}
	for id := range o.requests {
		if !theirs[id] && !wraps[id] {
			t.Errorf("Vault does not know request %s, which an event names", id)
		}
	}
	t.Logf("%d decryptions in Vault's audit file, each one the daemon's; %d requests named by events", len(theirs), len(o.requests))
}

// custodianCalls returns the request IDs of the calls that succeeded, and of the
// unwraps by which the daemon checks that the keys work and are bound, as it
// logged them.
func custodianCalls(t *testing.T, p *rmsdtest.Process, ops ...string) map[string]bool {
	t.Helper()
	f, err := os.Open(p.Log)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ids := map[string]bool{}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if !strings.Contains(lines.Text(), `"custodian call"`) && !strings.Contains(lines.Text(), `"Vault self-check"`) {
			continue
		}
		var line struct {
			Op       string   `json:"op"`
			Requests []string `json:"requests"`
			Unwraps  []string `json:"unwraps"`
			Error    string   `json:"error"`
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			t.Fatal(err)
		}
		for _, id := range line.Unwraps {
			ids[id] = true
		}
		if line.Error == "" && slices.Contains(ops, line.Op) {
			for _, id := range line.Requests {
				ids[id] = true
			}
		}
	}
	return ids
}
