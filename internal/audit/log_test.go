package audit

import (
	"context"
	"crypto/sha256"
	"errors"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/store/bolt"
	"github.com/openrms/rms/internal/vocab"
)

func openStore(tb testing.TB, path string) store.Store {
	tb.Helper()
	s, err := bolt.Open(bolt.Options{Path: path, Stamp: store.Development, Schema: store.Schema{Version: 1}, MinFree: -1})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = s.Close() })
	return s
}

func newLog(tb testing.TB) *Log {
	return New(openStore(tb, filepath.Join(tb.TempDir(), "rms.db")))
}

// event is the n-th of a series: every third is about a license.
func event(t vocab.TenantID, n int) *Event {
	e := &Event{ID: newEventID(), Tenant: t, Time: testTime.Add(time.Duration(n) * time.Second), Kind: KindReleased,
		Principal: Principal{Name: "bob@contoso.test"}}
	if n%3 == 0 {
		e.Content, e.Kind, e.Reason = vocab.ContentID(id7(byte(n%7))), KindRefused, vocab.ReasonNoRights
	}
	if n%5 == 0 {
		e.Principal.Name = "mallory@contoso.test"
	}
	return e
}

func appendAll(tb testing.TB, l *Log, events ...*Event) {
	tb.Helper()
	err := l.store.Commit(tb.Context(), func(tx store.Tx) error {
		for _, e := range events {
			if err := l.Append(tx, e); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		tb.Fatalf("Append: %v", err)
	}
}

func series(tb testing.TB, l *Log, t vocab.TenantID, n int) []*Event {
	tb.Helper()
	var es []*Event
	for i := range n {
		es = append(es, event(t, i))
	}
	appendAll(tb, l, es...)
	return es
}

// mth is the Merkle tree hash as RFC 6962 §2.1 writes it down.
func mth(leaves [][]byte) [32]byte {
	switch n := len(leaves); n {
	case 0:
		return sha256.Sum256(nil)
	case 1:
		return sha256.Sum256(append([]byte{0}, leaves[0]...))
	default:
		k := 1
		for k*2 < n {
			k *= 2
		}
		left, right := mth(leaves[:k]), mth(leaves[k:])
		return sha256.Sum256(append(append([]byte{1}, left[:]...), right[:]...))
	}
}

func leavesOf(t *testing.T, events []*Event) [][]byte {
	t.Helper()
	var out [][]byte
	for _, e := range events {
		b, err := e.Encode()
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, b)
	}
	return out
}

// The stored tree is the one of the RFC, whatever was dropped in between.
func TestTreeIsThatOfTheRFC(t *testing.T) {
	l := newLog(t)
	dropped := errors.New("dropped")
	kept := map[vocab.TenantID][]*Event{}
	rapid.Check(t, func(rt *rapid.T) {
		tenant := rapid.SampledFrom([]vocab.TenantID{tenantA, tenantB}).Draw(rt, "tenant")
		count := rapid.IntRange(0, 5).Draw(rt, "events")
		drop := rapid.IntRange(0, 3).Draw(rt, "drop") == 0
		var es []*Event
		for i := range count {
			es = append(es, event(tenant, i))
		}
		err := l.store.Commit(t.Context(), func(tx store.Tx) error {
			for _, e := range es {
				if err := l.Append(tx, e); err != nil {
					return err
				}
			}
			if drop {
				return dropped
			}
			return nil
		})
		if drop != errors.Is(err, dropped) || !drop && err != nil {
			rt.Fatal(err)
		}
		if !drop {
			kept[tenant] = append(kept[tenant], es...)
		}
		c, err := l.Checkpoint(t.Context(), tenant, testTime)
		if err != nil {
			rt.Fatal(err)
		}
		want := Checkpoint{Tenant: tenant, Size: uint64(len(kept[tenant])), Root: mth(leavesOf(t, kept[tenant])), Time: testTime}
		if diff := cmp.Diff(want, c); diff != "" {
			rt.Fatal(diff)
		}
		rep, err := l.Verify(t.Context(), tenant, c)
		if diff := cmp.Diff(Report{Size: c.Size, Root: c.Root}, rep); diff != "" || err != nil {
			rt.Fatal(err, diff)
		}
	})
}

func TestAppend(t *testing.T) {
	l := newLog(t)
	es := series(t, l, tenantA, 5)
	receipt, err := es[3].LeafHash()
	if err != nil {
		t.Fatal(err)
	}
	got, err := l.Get(t.Context(), tenantA, es[3].ID)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(es[3], got.Event); diff != "" || got.Index != 3 {
		t.Errorf("at %d: %s", got.Index, diff)
	}
	if got.LeafHash() != receipt {
		t.Error("the receipt handed out before is not the leaf in the log")
	}
	if _, err := l.Get(t.Context(), tenantB, es[3].ID); !errors.Is(err, vocab.ReasonResourceNotFound) {
		t.Errorf("another tenant's event: %v", err)
	}
	if _, err := l.Get(t.Context(), tenantA, id7(9)); !errors.Is(err, vocab.ReasonResourceNotFound) {
		t.Errorf("an event that is not there: %v", err)
	}

	appendErr := func(e *Event) error {
		return l.store.Commit(t.Context(), func(tx store.Tx) error { return l.Append(tx, e) })
	}
	if err := appendErr(es[3]); !errors.Is(err, vocab.ReasonInternal) {
		t.Errorf("the same event again: %v", err)
	}
	if err := appendErr(&Event{}); !errors.Is(err, vocab.ReasonInternal) {
		t.Errorf("an empty event: %v", err)
	}
	if n, err := l.Size(t.Context(), tenantA); n != 5 || err != nil {
		t.Errorf("size %d, %v", n, err)
	}
}

func TestInclusionProofs(t *testing.T) {
	l := newLog(t)
	es := series(t, l, tenantA, 20)
	leaves := leavesOf(t, es)
	for i, e := range es {
		for n := uint64(i) + 1; n <= uint64(len(es)); n++ {
			p, err := l.ProveInclusion(t.Context(), tenantA, e.ID, n)
			if err != nil {
				t.Fatalf("event %d in %d: %v", i, n, err)
			}
			if !p.Verify() || p.Root != mth(leaves[:n]) || p.LeafHash != HashLeaf(leaves[i]) {
				t.Fatalf("event %d in %d: the proof does not hold", i, n)
			}
			bad := p
			bad.LeafHash[0] ^= 1
			if bad.Verify() {
				t.Errorf("event %d in %d: holds for another leaf", i, n)
			}
			if bad = p; n > 1 {
				bad.Index = (p.Index + 1) % n
				if bad.Verify() {
					t.Errorf("event %d in %d: holds for another position", i, n)
				}
			}
			bad = p
			bad.Hashes = append(slices.Clip(p.Hashes), [32]byte{})
			if bad.Verify() {
				t.Errorf("event %d in %d: holds with one hash more", i, n)
			}
		}
	}
	if p, err := l.ProveInclusion(t.Context(), tenantA, es[0].ID, 0); err != nil || p.Size != 20 {
		t.Errorf("size 0 means now: %d, %v", p.Size, err)
	}
	for name, c := range map[string]struct {
		id     vocab.EventID
		at     uint64
		reason vocab.Reason
	}{
		"unknown event":      {id7(9), 0, vocab.ReasonResourceNotFound},
		"event came after":   {es[5].ID, 5, vocab.ReasonRequestInvalid},
		"size not yet there": {es[5].ID, 21, vocab.ReasonRequestInvalid},
	} {
		if _, err := l.ProveInclusion(t.Context(), tenantA, c.id, c.at); !errors.Is(err, c.reason) {
			t.Errorf("%s: %v, want %s", name, err, c.reason)
		}
	}
	if (Inclusion{Size: 1 << 63, Index: 1}).Verify() || (Inclusion{}).Verify() {
		t.Error("an absurd proof holds")
	}
}

func TestConsistencyProofs(t *testing.T) {
	l := newLog(t)
	leaves := leavesOf(t, series(t, l, tenantA, 18))
	for from := range uint64(19) {
		for to := max(from, 1); to <= 18; to++ {
			p, err := l.ProveConsistency(t.Context(), tenantA, from, to)
			if err != nil {
				t.Fatalf("%d to %d: %v", from, to, err)
			}
			if !p.Verify() || p.FromRoot != mth(leaves[:from]) || p.Root != mth(leaves[:to]) {
				t.Fatalf("%d to %d: the proof does not hold", from, to)
			}
			p.FromRoot[5] ^= 1
			if p.Verify() {
				t.Errorf("%d to %d: holds for another beginning", from, to)
			}
		}
	}
	if _, err := l.ProveConsistency(t.Context(), tenantA, 3, 19); !errors.Is(err, vocab.ReasonRequestInvalid) {
		t.Errorf("a size that is not there: %v", err)
	}
	if _, err := l.ProveConsistency(t.Context(), tenantA, 19, 0); !errors.Is(err, vocab.ReasonRequestInvalid) {
		t.Errorf("a beginning that is not there: %v", err)
	}
	if p, err := l.ProveConsistency(t.Context(), tenantB, 0, 0); err != nil || !p.Verify() {
		t.Errorf("two empty logs: %v", err)
	}
	if (Consistency{From: 1 << 63, Size: 1 << 63}).Verify() || (Consistency{From: 2, Size: 1}).Verify() {
		t.Error("an absurd proof holds")
	}
}

func TestRange(t *testing.T) {
	l := newLog(t)
	es := series(t, l, tenantA, chunk*2+10)
	var got []*Event
	for e, err := range l.Range(t.Context(), tenantA, 3, uint64(len(es))) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Index != uint64(len(got)+3) {
			t.Fatalf("position %d after %d events", e.Index, len(got))
		}
		got = append(got, e.Event)
	}
	if diff := cmp.Diff(es[3:], got); diff != "" {
		t.Error(diff)
	}
	for range l.Range(t.Context(), tenantA, 0, 2) {
		break
	}
	for _, bad := range [][2]uint64{{2, 1}, {0, uint64(len(es)) + 1}} {
		for _, err := range l.Range(t.Context(), tenantA, bad[0], bad[1]) {
			if !errors.Is(err, vocab.ReasonRequestInvalid) {
				t.Errorf("%v: %v", bad, err)
			}
		}
	}
}

// Every reader gets every event once and in order, however many write, and a
// reader that stands still holds up nobody.
func TestTail(t *testing.T) {
	l := newLog(t)
	series(t, l, tenantA, 10)
	const writers, each, total = 8, 20, 10 + 8*20
	ctx, cancel := context.WithCancelCause(t.Context())
	done := errors.New("seen enough")
	var readers, all sync.WaitGroup
	for range 4 {
		readers.Add(1)
		all.Go(func() {
			next := uint64(0)
			for e, err := range l.Tail(ctx, tenantA, 0) {
				if err != nil {
					if !errors.Is(err, done) {
						t.Errorf("Tail: %v", err)
					}
					break
				}
				if e.Index != next {
					t.Errorf("position %d, want %d", e.Index, next)
				}
				if next++; next == total {
					readers.Done()
				}
			}
			if next != total {
				t.Errorf("saw %d events, want %d", next, total)
			}
		})
	}
	stuck, release := make(chan struct{}), make(chan struct{})
	all.Go(func() {
		for range l.Tail(ctx, tenantA, 0) {
			close(stuck)
			<-release
			break
		}
	})
	<-stuck
	var ws sync.WaitGroup
	for w := range writers {
		ws.Go(func() {
			for i := range each {
				appendAll(t, l, event(tenantA, w*each+i))
				appendAll(t, l, event(tenantB, i)) // another tenant's wake nobody here
			}
		})
	}
	ws.Wait()
	close(release)
	readers.Wait()
	cancel(done)
	all.Wait()
}

// A tail that begins behind the end waits until the log has come there.
func TestTailFromBehindTheEnd(t *testing.T) {
	l := newLog(t)
	got := make(chan uint64, 1)
	go func() {
		for e, err := range l.Tail(t.Context(), tenantA, 3) {
			if err == nil {
				got <- e.Index
			}
			break
		}
	}()
	for i := range 5 {
		appendAll(t, l, event(tenantA, i))
	}
	if n := <-got; n != 3 {
		t.Errorf("position %d, want 3", n)
	}
}

func TestList(t *testing.T) {
	l := newLog(t)
	es := series(t, l, tenantA, 60)
	series(t, l, tenantB, 5)
	alarm := event(tenantA, 100)
	alarm.Kind, alarm.Alarm, alarm.Reason = KindAlarm, true, vocab.ReasonCustodyIntegrity
	alarm.Actor.Name = "service:dms"
	// It happened before the newest, though it was committed after them.
	alarm.Time = testTime.Add(10*time.Second + 500*time.Millisecond)
	appendAll(t, l, alarm)

	for name, c := range map[string]struct {
		f    Filter
		want func(*Event) bool
	}{
		"all":       {Filter{}, func(*Event) bool { return true }},
		"license":   {Filter{Content: vocab.ContentID(id7(3))}, func(e *Event) bool { return e.Content == vocab.ContentID(id7(3)) }},
		"principal": {Filter{Principal: "mallory@contoso.test"}, func(e *Event) bool { return e.Principal.Name == "mallory@contoso.test" }},
		"actor":     {Filter{Principal: "service:dms"}, func(e *Event) bool { return e == alarm }},
		"kinds":     {Filter{Kinds: []Kind{KindAlarm, KindRefused}}, func(e *Event) bool { return e.Kind != KindReleased }},
		"refused":   {Filter{Refused: true}, func(e *Event) bool { return e.Reason != "" }},
		"reason":    {Filter{Reason: vocab.ReasonCustodyIntegrity}, func(e *Event) bool { return e == alarm }},
		"alarm":     {Filter{Alarm: true}, func(e *Event) bool { return e == alarm }},
		"since":     {Filter{Since: testTime.Add(50 * time.Second)}, func(e *Event) bool { return !e.Time.Before(testTime.Add(50 * time.Second)) }},
		"until":     {Filter{Until: testTime.Add(7 * time.Second)}, func(e *Event) bool { return e.Time.Before(testTime.Add(7 * time.Second)) }},
		"since and until": {Filter{Since: testTime.Add(7 * time.Second), Until: testTime.Add(11 * time.Second), Refused: true}, func(e *Event) bool {
			return !e.Time.Before(testTime.Add(7*time.Second)) && e.Time.Before(testTime.Add(11*time.Second)) && e.Reason != ""
		}},
		"license and principal": {Filter{Content: vocab.ContentID(id7(3)), Principal: "mallory@contoso.test"}, func(e *Event) bool {
			return e.Content == vocab.ContentID(id7(3)) && e.Principal.Name == "mallory@contoso.test"
		}},
		"nothing": {Filter{Principal: "nobody"}, func(*Event) bool { return false }},
	} {
		var want []vocab.EventID
		put := func(e *Event) {
			if c.want(e) {
				want = append(want, e.ID)
			}
		}
		for i, e := range slices.Backward(es) {
			if e.Time.Before(alarm.Time) && !es[min(i+1, len(es)-1)].Time.Before(alarm.Time) {
				put(alarm)
			}
			put(e)
		}
		for _, limit := range []int{1, 7, MaxPage} {
			var got []vocab.EventID
			from := Cursor{}
			for pages := 0; ; pages++ {
				page, next, err := l.List(t.Context(), tenantA, c.f, from, limit)
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				if len(page) > limit || pages > 200 {
					t.Fatalf("%s: %d events on page %d of at most %d", name, len(page), pages, limit)
				}
				for _, e := range page {
					got = append(got, e.Event.ID)
				}
				if next.IsZero() {
					break
				}
				b, _ := next.AppendBinary(nil)
				if from, err = ParseCursor(b); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s, pages of %d (-want +got):\n%s", name, limit, diff)
			}
		}
	}
	if _, err := ParseCursor(make([]byte, 15)); !errors.Is(err, vocab.ReasonPageTokenInvalid) {
		t.Errorf("a short cursor: %v", err)
	}
	if b, err := (Cursor{}).AppendBinary(nil); len(b) != 0 || err != nil {
		t.Errorf("the beginning: %x, %v", b, err)
	}
}

// A filter that fits nothing looks at a bounded number of events a page.
func TestListIsBounded(t *testing.T) {
	l := newLog(t)
	series(t, l, tenantA, maxLook+50)
	page, next, err := l.List(t.Context(), tenantA, Filter{Principal: "nobody"}, Cursor{}, 10)
	if len(page) != 0 || next.Index != 50 || err != nil {
		t.Errorf("%d events, next before %d, %v", len(page), next.Index, err)
	}
	page, next, err = l.List(t.Context(), tenantA, Filter{Principal: "nobody"}, next, 10)
	if len(page) != 0 || !next.IsZero() || err != nil {
		t.Errorf("%d events, next before %d, %v", len(page), next.Index, err)
	}
}

func newEventID() (id vocab.EventID) {
	set(&id)
	return id
}

// set mints an identifier of whatever kind dst is.
func set[K any](dst *vocab.ID[K]) { *dst = vocab.NewOrdered[K]() }
