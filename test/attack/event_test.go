package attack

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"
	"google.golang.org/grpc/status"

	"github.com/openrms/rms/internal/daemon/daemontest"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// TestNoKeyWithoutEvent tries to get a key that no event tells of, by racing a
// revocation, by hanging up in the middle, by asking for many at once, by
// repeating; and compares what callers hold with what the log says. What a
// crash or a failing disk can do is in test/faults.
func TestNoKeyWithoutEvent(t *testing.T) {
	s := newSite(t, nil)
	view := rmsv1.Right_RIGHT_VIEW
	alice, bob, mallory := s.person("alice"), s.person("bob"), s.person("mallory")
	toBob := grant("user:bob@contoso.test", view)

	t.Run("64 callers racing a revocation", func(t *testing.T) {
		d := alice.publish("", toBob)
		var mu sync.Mutex
		var held, told []string // events of keys received, and of refusals
		revoked, enough := make(chan struct{}), make(chan struct{})
		var callers sync.WaitGroup
		for range 64 {
			callers.Go(func() {
				for late := false; ; {
					select {
					case <-revoked:
						late = true // what begins now comes after
					default:
					}
					got, err := bob.acquire(d.pl)
					r, _ := errors.AsType[*refusal](err)
					mu.Lock()
					switch {
					case err == nil && got.key == d.key:
						if held = append(held, got.event); len(held) == 64 {
							close(enough)
						}
						if late {
							t.Errorf("event %s released a key after the revocation had returned", got.event)
						}
					case r != nil && r.reason == vocab.ReasonLicenseRevoked:
						told = append(told, r.event)
					default:
						t.Errorf("neither a key nor a revocation: %v", err)
					}
					mu.Unlock()
					if late || t.Failed() {
						return
					}
				}
			})
		}
		// Not before the race is on.
		select {
		case <-enough:
		case <-time.After(20 * time.Second):
		}
		_, err := alice.licenses().RevokeLicense(alice.ctx(), &rmsv1.RevokeLicenseRequest{Name: d.name})
		close(revoked)
		callers.Wait()
		must(t, err)
		if len(told) < 64 || len(held) < 64 {
			t.Fatalf("%d keys and %d refusals: no race took place", len(held), len(told))
		}
		log := s.eventsOf(t, d)
		compare(t, "keys received and events of release", held, ids(log, "released"))
		compare(t, "refusals told and recorded", told, ids(log, "refused"))
		// In the log's own order nothing is released after the revocation.
		at := slices.IndexFunc(log, func(e *rmsv1.Event) bool { return e.GetKind() == "license-revoked" })
		for _, e := range log[at:] {
			if e.GetKind() == "released" {
				t.Fatalf("event %s, at %d, released a key after the revocation at %d", e.GetName(), e.GetIndex(), log[at].GetIndex())
			}
		}
	})

	t.Run("every receipt is in the tree that the checkpoint signs", func(t *testing.T) {
		d := alice.publish("", toBob)
		erin := s.person("erin")
		for range 5 {
			o := bob.wantOpens(t, d)
			checkpoint, err := erin.audit().GetCheckpoint(erin.ctx(), &rmsv1.GetCheckpointRequest{Parent: erin.parent()})
			must(t, err)
			proof, err := erin.audit().GetProof(erin.ctx(), &rmsv1.GetProofRequest{Parent: erin.parent(), Event: o.event, Size: checkpoint.GetSize()})
			must(t, err)
			var path tlog.RecordProof
			for _, h := range proof.GetHashes() {
				path = append(path, tlog.Hash(h))
			}
			if err := tlog.CheckRecord(path, checkpoint.GetSize(), tlog.Hash(checkpoint.GetRootHash()), proof.GetIndex(), tlog.Hash(o.ul.Leaf)); err != nil {
				t.Fatalf("the receipt of event %s is not in the tree: %v", o.event, err)
			}
		}
	})

	t.Run("hanging up at any moment", func(t *testing.T) {
		d := alice.publish("", toBob)
		var held []string
		for i := range 60 {
			ctx, cancel := context.WithTimeout(bob.ctx(), time.Duration(i)*100*time.Microsecond)
			key := newKey(t)
			resp, err := bob.protection().Acquire(ctx, &rmsv1.AcquireRequest{
				Parent: bob.parent(), Document: &rmsv1.AcquireRequest_PublishingLicense{PublishingLicense: d.pl}, Right: view, Delivery: daemontest.SealedTo(key),
			})
			cancel()
			if err == nil {
				held = append(held, resp.GetEvent())
			}
		}
		released := ids(s.eventsOf(t, d), "released")
		for _, id := range held {
			if !slices.Contains(released, id) {
				t.Fatalf("a key was received whose event %s is not in the log", id)
			}
		}
	})

	t.Run("a batch in which each item has another fate", func(t *testing.T) {
		mine, theirs, gone := alice.publish("", toBob), alice.publish("", grant("user:erin@contoso.test", view)), alice.publish("", toBob)
		_, err := alice.licenses().RevokeLicense(alice.ctx(), &rmsv1.RevokeLicenseRequest{Name: gone.name})
		must(t, err)
		key := newKey(t)
		item := func(pl []byte) *rmsv1.AcquireRequest {
			return &rmsv1.AcquireRequest{Document: &rmsv1.AcquireRequest_PublishingLicense{PublishingLicense: pl}, Right: view}
		}
		forged := slices.Clone(mine.pl)
		forged[len(forged)-1] ^= 1
		resp, err := bob.protection().BatchAcquire(bob.ctx(), &rmsv1.BatchAcquireRequest{
			Parent: bob.parent(), Delivery: daemontest.SealedTo(key), Items: []*rmsv1.AcquireRequest{item(theirs.pl), item(mine.pl), item(forged), item(gone.pl), item(mine.pl)},
		})
		must(t, err)
		want := []vocab.Reason{vocab.ReasonNoRights, "", vocab.ReasonLicenseSignature, vocab.ReasonLicenseRevoked, ""}
		var events []string
		for i, r := range resp.GetResults() {
			if want[i] == "" {
				o, err := bob.open(key, r.GetAcquired(), resp.GetCertificate(), resp.GetEnc())
				must(t, err)
				if o.key != mine.key {
					t.Fatalf("item %d has another document's key", i)
				}
				events = append(events, o.event)
				continue
			}
			refusal := refusedStatus(status.FromProto(r.GetRefused()))
			if r.GetAcquired() != nil || refusal.reason != want[i] {
				t.Fatalf("item %d: %v, want %s", i, refusal, want[i])
			}
			s.recorded(t, refusal, want[i] == vocab.ReasonLicenseSignature)
		}
		compare(t, "keys of the batch and events of release", events, ids(s.eventsOf(t, mine), "released"))
	})

	t.Run("refused, a hundred times: each is there, none gave anything", func(t *testing.T) {
		d := alice.publish("", toBob)
		var told []string
		for range 100 {
			got, err := mallory.acquire(d.pl)
			told = append(told, wantRefused(t, got, err, vocab.ReasonNoRights).event)
		}
		log := s.eventsOf(t, d)
		compare(t, "refusals told and recorded", told, ids(log, "refused"))
		if n := len(ids(log, "released")); n != 0 {
			t.Fatalf("%d keys were released", n)
		}
	})

	t.Run("a publication and its repetition are both there", func(t *testing.T) {
		key := newKey(t)
		var told []string
		var d *document
		for range 3 {
			var err error
			d, err = alice.publishAs(key, &rmsv1.PublishRequest{RequestId: "twice", Delivery: daemontest.SealedTo(key), Policy: &rmsv1.PublishRequest_AdHoc{AdHoc: &rmsv1.AdHocPolicy{
				Kind: rmsv1.AdHocPolicy_KIND_GRANTS, Grants: []*rmsv1.Grant{toBob},
			}}})
			must(t, err)
			told = append(told, d.event)
		}
		compare(t, "keys delivered to the publisher and events", told, ids(s.eventsOf(t, d), "published"))
	})

	if found := s.findings(t); found != "" {
		t.Fatalf("after all this the check of the store says:\n%s", found)
	}
}

// eventsOf are the events about a document in the order of the log.
func (s *site) eventsOf(t *testing.T, d *document) (out []*rmsv1.Event) {
	t.Helper()
	erin := s.person("erin")
	req := &rmsv1.ListEventsRequest{Parent: erin.parent(), PageSize: 1000, Filter: &rmsv1.EventFilter{License: d.name}}
	for {
		resp, err := erin.audit().ListEvents(erin.ctx(), req)
		must(t, err)
		out = append(out, resp.GetEvents()...)
		if req.PageToken = resp.GetNextPageToken(); req.PageToken == "" {
			break
		}
	}
	slices.SortFunc(out, func(a, b *rmsv1.Event) int { return int(a.GetIndex() - b.GetIndex()) })
	return out
}

func ids(events []*rmsv1.Event, kind string) (out []string) {
	for _, e := range events {
		if e.GetKind() == kind {
			out = append(out, e.GetName()[len("tenants/"+contoso+"/events/"):])
		}
	}
	return out
}

// compare demands that two sets of events are the same, one to one.
func compare(t *testing.T, what string, a, b []string) {
	t.Helper()
	a, b = slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b))
	if !slices.Equal(a, b) {
		t.Fatalf("%s differ: %d and %d", what, len(a), len(b))
	}
}
