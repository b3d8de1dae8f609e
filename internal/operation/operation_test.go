package operation

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openrms/rms/internal/vocab"
)

var start = time.Date(2026, 11, 26, 9, 0, 0, 0, time.UTC)

func person(name string, addresses ...string) Person {
	return Person{Issuer: "https://idp.contoso.test", Subject: name, Name: name, Addresses: addresses, Member: "contoso"}
}

// waiting is a request of alice's that needs so many others.
func waiting(t testing.TB, kind Kind, needed uint8) *Operation {
	t.Helper()
	params, err := EncodeParams(&TransferParams{From: "user:bob@contoso.test", To: "user:alice@contoso.test"})
	if err != nil {
		t.Fatal(err)
	}
	return &Operation{
		Kind: kind, Params: params, Requester: person("alice", "alice@contoso.test"), Reason: "a test", Ticket: "T-1",
		Created: Millis(start), Expires: Millis(start.Add(RequestLife)), Needed: needed, State: AwaitingApproval,
	}
}

func TestOperationsReadBack(t *testing.T) {
	o := waiting(t, Transfer, 1)
	if err := o.Approve(person("carla"), o.ParamsHash(), vocab.NewEventID(), start); err != nil {
		t.Fatal(err)
	}
	if err := o.Fail(vocab.ReasonEtagMismatch, "somebody was faster", start.Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	b, err := o.Encode()
	if err != nil {
		t.Fatal(err)
	}
	back, err := Decode(b)
	if diff := cmp.Diff(o, back); diff != "" || err != nil {
		t.Errorf("%v, read back (-want +got):\n%s", err, diff)
	}
	for name, spoil := range map[string]func(*Operation){
		"unknown kind":            func(o *Operation) { o.Kind = 99 },
		"no state":                func(o *Operation) { o.State = 0 },
		"unknown state":           func(o *Operation) { o.State = 99 },
		"more approvals than due": func(o *Operation) { o.Needed = 0 },
	} {
		bad := *o
		spoil(&bad)
		b, err := bad.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Decode(b); !errors.Is(err, vocab.ReasonStoreDamaged) {
			t.Errorf("%s: %v, want STORE_DAMAGED", name, err)
		}
	}
	if _, err := Decode([]byte{0xff}); !errors.Is(err, vocab.ReasonStoreDamaged) {
		t.Errorf("bytes that are none: %v", err)
	}
	o.Reason = "two\nlines"
	if _, err := o.Encode(); !errors.Is(err, vocab.ReasonRequestInvalid) {
		t.Errorf("a line break: %v, want REQUEST_INVALID", err)
	}
}

// The ways to approve what one must not, and what each is told.
func TestWhoMayNotApprove(t *testing.T) {
	other := sha(1)
	for _, c := range []struct {
		name    string
		prepare func(*Operation)
		by      Person
		params  func(*Operation) [32]byte
		at      time.Duration
		want    vocab.Reason
	}{
		{"somebody else", nil, person("carla"), (*Operation).ParamsHash, 0, ""},
		{"the requester", nil, person("alice", "alice@contoso.test"), (*Operation).ParamsHash, 0, vocab.ReasonSamePerson},
		{"the requester's second account", nil, person("a.adams", "aa@contoso.test", "alice@contoso.test"), (*Operation).ParamsHash, 0, vocab.ReasonSamePerson},
		{"the requester's account at another provider", nil, Person{Issuer: "https://other.test", Subject: "7", Addresses: []string{"alice@contoso.test"}}, (*Operation).ParamsHash, 0, vocab.ReasonSamePerson},
		{"the same subject of another provider", nil, Person{Issuer: "https://other.test", Subject: "alice"}, (*Operation).ParamsHash, 0, ""},
		{"twice", approvedBy(person("carla")), person("carla"), (*Operation).ParamsHash, 0, vocab.ReasonSamePerson},
		{"twice, from a second account", approvedBy(person("carla", "carla@contoso.test")), person("c.cruz", "carla@contoso.test"), (*Operation).ParamsHash, 0, vocab.ReasonSamePerson},
		{"the second of two", approvedBy(person("carla")), person("dan"), (*Operation).ParamsHash, 0, ""},
		{"something else than was shown", nil, person("carla"), func(*Operation) [32]byte { return other }, 0, vocab.ReasonEtagMismatch},
		{"parameters that changed after the first approval", func(o *Operation) {
			approvedBy(person("carla"))(o)
			o.Params = append([]byte{}, o.Params...)
			o.Params[len(o.Params)-1] ^= 1
		}, person("dan"), func(o *Operation) [32]byte { return waitingHash }, 0, vocab.ReasonEtagMismatch},
		{"a millisecond before the end", nil, person("carla"), (*Operation).ParamsHash, RequestLife - time.Millisecond, ""},
		{"at the end", nil, person("carla"), (*Operation).ParamsHash, RequestLife, vocab.ReasonOperationState},
		{"after the end", nil, person("carla"), (*Operation).ParamsHash, RequestLife + time.Hour, vocab.ReasonOperationState},
		{"after a rejection", func(o *Operation) { _ = o.Reject(person("dan"), "", start) }, person("carla"), (*Operation).ParamsHash, 0, vocab.ReasonOperationState},
		{"after it was cancelled", func(o *Operation) { _ = o.Cancel("", start) }, person("carla"), (*Operation).ParamsHash, 0, vocab.ReasonOperationState},
		{"once more than needed", func(o *Operation) { approvedBy(person("carla"))(o); approvedBy(person("dan"))(o) }, person("erin"), (*Operation).ParamsHash, 0, vocab.ReasonOperationState},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := waiting(t, Transfer, 2)
			waitingHash = o.ParamsHash()
			if c.prepare != nil {
				c.prepare(o)
			}
			had := len(o.Approvals)
			err := o.Approve(c.by, c.params(o), vocab.NewEventID(), start.Add(c.at))
			if vocab.ReasonOf(err) != c.want {
				t.Fatalf("%v, want %q", err, c.want)
			}
			if got := len(o.Approvals) > had; got != (c.want == "") {
				t.Errorf("the approval counts: %v", got)
			}
			if running := o.State == Running; running != (len(o.Approvals) == 2) {
				t.Errorf("with %d of 2 approvals it is %s", len(o.Approvals), o.State)
			}
		})
	}
}

var waitingHash [32]byte

func sha(n byte) [32]byte { return [32]byte{n} }

func approvedBy(p Person) func(*Operation) {
	return func(o *Operation) { _ = o.Approve(p, o.ParamsHash(), vocab.NewEventID(), start) }
}

// What was approved is looked at again before it is done: the store is not
// trusted with it.
func TestApprovedLooksAgain(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(*Operation)
		want  bool
	}{
		"as it was":                       {func(*Operation) {}, true},
		"other parameters":                {func(o *Operation) { o.Params = []byte{0xa0} }, false},
		"an approval of something else":   {func(o *Operation) { o.Approvals[0].Params = sha(1) }, false},
		"the requester among them":        {func(o *Operation) { o.Approvals[1].Person = o.Requester }, false},
		"one person twice":                {func(o *Operation) { o.Approvals[1] = o.Approvals[0] }, false},
		"one too few":                     {func(o *Operation) { o.Approvals = o.Approvals[:1] }, false},
		"none needed, as nobody is asked": {func(o *Operation) { o.Needed, o.Approvals = 0, nil }, true},
	} {
		o := waiting(t, Transfer, 2)
		approvedBy(person("carla"))(o)
		approvedBy(person("dan"))(o)
		c.spoil(o)
		if got := o.Approved(); got != c.want {
			t.Errorf("%s: approved %v, want %v", name, got, c.want)
		}
	}
}

func TestARecoveryEndsByItself(t *testing.T) {
	o := waiting(t, Recovery, 1)
	o.Ends = Millis(start.Add(8 * time.Hour))
	approvedBy(person("rita"))(o)
	for at, want := range map[time.Duration]State{0: Running, 8*time.Hour - time.Millisecond: Running, 8 * time.Hour: Succeeded, 9 * time.Hour: Succeeded} {
		if got := o.At(start.Add(at)); got != want {
			t.Errorf("after %s it is %s, want %s", at, got, want)
		}
	}
	if err := o.Cancel("", start.Add(8*time.Hour)); !errors.Is(err, vocab.ReasonOperationState) {
		t.Errorf("cancelled after its end: %v", err)
	}
	if err := o.Lapse(start.Add(7 * time.Hour)); !errors.Is(err, vocab.ReasonOperationState) {
		t.Errorf("lapsed before its end: %v", err)
	}
	if err := o.Lapse(start.Add(10 * time.Hour)); err != nil || o.State != Succeeded || o.Ended != o.Ends {
		t.Errorf("noticed late: %v, %s at %d, want it ended at %d", err, o.State, o.Ended, o.Ends)
	}
}

func TestScopeOfRecoveries(t *testing.T) {
	license, uid := vocab.NewContentID(), vocab.NewTemplateUID()
	bob := vocab.Principal{Kind: vocab.KindUser, Value: "bob@contoso.test"}
	carla := vocab.Principal{Kind: vocab.KindUser, Value: "carla@contoso.test"}
	for name, c := range map[string]struct {
		params RecoveryParams
		want   [4]bool // the license; one of bob's; one of the template; another
	}{
		"one license": {RecoveryParams{License: license[:]}, [4]bool{true, false, false, false}},
		"all of bob":  {RecoveryParams{Owner: bob.String()}, [4]bool{false, true, false, false}},
		"a template":  {RecoveryParams{Template: uid[:]}, [4]bool{false, false, true, false}},
		"nothing":     {RecoveryParams{}, [4]bool{}},
	} {
		got := [4]bool{
			c.params.Covers(license, carla, vocab.TemplateUID{}), c.params.Covers(vocab.NewContentID(), bob, vocab.NewTemplateUID()),
			c.params.Covers(vocab.NewContentID(), carla, uid), c.params.Covers(vocab.NewContentID(), carla, vocab.TemplateUID{}),
		}
		if got != c.want {
			t.Errorf("%s: covers %v, want %v", name, got, c.want)
		}
	}
}

func TestNames(t *testing.T) {
	for k, n := range kindNames {
		if k.String() != n || n == "" {
			t.Errorf("kind %d is %q", k, k)
		}
	}
	for s, n := range stateNames {
		if s.String() != n {
			t.Errorf("state %d is %q", s, s)
		}
	}
	if Kind(99).String() != "Kind(99)" || State(99).String() != "State(99)" || !State(99).Ended() || !State(0).Ended() {
		t.Error("what is unknown has a name, or goes on")
	}
	if o := waiting(t, Recovery, 1); !strings.Contains(o.Pause(start).Error(), "a recovery is not paused") {
		t.Error("a recovery can be paused")
	}
}
