package live_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
	"github.com/openrms/rms/test/rmsdtest"
)

// history is what everybody asked and was told, and when. It is safe for
// concurrent use.
type history struct {
	began time.Time
	mu    sync.Mutex
	ops   []porcupine.Operation // Metadata is the event, zero if the answer named none
}

func newHistory() *history { return &history{began: time.Now()} }

func (h *history) now() int64 { return int64(time.Since(h.began)) }

func (h *history) add(client int, in input, out output, event vocab.EventID, from, to int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = append(h.ops, porcupine.Operation{ClientId: client, Input: in, Output: out, Call: from, Return: to, Metadata: event})
}

// logged is where an event stands, and what decided.
type logged struct {
	position  int
	revisions map[string]uint32 // by object
}

// log is the audit log as the auditor gets it.
type log struct {
	byID map[vocab.EventID]logged
	// edits are the positions of the edits of an object, in the log's order.
	edits map[string][]int
}

// readLog reads the whole log. objects names those by resource name.
func readLog(ctx context.Context, t *testing.T, site *rmsdtest.Site, objects map[string]string) *log {
	t.Helper()
	conn, signed := site.Caller(t, "erin").Conn()
	stream, err := rmsv1.NewAuditServiceClient(conn).ExportEvents(ctx, &rmsv1.ExportEventsRequest{Parent: rmsdtest.Parent}, signed)
	if err != nil {
		t.Fatal(err)
	}
	l := &log{byID: map[vocab.EventID]logged{}, edits: map[string][]int{}}
	for {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return l
		}
		if err != nil {
			t.Fatal(err)
		}
		e := resp.GetEvent()
		id, err := vocab.ParseEventID(strings.TrimPrefix(e.GetName(), rmsdtest.Parent+"/events/"))
		if err != nil {
			t.Fatal(err)
		}
		at := int(resp.GetIndex())
		l.byID[id] = logged{at, map[string]uint32{
			objects[e.GetTemplate()]: e.GetTemplateRevision(), objects[e.GetLicense()]: e.GetLicenseRevision(),
		}}
		edited := ""
		switch e.GetKind() {
		case "template-created", "template-updated", "template-deleted", "template-undeleted":
			edited = objects[e.GetTemplate()]
		case "published", "license-edited", "license-revoked", "license-restored":
			edited = objects[e.GetLicense()]
		case "settings-changed":
			edited = settingsObject
		}
		if edited != "" {
			l.edits[edited] = append(l.edits[edited], at)
		}
	}
}

// complete adds to the answers what only the log knows: which revision refused.
// Where the answer named one, the log must name the same.
func (h *history) complete(t *testing.T, l *log) {
	t.Helper()
	for i, op := range h.ops {
		in, out := op.Input.(input), op.Output.(output)
		if in.verb != acquire && in.verb != publish {
			continue
		}
		event, ok := l.byID[op.Metadata.(vocab.EventID)]
		revision := event.revisions[in.object]
		switch {
		case !ok:
			t.Fatalf("event %s, which a caller was told of, is not in the log", op.Metadata)
		case out.revision != 0 && out.revision != revision:
			t.Errorf("event %s: revision %d decided, its caller was told %d", op.Metadata, revision, out.revision)
		}
		out.revision = revision
		h.ops[i].Output = out
	}
}

// compareOrder takes the log for the order of all that happened: replayed, it
// gives everybody the answer they had, and it contradicts nobody who saw one
// call end before another began. This is more than that there is some order:
// no decision may stand behind an edit that it did not see.
func (h *history) compareOrder(t *testing.T, l *log) {
	t.Helper()
	type placed struct {
		porcupine.Operation
		position int
	}
	for _, ops := range byObject(h.ops) {
		name := ops[0].Input.(input).object
		var all []placed
		for _, op := range ops {
			event, known := l.byID[op.Metadata.(vocab.EventID)]
			switch n := int(op.Output.(output).revision); {
			case isEdit(op) && n <= len(l.edits[name]):
				all = append(all, placed{op, l.edits[name][n-1]})
			case rests(op) && known:
				all = append(all, placed{op, event.position})
			default: // what decides nothing: an edit that was refused, reading settings
			}
		}
		slices.SortFunc(all, func(a, b placed) int { return cmp.Compare(a.position, b.position) })
		var s state
		began := int64(0) // the latest beginning so far
		for _, p := range all {
			ok, next := step(s, p.Input.(input), p.Output.(output))
			if !ok {
				t.Errorf("%s: position %d of the log: the answer to %q, %v, is not right in %+v", name, p.position, p.Input.(input).verb, p.Output, s)
				break
			}
			if p.Return < began {
				t.Errorf("%s: what is at position %d of the log ended before something earlier in it began", name, p.position)
			}
			s, began = next, max(began, p.Call)
		}
	}
}

// tells reports whether an answer could be given in one revision only.
func (o output) tells() bool { return o.revision != 0 || o.settings.offline != 0 }

// isEdit reports whether the operation wrote something.
func isEdit(op porcupine.Operation) bool {
	_, is := state{}.edited(op.Input.(input))
	return is && op.Output.(output).reason == ""
}

// rests reports whether the operation rests on what edits write.
func rests(op porcupine.Operation) bool {
	_, is := state{}.edited(op.Input.(input))
	return !is
}

// fresh counts the calls that began after an edit had returned and before the
// next one began: what they are told is certain.
func fresh(ops []porcupine.Operation) (n int) {
	edits := slices.DeleteFunc(slices.Clone(ops), func(op porcupine.Operation) bool { return !isEdit(op) })
	for _, op := range ops {
		during := func(e porcupine.Operation) bool { return e.Call <= op.Return && e.Return >= op.Call }
		if rests(op) && !slices.ContainsFunc(edits, during) {
			n++
		}
	}
	return n
}

// outdated tells of the first answer that rests on what an edit had replaced
// before it was asked for, if the answers say so plainly.
func outdated(ops []porcupine.Operation) string {
	for _, op := range ops {
		for _, e := range ops {
			if got, now := op.Output.(output).revision, e.Output.(output).revision; rests(op) && isEdit(e) && got > 0 && got < now && e.Return < op.Call {
				return fmt.Sprintf("; event %s rests on revision %d, though revision %d had been written %s before it was asked for",
					op.Metadata, got, now, time.Duration(op.Call-e.Return))
			}
		}
	}
	return ""
}

// stale returns the history of an object with one answer exchanged: somebody
// who asked after an edit had returned was told what had been told before it
// began. It reports false if there was no such pair.
func stale(ops []porcupine.Operation) ([]porcupine.Operation, bool) {
	for _, e := range ops {
		if !isEdit(e) {
			continue
		}
		for _, before := range ops {
			if !rests(before) || before.Return >= e.Call || !before.Output.(output).tells() {
				continue
			}
			after := slices.IndexFunc(ops, func(op porcupine.Operation) bool {
				return op.Call > e.Return && op.Input.(input).verb == before.Input.(input).verb && op.Output.(output).tells()
			})
			if after < 0 {
				continue
			}
			changed := slices.Clone(ops)
			changed[after].Output = before.Output
			return changed, true
		}
	}
	return nil, false
}
