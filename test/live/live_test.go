package live_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/anishathalye/porcupine"

	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
	"github.com/openrms/rms/test/rmsdtest"
)

const (
	connections = 64 // that ask for decisions
	alert       = 8  // of them, which ask when an edit has just returned
	templates   = 6
	licenses    = 6
	// settingsObject is the settings as decisions see them, doorObject as the
	// administrators do: decisions read them in their own transaction.
	settingsObject = "settings"
	doorObject     = "settings, as they are read"
	// turns is how many calls about an object come between two edits of one
	// administrator.
	turns = 6
	// most bounds what one connection asks for.
	most = 2000
)

// TestEditsAreLive has 64 connections acquire and publish while administrators
// edit templates, licenses and settings, two of them each object at the same
// time. There must be an order in which every answer is right, and none that
// began after an edit returned rests on what was before. The log must be such
// an order too.
func TestEditsAreLive(t *testing.T) {
	edits := 16 // of one administrator on one object
	if testing.Short() {
		edits /= 4
		t.Logf("-short: %d edits by each administrator", edits)
	}
	site := rmsdtest.New(t, rmsdtest.Embedded)
	p := site.Start(t, rmsdtest.Build(t, ""))
	p.AwaitServing(t)
	w := newWorld(t, site)
	w.run(t, edits)

	l := readLog(t.Context(), t, site, w.resources)
	w.history.complete(t, l)
	calls, certain, edited := 0, 0, 0
	for _, ops := range byObject(w.history.ops) {
		name := ops[0].Input.(input).object
		if !porcupine.CheckOperations(live, ops) {
			t.Errorf("%s: no order of its %d calls explains every answer%s", name, len(ops), outdated(ops))
		}
		if changed, ok := stale(ops); !ok {
			t.Errorf("%s: too little happened: nobody was told something else after an edit", name)
		} else if porcupine.CheckOperations(live, changed) {
			t.Errorf("%s: the search does not notice an answer that an edit had made wrong", name)
		}
		for _, op := range ops {
			switch {
			case rests(op):
				calls++
			case name != doorObject: // else it was counted already
				edited++
			}
		}
		certain += fresh(ops)
	}
	w.history.compareOrder(t, l)
	if err := p.Stop(); err != nil {
		t.Fatalf("%v\n%s", err, p.LogEnd())
	}
	t.Logf("%d calls on %d connections, %d of them between two edits, around %d edits of %d objects", calls, connections, certain, edited, len(w.objects))
}

// world is the objects, the documents they decide about, and who acts.
type world struct {
	site      *rmsdtest.Site
	history   *history
	objects   []*object
	resources map[string]string // resource name to object

	edited chan *object  // an edit of it has just returned
	done   chan struct{} // closed when the administrators are through
	idle   chan struct{} // closed when those who ask all the time have ended
	set    atomic.Int64  // numbers the settings
}

// kind is what an object is.
type kind int

const (
	aTemplate kind = iota
	aLicense
	theSettings
)

// object is what an administrator edits and documents rest on.
type object struct {
	kind     kind
	name     string
	resource string
	document *rmsdtest.Document // a template's or a license's
	kept     *rmsdtest.Document // of the settings: bob may view it
	revoked  *rmsdtest.Document // of the settings
	verbs    []verb             // what readers do
	// turn holds a token for each call about the object that nobody took.
	turn chan struct{}
}

// newWorld makes every object, which is its first edit.
func newWorld(t *testing.T, site *rmsdtest.Site) *world {
	t.Helper()
	w := &world{site: site, history: newHistory(), resources: map[string]string{}, edited: make(chan *object), done: make(chan struct{}), idle: make(chan struct{})}
	a := newAdmin(t, w, -1)
	add := func(o *object) {
		o.turn = make(chan struct{}, 2*turns)
		w.objects = append(w.objects, o)
		w.resources[o.resource] = o.name
	}
	for i := range templates {
		slug := fmt.Sprintf("template-%d", i)
		o := &object{kind: aTemplate, name: slug, resource: rmsdtest.Parent + "/templates/" + slug, verbs: []verb{acquire, acquire, acquire, acquire, publish}}
		a.createTemplate(t.Context(), o)
		o.document = a.protect(slug)
		add(o)
	}
	for i := range licenses {
		o := &object{kind: aLicense, name: fmt.Sprintf("license-%d", i), verbs: []verb{acquire}}
		from := w.history.now()
		o.document = a.protect("")
		o.resource = licenseName(o.document)
		w.history.add(a.client, input{object: o.name, verb: create}, output{revision: 1}, vocab.EventID{}, from, w.history.now())
		add(o)
	}
	o := &object{
		kind: theSettings, name: settingsObject, resource: rmsdtest.Parent + "/settings", kept: a.protect(""), revoked: a.protect(""),
		verbs: []verb{acquireToKeep, acquireToKeep, issuerAcquire, bobPublish, get},
	}
	if _, err := a.license.RevokeLicense(t.Context(), &rmsv1.RevokeLicenseRequest{Name: licenseName(o.revoked)}, a.signed); err != nil {
		t.Fatal(err)
	}
	a.setSettings(t.Context(), o)
	add(o)
	return w
}

func licenseName(d *rmsdtest.Document) string {
	return rmsdtest.Parent + "/licenses/" + d.Content.String()
}

// run has everybody act until the administrators have made their edits.
func (w *world) run(t *testing.T, edits int) {
	t.Helper()
	var admins, readers, alerted sync.WaitGroup
	for i, o := range w.objects {
		for n := range 2 {
			a := newAdmin(t, w, connections+2*i+n)
			admins.Go(func() {
				for i := range edits {
					if !w.turn(o) {
						t.Errorf("%s: nobody asks any more after %d edits", o.name, i)
						return
					}
					a.edit(t.Context(), o, n == 1, i)
					select {
					case w.edited <- o:
					default: // nobody waits for it at the moment
					}
				}
			})
		}
	}
	for client := range connections {
		r, group := newReader(t, w, client), &readers
		if client < alert {
			group = &alerted
		}
		group.Go(func() {
			for range most {
				o := w.next(client < alert)
				if o == nil {
					return
				}
				r.ask(t.Context(), o, o.verbs[rand.IntN(len(o.verbs))])
				select {
				case o.turn <- struct{}{}:
				default: // more than enough
				}
				if t.Failed() {
					return
				}
			}
		})
	}
	go func() { readers.Wait(); close(w.idle) }()
	admins.Wait()
	close(w.done)
	<-w.idle
	alerted.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

// next says about which object to ask, nil when it is over.
func (w *world) next(alert bool) *object {
	if alert {
		select {
		case <-w.done:
			return nil
		case <-w.idle:
			return nil
		case o := <-w.edited:
			return o
		}
	}
	select {
	case <-w.done:
		return nil
	default:
		return w.objects[rand.IntN(len(w.objects))]
	}
}

// turn waits until others have asked about the object, and reports false if
// nobody does any more.
func (w *world) turn(o *object) bool {
	for range turns {
		select {
		case <-o.turn:
		case <-w.idle:
			return false
		}
	}
	return true
}

// reader asks for decisions on a connection of its own.
type reader struct {
	t                 *testing.T
	world             *world
	client            int
	bob, carla, alice *rmsdtest.Caller
}

func newReader(t *testing.T, w *world, client int) *reader {
	t.Helper()
	bob := w.site.Caller(t, "bob")
	return &reader{t, w, client, bob, bob.As("carla"), bob.As("alice")}
}

// ask asks one thing and notes the answer.
func (r *reader) ask(ctx context.Context, o *object, v verb) {
	h := r.world.history
	in := input{object: o.name, verb: v}
	from := h.now()
	if v == get {
		conn, signed := r.alice.Conn()
		s, err := rmsv1.NewPolicyServiceClient(conn).GetSettings(ctx, &rmsv1.GetSettingsRequest{Name: o.resource}, signed)
		to := h.now()
		if err != nil {
			r.t.Errorf("reading the settings: %v", err)
			return
		}
		in.object = doorObject
		h.add(r.client, in, settingsOutput(s), vocab.EventID{}, from, to)
		return
	}
	reply := r.call(ctx, o, v)
	to := h.now()
	switch {
	case reply.BadAnswer() != nil || reply.Outcome == rmsdtest.Unknown:
		r.t.Errorf("%s: %s: %v", o.name, v, reply.Err)
	case reply.Reason == vocab.ReasonOverloaded: // it says nothing of the object
	default:
		h.add(r.client, in, outputOf(v, reply), reply.Event, from, to)
	}
}

func (r *reader) call(ctx context.Context, o *object, v verb) *rmsdtest.Reply {
	switch v {
	case acquire:
		return r.bob.Acquire(ctx, o.document)
	case publish:
		return r.carla.Publish(ctx, o.name)
	case acquireToKeep:
		return r.bob.AcquireToKeep(ctx, o.kept)
	case issuerAcquire:
		return r.alice.Acquire(ctx, o.revoked)
	default:
		return r.bob.Publish(ctx, "")
	}
}

// outputOf is what the caller was told, as far as the object decides it.
func outputOf(v verb, r *rmsdtest.Reply) (out output) {
	out.reason = r.Reason
	switch u := r.Use; {
	case u == nil:
	case v == acquire:
		out.rights, out.revision = u.Rights, uint32(u.Policy.Revision)
	case v == acquireToKeep:
		out.settings.strict = u.Custody.Mode == vocab.CustodyStrict
		if u.Cache == license.CacheStore {
			out.settings.offline = u.NotAfter.Sub(u.NotBefore)
		}
	}
	return out
}
