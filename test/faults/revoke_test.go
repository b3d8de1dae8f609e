package faults_test

import (
	"cmp"
	"context"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/store/bolt"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
	"github.com/openrms/rms/test/rmsdtest"
)

// act is what somebody does to a document.
type act int

const (
	acquire act = iota
	revoke
	restore
)

// revocable is a document as everybody must see it, as if one act came after
// the other: an acquire succeeds exactly while it is not revoked. In such a
// history no acquire that began after a revocation returned can succeed.
var revocable = porcupine.Model{
	Init: func() any { return false },
	Step: func(revoked, in, granted any) (bool, any) {
		switch in.(act) {
		case revoke:
			return true, true
		case restore:
			return true, false
		default:
			return granted.(bool) != revoked.(bool), revoked
		}
	},
}

// TestRevocable makes sure that the search can fail.
func TestRevocable(t *testing.T) {
	did := func(client int, in act, granted bool, from, to int64) porcupine.Operation {
		return porcupine.Operation{ClientId: client, Input: in, Output: granted, Call: from, Return: to}
	}
	for _, c := range []struct {
		name string
		ops  []porcupine.Operation
		ok   bool
	}{
		{"granted while it is being revoked", []porcupine.Operation{did(0, revoke, true, 1, 4), did(1, acquire, true, 2, 3)}, true},
		{"refused while it is being revoked", []porcupine.Operation{did(0, revoke, true, 1, 4), did(1, acquire, false, 2, 3)}, true},
		{"granted after it was revoked", []porcupine.Operation{did(0, revoke, true, 1, 2), did(1, acquire, true, 3, 4)}, false},
		{"granted after another saw it revoked", []porcupine.Operation{
			did(0, revoke, true, 1, 9), did(1, acquire, false, 2, 3), did(2, acquire, true, 4, 5),
		}, false},
		{"refused after it was restored", []porcupine.Operation{
			did(0, revoke, true, 1, 2), did(0, restore, true, 3, 4), did(1, acquire, false, 5, 6),
		}, false},
	} {
		if got := porcupine.CheckOperations(revocable, c.ops); got != c.ok {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

// TestRevokeRace has 64 callers open documents that their owner revokes and
// restores meanwhile. There must be an order of all that happened in which
// every answer is right: it is searched for in what the callers saw, and the
// log must be such an order. Every use license must be in the log as it says.
func TestRevokeRace(t *testing.T) {
	documents, acquirers, rounds := 32, 64, 12
	if testing.Short() {
		rounds /= 4
		t.Logf("-short: %d revocations of each document", rounds)
	}
	site := rmsdtest.New(t, rmsdtest.Embedded)
	p := site.Start(t, rmsdtest.Build(t, ""))
	p.AwaitServing(t)
	l := &ledger{}
	alice := site.Caller(t, "alice")
	for range documents {
		r := alice.Publish(t.Context(), "")
		if r.Outcome != rmsdtest.Received {
			t.Fatal(r.Err)
		}
		l.add(&call{Reply: r})
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*30*time.Second)
	defer cancel()
	h := &history{began: time.Now(), ops: make([][]porcupine.Operation, documents), documents: l.documentsFrom(0)}
	var owners, readers sync.WaitGroup
	over := make(chan struct{})
	for i, d := range l.documentsFrom(0) {
		owners.Go(func() { h.revokeAndRestore(ctx, t, site.Caller(t, "alice"), i, d, rounds) })
	}
	for client := range acquirers {
		bob := site.Caller(t, "bob")
		readers.Go(func() {
			for {
				select {
				case <-over:
					return
				default:
				}
				i := rand.IntN(documents)
				from := h.now()
				r := bob.Acquire(ctx, l.documentsFrom(0)[i])
				to := h.now()
				l.add(&call{Reply: r})
				switch {
				case r.BadAnswer() != nil || r.Outcome == rmsdtest.Unknown:
					t.Errorf("acquire: %v", r.Err)
					return
				case r.Outcome == rmsdtest.Refused && r.Reason == vocab.ReasonOverloaded:
					continue // it says nothing about the document
				case r.Outcome == rmsdtest.Refused && r.Reason != vocab.ReasonLicenseRevoked:
					t.Errorf("acquire: %v", r.Err)
					return
				}
				h.add(i, porcupine.Operation{ClientId: client, Input: acquire, Call: from, Output: r.Outcome == rmsdtest.Received, Return: to, Metadata: r.Event})
			}
		})
	}
	owners.Wait()
	close(over)
	readers.Wait()
	granted, refused := h.search(t)
	if err := p.Stop(); err != nil {
		t.Fatalf("%v\n%s", err, p.LogEnd())
	}
	if granted < documents*rounds || refused < documents*rounds {
		t.Errorf("too little happened: %d granted, %d refused", granted, refused)
	}
	h.compareOrder(t, site)
	if err := examine(t.Context(), site.Data, site.TenantID, l.calls, func(*call) bool { return true }).err(); err != nil {
		t.Error(err)
	}
	t.Logf("%d acquires granted, %d refused, around %d revocations and as many restorations", granted, refused, documents*rounds)
}

// history is what happened to each document.
type history struct {
	began time.Time
	mu    sync.Mutex
	ops   [][]porcupine.Operation

	documents []*rmsdtest.Document
}

func (h *history) now() int64 { return int64(time.Since(h.began)) }

func (h *history) add(i int, op porcupine.Operation) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops[i] = append(h.ops[i], op)
}

// acquires counts the acquires of a document so far.
func (h *history) acquires(i int) (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, op := range h.ops[i] {
		if op.Input == acquire {
			n++
		}
	}
	return n
}

// revokeAndRestore is the owner of a document. Between two acts somebody else
// has had a turn.
func (h *history) revokeAndRestore(ctx context.Context, t *testing.T, alice *rmsdtest.Caller, i int, d *rmsdtest.Document, rounds int) {
	conn, signed := alice.Conn()
	client := rmsv1.NewLicenseServiceClient(conn)
	name := rmsdtest.Parent + "/licenses/" + d.Content.String()
	for n := range 2 * rounds {
		for before := h.acquires(i); h.acquires(i) == before && ctx.Err() == nil; {
			time.Sleep(100 * time.Microsecond) // for chance, not for order
		}
		op := porcupine.Operation{ClientId: 1000 + i, Input: revoke, Output: true, Call: h.now()}
		var err error
		if n%2 == 0 {
			_, err = client.RevokeLicense(ctx, &rmsv1.RevokeLicenseRequest{Name: name, Reason: "a test"}, signed)
		} else {
			op.Input = restore
			_, err = client.RestoreLicense(ctx, &rmsv1.RestoreLicenseRequest{Name: name}, signed)
		}
		op.Return = h.now()
		if err != nil {
			t.Errorf("act %d on document %d: %v", n, i, err)
			return
		}
		h.add(i, op)
	}
}

// search searches for the order, and counts the acquires. Its time grows beyond all bounds with how many acts on one document overlap, so
// there are several documents, and on a slow machine a few may stay undecided:
// [history.compareOrder] leaves none.
func (h *history) search(t *testing.T) (granted, refused int) {
	t.Helper()
	decided := 0
	for i, ops := range h.ops {
		for _, op := range ops {
			switch {
			case op.Input != acquire:
			case op.Output.(bool):
				granted++
			default:
				refused++
			}
		}
		switch porcupine.CheckOperationsTimeout(revocable, ops, 5*time.Second) {
		case porcupine.Illegal:
			t.Errorf("document %d: no order of its %d acts explains every answer", i, len(ops))
		case porcupine.Ok:
			decided++
		case porcupine.Unknown:
		}
	}
	if decided < len(h.ops)/2 {
		t.Errorf("the search came to an end for only %d of %d documents", decided, len(h.ops))
	}
	t.Logf("an order was found for %d of %d documents", decided, len(h.ops))
	return granted, refused
}

// placed is an act with its position in the log.
type placed struct {
	index      uint64
	call, done int64
}

// compareOrder takes the log as the order: replayed, it gives every caller the
// answer they had, and it contradicts nobody who saw one act end before another
// began.
func (h *history) compareOrder(t *testing.T, site *rmsdtest.Site) {
	t.Helper()
	s, err := bolt.Open(bolt.Options{Path: filepath.Join(site.Data, "rms.db"), Stamp: store.Production, Schema: record.Schema})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	log := audit.New(s)
	n, err := log.Size(t.Context(), site.TenantID)
	if err != nil {
		t.Fatal(err)
	}
	revoked := map[vocab.ContentID]bool{}
	index := map[vocab.EventID]uint64{}
	acts := map[vocab.ContentID][]uint64{} // of the owner, who acts in turn
	for e, err := range log.Range(t.Context(), site.TenantID, 0, n) {
		if err != nil {
			t.Fatal(err)
		}
		ev := e.Event
		index[ev.ID] = e.Index
		switch ev.Kind {
		case audit.KindLicenseRevoked, audit.KindLicenseRestored:
			revoked[ev.Content] = ev.Kind == audit.KindLicenseRevoked
			acts[ev.Content] = append(acts[ev.Content], e.Index)
		case audit.KindReleased, audit.KindRefused:
			if revoked[ev.Content] != (ev.Kind == audit.KindRefused) {
				t.Errorf("position %d: event %s is of kind %s while the document is revoked: %v", e.Index, ev.ID, ev.Kind, revoked[ev.Content])
			}
		default: // publications, and what the daemon does for itself
		}
	}
	for i, ops := range h.ops {
		var all []placed
		mine := acts[h.documents[i].Content]
		for _, op := range ops {
			p := placed{call: op.Call, done: op.Return}
			if op.Input != acquire {
				p.index, mine = mine[0], mine[1:]
			} else if at, ok := index[op.Metadata.(vocab.EventID)]; ok {
				p.index = at
			} else {
				t.Fatalf("event %s, which a caller was told of, is not in the log", op.Metadata)
			}
			all = append(all, p)
		}
		slices.SortFunc(all, func(a, b placed) int { return cmp.Compare(a.index, b.index) })
		began := int64(0) // the latest beginning so far
		for _, p := range all {
			if p.done < began {
				t.Errorf("document %d: what is at position %d ended before something earlier in the log began", i, p.index)
			}
			began = max(began, p.call)
		}
	}
}
