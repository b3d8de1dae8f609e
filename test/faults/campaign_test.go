package faults_test

import (
	"bytes"
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/openrms/rms/internal/daemon"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
	"github.com/openrms/rms/test/rmsdtest"
)

// TestKillCampaigns ends the daemon with SIGKILL while a rewrap, and then a
// reseal away from a compromised generation, goes on under callers who open
// documents. Each goes on by itself in the next life, and in the end every
// license was written once by each, and every document opens to the content key
// it was published with.
func TestKillCampaigns(t *testing.T) {
	documents, lives := 1200, 12
	if testing.Short() {
		documents, lives = 300, 4
	}
	c := &campaigns{site: rmsdtest.New(t, rmsdtest.Embedded), binary: rmsdtest.Build(t, "")}
	c.start(t)
	c.strict(t)
	for i := range documents {
		template := ""
		if i%2 == 1 {
			template = "strict"
		}
		r := c.alice.Publish(t.Context(), template)
		if r.Outcome != rmsdtest.Received {
			t.Fatal(r.Err)
		}
		c.docs = append(c.docs, r.Document)
	}

	key, err := c.custody().RotateKey(t.Context(), &rmsv1.RotateKeyRequest{Name: rmsdtest.Parent + "/keys/root"}, c.signed())
	if err != nil {
		t.Fatal(err)
	}
	if name := key.GetRewrap(); name != "" { // else it was quick
		c.survive(t, name, lives)
		c.onceEach(t, name, documents/2)
	}
	rewrap, err := c.custody().Rewrap(t.Context(), &rmsv1.RewrapRequest{Parent: rmsdtest.Parent}, c.signed())
	if err != nil || rewrap.GetGenerations()+int32(rewrap.GetLicenses()) != 0 || rewrap.GetOperation() != nil {
		t.Errorf("after the rewrap there is something to move: %v, %v", rewrap, err)
	}

	first := rmsdtest.Parent + "/generations/1"
	if _, err := c.custody().CompromiseKey(t.Context(), &rmsv1.CompromiseKeyRequest{Name: first}, c.signed()); err != nil {
		t.Fatal(err)
	}
	reseal, err := c.custody().Reseal(t.Context(), &rmsv1.ResealRequest{Name: first, MaxRate: int32(documents / 4)}, c.signed())
	if err != nil {
		t.Fatal(err)
	}
	c.survive(t, reseal.GetOperation().GetName(), lives)
	if done := c.look(t, reseal.GetOperation().GetName()); done.GetProgress().GetDone() != int64(documents/2) {
		t.Errorf("%d licenses were sealed anew, want %d", done.GetProgress().GetDone(), documents/2)
	}
	c.onceEach(t, reseal.GetOperation().GetName(), documents/2)
	replies, err := c.bob.AcquireAll(t.Context(), c.docs)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range replies {
		if r.Outcome != rmsdtest.Received { // that the key is the same, the caller has checked
			t.Errorf("%s does not open: %v", r.Content, r.Err)
		}
	}
	if err := c.p.Stop(); err != nil {
		t.Fatalf("rmsd did not end well: %v\n%s", err, c.p.LogEnd())
	}
	var out bytes.Buffer
	if err := daemon.Fsck(t.Context(), c.site.Data, false, &out); err != nil {
		t.Errorf("%v\n%s", err, &out)
	}
}

// campaigns is a site with a daemon and its people.
type campaigns struct {
	site              *rmsdtest.Site
	binary            string
	p                 *rmsdtest.Process
	alice, bob, carla *rmsdtest.Caller
	docs              []*rmsdtest.Document
}

func (c *campaigns) start(t *testing.T) {
	t.Helper()
	c.p = c.site.Start(t, c.binary)
	c.p.AwaitServing(t)
	c.alice, c.bob, c.carla = c.site.Caller(t, "alice"), c.site.Caller(t, "bob"), c.site.Caller(t, "carla")
}

func (c *campaigns) custody() rmsv1.CustodyServiceClient {
	conn, _ := c.carla.Conn()
	return rmsv1.NewCustodyServiceClient(conn)
}

func (c *campaigns) signed() grpc.CallOption {
	_, signed := c.carla.Conn()
	return signed
}

// strict makes a template whose documents have generations of their own.
func (c *campaigns) strict(t *testing.T) {
	t.Helper()
	conn, signed := c.alice.Conn()
	_, err := rmsv1.NewPolicyServiceClient(conn).CreateTemplate(t.Context(), &rmsv1.CreateTemplateRequest{
		Parent: rmsdtest.Parent, TemplateId: "strict", Template: &rmsv1.Template{
			State: rmsv1.Template_STATE_PUBLISHED, CustodyMode: rmsv1.CustodyMode_CUSTODY_MODE_STRICT, DisplayNames: map[string]string{"en": "Strict"},
			Grants: []*rmsv1.Grant{{To: "user:bob@contoso.test", Rights: []rmsv1.Right{rmsv1.Right_RIGHT_VIEW}}},
		},
	}, signed)
	if err != nil {
		t.Fatal(err)
	}
}

// look reads an operation.
func (c *campaigns) look(t *testing.T, name string) *rmsv1.Operation {
	t.Helper()
	conn, signed := c.carla.Conn()
	o, err := rmsv1.NewOperationServiceClient(conn).GetOperation(t.Context(), &rmsv1.GetOperationRequest{Name: name}, signed)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// survive kills the daemon a number of times while an operation goes on, at
// moments nobody chose, and waits for it to succeed.
func (c *campaigns) survive(t *testing.T, name string, lives int) {
	t.Helper()
	kills, last := 0, int64(0)
	for range lives {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.Int64N(int64(400*time.Millisecond))))
		for ctx.Err() == nil { // people go on opening
			if r := c.bob.Acquire(ctx, c.docs[rand.IntN(len(c.docs))]); r.BadAnswer() != nil {
				t.Error(r.BadAnswer())
			}
		}
		cancel()
		o := c.look(t, name)
		if o.GetState() != rmsv1.Operation_STATE_RUNNING {
			break
		}
		if done := o.GetProgress().GetDone(); done < last {
			t.Errorf("%d were done, and later %d", last, done)
		} else {
			last = done
		}
		c.p.Kill()
		kills++
		c.start(t)
	}
	conn, signed := c.carla.Conn()
	stream, err := rmsv1.NewOperationServiceClient(conn).WatchOperation(t.Context(), &rmsv1.WatchOperationRequest{Name: name}, signed)
	for err == nil {
		_, err = stream.Recv()
	}
	o := c.look(t, name)
	if o.GetState() != rmsv1.Operation_STATE_SUCCEEDED || o.GetProgress().GetFailed() != 0 {
		t.Fatalf("after %d kills it is %v (%s), %v", kills, o.GetState(), o.GetMessage(), o.GetProgress())
	}
	t.Logf("%s after %d kills: %s", o.GetKind(), kills, o.GetMessage())
}

// onceEach fails the test unless the operation wrote n licenses, each once.
func (c *campaigns) onceEach(t *testing.T, name string, n int) {
	t.Helper()
	conn, signed := c.site.Caller(t, "erin").Conn()
	written := map[string]int{}
	for token := ""; ; {
		page, err := rmsv1.NewAuditServiceClient(conn).ListEvents(t.Context(), &rmsv1.ListEventsRequest{
			Parent: rmsdtest.Parent, PageSize: 1000, PageToken: token,
			Filter: &rmsv1.EventFilter{Operation: name[len(rmsdtest.Parent+"/operations/"):], Kinds: []string{"license-edited"}},
		}, signed)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page.GetEvents() {
			written[e.GetLicense()]++
		}
		if token = page.GetNextPageToken(); token == "" {
			break
		}
	}
	if len(written) != n {
		t.Errorf("%d licenses have events of it, want %d", len(written), n)
	}
	for id, times := range written {
		if times != 1 {
			t.Errorf("license %s was written %d times", id, times)
		}
	}
}
