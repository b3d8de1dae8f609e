package operation

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/openrms/rms/internal/vocab"
)

// naive is the state machine written down as a table of words, from the
// documentation and not from the code: what may follow what.
type naive struct {
	state    string
	long     bool // can be paused
	needed   int
	approved []int // who approved
	expires  int   // minutes since the beginning
	ends     int   // of a recovery; 0: none
}

// tick lets time do what it does alone.
func (n *naive) tick(now int) {
	if n.state == "awaiting approval" && now >= n.expires {
		n.state = "expired"
	}
	if n.state == "running" && n.ends > 0 && now >= n.ends {
		n.state = "succeeded"
	}
}

// can says whether somebody may do something; person 0 asked for it, and has a
// second account, person 1.
func (n *naive) can(act string, who int) bool {
	switch act {
	case "approve":
		return n.state == "awaiting approval" && who > 1 && !slices.Contains(n.approved, who)
	case "reject":
		return n.state == "awaiting approval" && who > 1
	case "pause":
		return n.state == "running" && n.long
	case "resume":
		return n.state == "paused"
	case "cancel":
		return n.state == "awaiting approval" || n.state == "running" || n.state == "paused"
	case "succeed", "fail":
		return n.state == "running"
	}
	return false
}

func (n *naive) do(act string, who int) {
	switch act {
	case "approve":
		n.approved = append(n.approved, who)
		if len(n.approved) == n.needed {
			n.state = "running"
		}
	case "reject":
		n.state = "rejected"
	case "pause":
		n.state = "paused"
	case "resume":
		n.state = "running"
	case "cancel":
		n.state = "cancelled"
	case "succeed":
		n.state = "succeeded"
	case "fail":
		n.state = "failed"
	}
}

func crowd(who int) Person {
	p := Person{Issuer: "https://idp.test", Subject: fmt.Sprint(who), Addresses: []string{fmt.Sprintf("p%d@contoso.test", who)}}
	if who == 1 {
		p.Addresses = append(p.Addresses, "p0@contoso.test")
	}
	return p
}

// TestStatesFollowTheModel lets people do anything at any time; the operation
// is always in the state the model says, refuses exactly what the model does,
// and never runs without approvals of different people.
func TestStatesFollowTheModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		kind := rapid.SampledFrom([]Kind{RoleGrant, TemplateUpdate, LicenseUpdate, Recovery, Transfer, Reseal, ApproversUpdate, CustodyLower, Rewrap}).Draw(t, "kind")
		m := &naive{state: "awaiting approval", long: kind == Transfer || kind == Reseal || kind == Rewrap, needed: rapid.IntRange(1, 3).Draw(t, "needed"), expires: 60}
		minute := func(n int) time.Time { return start.Add(time.Duration(n) * time.Minute) }
		o := &Operation{
			Kind: kind, Params: []byte{0xa0}, Requester: crowd(0), Created: Millis(start), Expires: Millis(minute(m.expires)),
			Needed: uint8(m.needed), State: AwaitingApproval,
		}
		if kind == Recovery {
			m.ends = rapid.IntRange(1, 90).Draw(t, "ends")
			o.Ends = Millis(minute(m.ends))
		}
		now := 0
		for range rapid.IntRange(1, 25).Draw(t, "steps") {
			now += rapid.SampledFrom([]int{0, 0, 1, 5, 30}).Draw(t, "minutes")
			m.tick(now)
			if got := o.At(minute(now)).String(); got != m.state {
				t.Fatalf("after %d minutes it is %s, want %s", now, got, m.state)
			}
			if rapid.Bool().Draw(t, "noticed") {
				_ = o.Lapse(minute(now)) // changes no answer, whenever it comes
			}
			who := rapid.IntRange(0, 5).Draw(t, "who")
			act := rapid.SampledFrom([]string{"approve", "approve", "reject", "pause", "resume", "cancel", "succeed", "fail"}).Draw(t, "act")
			var err error
			switch by, at := crowd(who), minute(now); act {
			case "approve":
				err = o.Approve(by, o.ParamsHash(), vocab.NewEventID(), at)
			case "reject":
				err = o.Reject(by, "", at)
			case "pause":
				err = o.Pause(at)
			case "resume":
				err = o.Resume(at)
			case "cancel":
				err = o.Cancel("", at)
			case "succeed":
				err = o.Succeed("", at)
			case "fail":
				err = o.Fail(vocab.ReasonEtagMismatch, "", at)
			}
			if may := m.can(act, who); (err == nil) != may {
				t.Fatalf("person %d: %s while %s: %v, the model says %v", who, act, m.state, err, may)
			}
			if err == nil {
				m.do(act, who)
			}
			if s := o.At(minute(now)); (s == Running || s == Paused) && !o.Approved() {
				t.Fatalf("it is %s without its approvals", s)
			}
			b, err := o.Encode()
			if err != nil {
				t.Fatal(err)
			}
			if o, err = Decode(b); err != nil {
				t.Fatalf("what was written cannot be read: %v", err)
			}
		}
	})
}
