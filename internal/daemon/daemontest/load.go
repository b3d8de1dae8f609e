package daemontest

import (
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// Load is many callers who protect and open documents until the daemon takes no
// more calls, and remember every answer.
type Load struct {
	site    *Site
	callers sync.WaitGroup

	mu      sync.Mutex
	docs    []*Document
	events  map[string]string // what the answers promise: event to kind
	endings map[codes.Code]int
	other   []error
	acks    int
	enough  chan struct{}
}

// ackedBefore is how many answers there are before [Load.Underway] is closed.
const ackedBefore = 400

// StartLoad starts callers, each on a connection of its own.
func StartLoad(tb testing.TB, s *Site, address string, callers int) *Load {
	tb.Helper()
	l := &Load{site: s, events: map[string]string{}, endings: map[codes.Code]int{}, enough: make(chan struct{})}
	alice, bob := s.Person(tb, "alice"), s.Person(tb, "bob")
	for range callers {
		c := s.Client(tb, address)
		l.callers.Go(func() { l.ended(l.call(tb.Context(), c, alice, bob)) })
	}
	tb.Cleanup(func() { l.callers.Wait() })
	return l
}

// Underway is closed when the load has had some hundred answers, and goes on.
func (l *Load) Underway() <-chan struct{} { return l.enough }

// ForBob is the policy of documents that bob may view.
func ForBob() *rmsv1.PublishRequest {
	return &rmsv1.PublishRequest{Policy: &rmsv1.PublishRequest_AdHoc{AdHoc: &rmsv1.AdHocPolicy{
		Kind: rmsv1.AdHocPolicy_KIND_GRANTS, Grants: []*rmsv1.Grant{{To: "user:bob@contoso.test", Rights: []rmsv1.Right{rmsv1.Right_RIGHT_VIEW}}},
	}}}
}

// call protects a document and opens it three times, over and over.
func (l *Load) call(ctx context.Context, c *Client, alice, bob Who) error {
	for {
		doc, err := c.Publish(ctx, alice, ForBob())
		if err != nil {
			return err
		}
		l.answered(doc.Event, "published", doc)
		for range 3 {
			got, err := c.Acquire(ctx, bob, doc.PL, nil)
			if err != nil {
				return err
			}
			if !got.Key.Equal(doc.Key) {
				return errors.New("another content key came")
			}
			l.answered(got.Event, "released", nil)
		}
	}
}

func (l *Load) answered(event, kind string, doc *Document) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events[event] = kind
	if doc != nil {
		l.docs = append(l.docs, doc)
	}
	if l.acks++; l.acks == ackedBefore {
		close(l.enough)
	}
}

func (l *Load) ended(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if st, ok := status.FromError(err); ok {
		l.endings[st.Code()]++
		return
	}
	l.other = append(l.other, err)
}

// Turned returns how many callers have ended already.
func (l *Load) Turned() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(l.other)
	for _, m := range l.endings {
		n += m
	}
	return n
}

// Wait waits until the last caller was turned away, and reports endings other
// than the allowed ones.
func (l *Load) Wait(tb testing.TB, allowed ...codes.Code) {
	tb.Helper()
	l.callers.Wait()
	for _, err := range l.other {
		tb.Error(err)
	}
	for code, n := range l.endings {
		if !slices.Contains(allowed, code) {
			tb.Errorf("%d calls ended with %s", n, code)
		}
	}
	tb.Logf("%d answers, %d documents; endings %v", len(l.events), len(l.docs), l.endings)
}

// Check compares what the callers were told with what a daemon on the same
// store knows: every event is in the log, and every document opens with its key.
func (l *Load) Check(tb testing.TB, address string) {
	tb.Helper()
	c, erin, bob := l.site.Client(tb, address), l.site.Person(tb, "erin"), l.site.Person(tb, "bob")
	promised := maps.Clone(l.events)
	for page := ""; ; {
		resp, err := rmsv1.NewAuditServiceClient(c.Conn).ListEvents(tb.Context(),
			&rmsv1.ListEventsRequest{Parent: "tenants/" + Tenant, PageSize: 1000, PageToken: page}, erin.As())
		if err != nil {
			tb.Fatal(err)
		}
		for _, e := range resp.GetEvents() {
			id := e.GetName()[len("tenants/"+Tenant+"/events/"):]
			if kind, ok := promised[id]; ok && kind != e.GetKind() {
				tb.Errorf("event %s is %s, its caller was told %s", id, e.GetKind(), kind)
			}
			delete(promised, id)
		}
		if page = resp.GetNextPageToken(); page == "" {
			break
		}
	}
	if len(promised) > 0 {
		tb.Errorf("%d of %d answers have no event in the log", len(promised), len(l.events))
	}
	for _, doc := range l.docs {
		got, err := c.Acquire(tb.Context(), bob, doc.PL, nil)
		if err != nil {
			tb.Fatalf("a document that was published: %v", err)
		}
		if !got.Key.Equal(doc.Key) {
			tb.Fatal("a document opens with another key")
		}
	}
}

// Tail follows the log as the auditor until the stream ends, and returns a
// channel that then says how, after the first event has come.
func Tail(tb testing.TB, s *Site, address string) <-chan error {
	tb.Helper()
	c := s.Client(tb, address)
	stream, err := rmsv1.NewAuditServiceClient(c.Conn).TailEvents(tb.Context(), &rmsv1.TailEventsRequest{Parent: "tenants/" + Tenant}, s.Person(tb, "erin").As())
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		tb.Fatalf("the tail's first event: %v", err)
	}
	ended := make(chan error, 1)
	go func() {
		for {
			if _, err := stream.Recv(); errors.Is(err, io.EOF) {
				ended <- nil
				return
			} else if err != nil {
				ended <- err
				return
			}
		}
	}()
	return ended
}
