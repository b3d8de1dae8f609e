package operation

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"
	"pgregory.net/rapid"

	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/sshsig"
	"github.com/openrms/rms/internal/vocab"
)

// signerOf is a person's SSH key, made of the name: a test value.
func signerOf(t testing.TB, name string) *sshsig.Signer {
	t.Helper()
	seed := sha256.Sum256([]byte("a test value: " + name))
	s, err := ssh.NewSignerFromKey(ed25519.NewKeyFromSeed(seed[:]))
	if err != nil {
		t.Fatal(err)
	}
	out, err := sshsig.NewSigner(s)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func principalOf(name string) string { return "user:" + name + "@contoso.test" }

// setOf is an approver set of these people, each with a key of the same name.
func setOf(t testing.TB, threshold int, names ...string) *ApproverSet {
	t.Helper()
	s := &ApproverSet{Threshold: uint8(threshold)}
	for _, n := range names {
		s.Approvers = append(s.Approvers, Approver{Principal: principalOf(n), Keys: [][]byte{signerOf(t, n).Key().Wire()}})
	}
	s.Sort()
	return s
}

// asked is an operation that a set's quorum must approve.
func asked(t testing.TB, set *ApproverSet) *Operation {
	t.Helper()
	o := waiting(t, CustodyLower, 1)
	o.Basis = &Basis{Hash: sha(7), Text: []string{"revision 3 of the settings"}}
	if err := o.Ask(vocab.TenantID{1}, vocab.OperationID{2}, set); err != nil {
		t.Fatal(err)
	}
	return o
}

func approval(t testing.TB, o *Operation, name string) Approval {
	t.Helper()
	sig, err := signerOf(t, name).Sign(ApprovalNamespace, o.Quorum.Signed)
	if err != nil {
		t.Fatal(err)
	}
	return Approval{Person: person(name, name+"@contoso.test"), Params: o.ParamsHash(), Signature: sig.Bytes(), Approver: principalOf(name)}
}

func anybody(*Approval) error { return nil }

// The bytes that are signed are part of the format: docs/formats.md has them.
func TestWhatIsSigned(t *testing.T) {
	t.Parallel()
	basis := &Basis{Hash: sha(7), Text: []string{"revision 3 of the settings"}}
	sum, err := basis.Sum()
	if err != nil {
		t.Fatal(err)
	}
	set, err := setOf(t, 2, "anna", "ben", "cleo").Encode()
	if err != nil {
		t.Fatal(err)
	}
	s := Statement{
		Tenant: vocab.TenantID{1}, Operation: vocab.OperationID{2}, Kind: CustodyLower, Params: sha(3), Basis: sum,
		Requester: Person{Issuer: "https://idp.test", Subject: "7", Name: "dan@contoso.test"}, Reason: "why", Ticket: "T-1",
		Needed: 2, Set: SetHash(set), Created: 1_700_000_000_000, Expires: 1_700_086_400_000,
	}
	const want = "826f726d732f76312f617070726f76616caf015001000000000000000000000000000000025002000000000000000000000000000000030804582003" +
		"000000000000000000000000000000000000000000000000000000000000000558208887e2b7089f8c2fd256433f810f2c9a15a17da776648ea83032" +
		"a37de027410e067068747470733a2f2f6964702e74657374076137087064616e40636f6e746f736f2e7465737409637768790a63542d310b020c5820" +
		"05b01483d6c96946dddbaf4de0387774281c836db92bf369dbbb9418b047ba6c0d1b0000018bcfe568000e1b0000018bd50bc4000f00"
	if got := hex.EncodeToString(s.Bytes()); got != want {
		t.Errorf("signed are\n%s, want\n%s", got, want)
	}
	// Whatever it says counts.
	seen := map[string]string{string(s.Bytes()): "as it is"}
	for name, change := range map[string]func(*Statement){
		"tenant": func(s *Statement) { s.Tenant[0]++ }, "operation": func(s *Statement) { s.Operation[0]++ }, "kind": func(s *Statement) { s.Kind++ },
		"params": func(s *Statement) { s.Params[0]++ }, "basis": func(s *Statement) { s.Basis[0]++ }, "issuer": func(s *Statement) { s.Requester.Issuer += "x" },
		"subject": func(s *Statement) { s.Requester.Subject += "x" }, "name": func(s *Statement) { s.Requester.Name += "x" },
		"reason": func(s *Statement) { s.Reason += "x" }, "ticket": func(s *Statement) { s.Ticket += "x" }, "needed": func(s *Statement) { s.Needed++ },
		"set": func(s *Statement) { s.Set[0]++ }, "created": func(s *Statement) { s.Created++ }, "expires": func(s *Statement) { s.Expires++ }, "ends": func(s *Statement) { s.Ends++ },
	} {
		other := s
		change(&other)
		if same, ok := seen[string(other.Bytes())]; ok {
			t.Errorf("another %s is signed the same as %s", name, same)
		}
		seen[string(other.Bytes())] = name
	}
	for name, other := range map[string]*Basis{"hash": {Hash: sha(8), Text: basis.Text}, "text": {Hash: basis.Hash, Text: []string{"x"}}, "lines": {Hash: basis.Hash, Text: append(basis.Text, "x")}} {
		if got, err := other.Sum(); err != nil || got == sum {
			t.Errorf("another %s is the same basis: %v", name, err)
		}
	}
}

// A quorum is stored, and read as what it was.
func TestStoredQuorum(t *testing.T) {
	t.Parallel()
	o := asked(t, setOf(t, 2, "anna", "ben", "cleo"))
	o.Approvals = []Approval{approval(t, o, "anna")}
	b, err := o.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := Decode(b)
	if diff := cmp.Diff(o, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	for name, spoil := range map[string]func(*Operation){
		"no set":          func(o *Operation) { o.Quorum.Set = nil },
		"no basis":        func(o *Operation) { o.Basis = nil },
		"nothing signed":  func(o *Operation) { o.Quorum.Signed = nil },
		"fewer are asked": func(o *Operation) { o.Needed = 1 },
		"no second set":   func(o *Operation) { o.Quorum.Then = []byte{0xa0} },
		"no end of them":  func(o *Operation) { o.Approvals = make([]Approval, MaxApprovals+1) },
	} {
		bad, _ := Decode(b)
		spoil(bad)
		again, err := bad.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Decode(again); !errors.Is(err, vocab.ReasonStoreDamaged) {
			t.Errorf("%s: %v, want STORE_DAMAGED", name, err)
		}
	}
}

// It does not run without signatures, whatever the store says.
func TestApprovedLooksAtSignatures(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		spoil func(*Operation)
		want  bool
	}{
		"as it was":            {func(*Operation) {}, true},
		"one too few":          {func(o *Operation) { o.Approvals = o.Approvals[:1] }, false},
		"one twice":            {func(o *Operation) { o.Approvals[1] = o.Approvals[0] }, false},
		"one key, two people":  {func(o *Operation) { o.Approvals[1].Signature = o.Approvals[0].Signature }, false},
		"no signature":         {func(o *Operation) { o.Approvals[0].Signature = nil }, false},
		"of other bytes":       {func(o *Operation) { o.Quorum.Signed = []byte("x") }, false},
		"of other parameters":  {func(o *Operation) { o.Params = []byte{0xa0, 0} }, false},
		"the requester's":      {func(o *Operation) { o.Requester = o.Approvals[0].Person }, false},
		"by one who is none":   {func(o *Operation) { o.Approvals[0] = approval(t, o, "mallory") }, false},
		"by another's name":    {func(o *Operation) { o.Approvals[0].Approver = principalOf("cleo") }, false},
		"without any set":      {func(o *Operation) { o.Quorum.Set = nil }, false},
		"a set that it is not": {func(o *Operation) { o.Quorum.Then, _ = setOf(t, 2, "cleo", "dora").Encode() }, false},
	} {
		o := asked(t, setOf(t, 2, "anna", "ben", "cleo"))
		o.Approvals = []Approval{approval(t, o, "anna"), approval(t, o, "ben")}
		c.spoil(o)
		if got := o.Approved(); got != c.want {
			t.Errorf("%s: approved %v, want %v", name, got, c.want)
		}
	}
}

// TestTheTallyIsTheModels: whoever approves, in whatever order, and whatever
// becomes of the approvers, an operation starts exactly when a naive count says
// that both quorums are there.
func TestTheTallyIsTheModels(t *testing.T) {
	t.Parallel()
	crowd := []string{"anna", "ben", "cleo", "dora", "emil"}
	rapid.Check(t, func(rt *rapid.T) {
		draw := func(label string) (*ApproverSet, map[string]bool, int) {
			names := rapid.SliceOfNDistinct(rapid.SampledFrom(crowd), 2, 5, func(s string) string { return s }).Draw(rt, label)
			m := rapid.IntRange(2, len(names)).Draw(rt, label+" threshold")
			in := map[string]bool{}
			for _, n := range names {
				in[n] = true
			}
			return setOf(t, m, names...), in, m
		}
		before, inBefore, needBefore := draw("asked")
		now, inNow, needNow := draw("now")
		o := asked(t, before)
		down := map[string]bool{} // who is disabled
		for _, n := range crowd {
			down[n] = rapid.IntRange(0, 5).Draw(rt, n+" is down") == 0
		}
		may := func(a *Approval) error {
			if down[strings.TrimSuffix(strings.TrimPrefix(a.Approver, "user:"), "@contoso.test")] {
				return vocab.ReasonPrincipalDisabled
			}
			return nil
		}
		gave := map[string]bool{}
		for range rapid.IntRange(0, 8).Draw(rt, "approvals") {
			name := rapid.SampledFrom(crowd).Draw(rt, "who")
			tally, err := o.Tally(now, may)
			if err != nil {
				rt.Fatal(err)
			}
			err = o.ApproveSigned(approval(t, o, name), tally, []*ApproverSet{now}, start)
			if want := inNow[name] && !(gave[name] && !down[name]); (err == nil) != want {
				rt.Fatalf("%s approves: %v, want it taken: %v", name, err, want)
			}
			gave[name] = gave[name] || err == nil
		}
		tally, err := o.Tally(now, may)
		if err != nil {
			rt.Fatal(err)
		}
		var countNow, countBefore int
		for n := range gave {
			if gave[n] && inNow[n] && !down[n] {
				countNow++
				if inBefore[n] {
					countBefore++
				}
			}
		}
		if want := (Tally{Why: tally.Why, Now: Count{countNow, needNow}, Asked: Count{countBefore, needBefore}}); !cmp.Equal(want.Now, tally.Now) || !cmp.Equal(want.Asked, tally.Asked) {
			rt.Fatalf("counted %+v and %+v, want %+v and %+v", tally.Now, tally.Asked, want.Now, want.Asked)
		}
		enough := countNow >= needNow && countBefore >= needBefore
		if tally.Enough() != enough || (o.Start(tally, now) == nil) != enough {
			rt.Fatalf("it starts: %v, want %v", o.State, enough)
		}
	})
}

func TestChangesOfApprovers(t *testing.T) {
	t.Parallel()
	three := setOf(t, 2, "anna", "ben", "cleo")
	rekeyed := setOf(t, 2, "anna", "ben", "cleo")
	rekeyed.Approvers[0].Keys = [][]byte{signerOf(t, "anna's new one").Key().Wire()}
	rekeyed.Approvers[1].Label = "Ben"
	fingerprint := func(name string) string { return "ssh-ed25519 " + signerOf(t, name).Key().Fingerprint() }
	for name, c := range map[string]struct {
		from, to *ApproverSet
		want     []string
	}{
		"first": {nil, setOf(t, 2, "anna", "ben"), []string{
			"sets the first quorum: 2 of 2", "adds anna@contoso.test: " + fingerprint("anna"), "adds ben@contoso.test: " + fingerprint("ben"),
		}},
		"lowered": {setOf(t, 3, "anna", "ben", "cleo", "dora", "emil"), setOf(t, 2, "anna", "ben", "cleo", "dora"), []string{
			"lowers the quorum from 3 of 5 to 2 of 4", "removes emil@contoso.test",
		}},
		"raised": {three, setOf(t, 3, "anna", "ben", "cleo"), []string{"raises the quorum from 2 of 3 to 3 of 3"}},
		"fewer":  {three, setOf(t, 2, "anna", "ben"), []string{"keeps the threshold; the quorum is 2 of 2 after 2 of 3", "removes cleo@contoso.test"}},
		"rekeyed": {three, rekeyed, []string{
			"keeps the quorum of 2 of 3", "takes from anna@contoso.test " + fingerprint("anna"), "gives anna@contoso.test " + fingerprint("anna's new one"),
			"calls ben@contoso.test ben@contoso.test (Ben)",
		}},
	} {
		if diff := cmp.Diff(c.want, c.to.Changes(c.from)); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
	}
}

// badSets are encodings that are no approver set.
func badSets(t testing.TB) map[string][]byte {
	out := map[string][]byte{"nothing": {}, "no map": {0x80}, "no CBOR": {0xff}, "empty": {0xa0}}
	add := func(name string, change func(*ApproverSet)) {
		s := setOf(t, 2, "anna", "ben", "cleo")
		change(s)
		b, err := canon.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		out[name] = b
	}
	add("one of three", func(s *ApproverSet) { s.Threshold = 1 })
	add("four of three", func(s *ApproverSet) { s.Threshold = 4 })
	add("out of order", func(s *ApproverSet) { s.Approvers[0], s.Approvers[1] = s.Approvers[1], s.Approvers[0] })
	add("a person twice", func(s *ApproverSet) { s.Approvers[1].Principal = s.Approvers[0].Principal })
	add("a group", func(s *ApproverSet) { s.Approvers[2].Principal = "group:x@contoso.test" })
	add("no principal", func(s *ApproverSet) { s.Approvers[2].Principal = "zoe" })
	add("not canonical", func(s *ApproverSet) { s.Approvers[2].Principal = "user:Zoe@contoso.test" })
	add("a key twice", func(s *ApproverSet) { s.Approvers[1].Keys = s.Approvers[0].Keys })
	add("no keys", func(s *ApproverSet) { s.Approvers[1].Keys = nil })
	add("too many keys", func(s *ApproverSet) { s.Approvers[1].Keys = make([][]byte, MaxApproverKeys+1) })
	add("a key that is none", func(s *ApproverSet) { s.Approvers[1].Keys = [][]byte{{1}} })
	add("keys out of order", func(s *ApproverSet) {
		k := [][]byte{signerOf(t, "x").Key().Wire(), signerOf(t, "y").Key().Wire()}
		if bytes.Compare(k[0], k[1]) < 0 {
			k[0], k[1] = k[1], k[0]
		}
		s.Approvers[1].Keys = k
	})
	add("a long label", func(s *ApproverSet) { s.Approvers[1].Label = strings.Repeat("x", MaxLabel+1) })
	add("too many", func(s *ApproverSet) {
		for range MaxApprovers {
			s.Approvers = append(s.Approvers, s.Approvers[2])
		}
	})
	return out
}

func TestBadApproverSets(t *testing.T) {
	t.Parallel()
	for name, b := range badSets(t) {
		if _, err := DecodeApprovers(b); !errors.Is(err, vocab.ReasonStoreDamaged) {
			t.Errorf("%s: %v, want STORE_DAMAGED", name, err)
		}
	}
}

// FuzzDecodeApprovers: what is read is the same when written again.
func FuzzDecodeApprovers(f *testing.F) {
	for _, b := range badSets(f) {
		f.Add(b)
	}
	good, err := setOf(f, 2, "anna", "ben", "cleo").Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := DecodeApprovers(b)
		if err != nil {
			if !errors.Is(err, vocab.ReasonStoreDamaged) {
				t.Errorf("another reason: %v", err)
			}
			return
		}
		if again, err := s.Encode(); err != nil {
			t.Errorf("it cannot be written: %v", err)
		} else if second, err := DecodeApprovers(again); err != nil || !cmp.Equal(s, second) {
			t.Errorf("written and read again: %v", err)
		}
	})
}

// An unsigned yes is none, and a voided request ends.
func TestDualControlIsNotASecondPerson(t *testing.T) {
	t.Parallel()
	o := asked(t, setOf(t, 2, "anna", "ben", "cleo"))
	if err := o.Approve(person("anna"), o.ParamsHash(), vocab.NewEventID(), start); !errors.Is(err, vocab.ReasonRequestInvalid) || len(o.Approvals) != 0 {
		t.Errorf("unsigned: %v", err)
	}
	if err := o.Void(vocab.ReasonInventoryChanged, "changed", start.Add(time.Minute)); err != nil || o.State != Failed || o.Why != vocab.ReasonInventoryChanged {
		t.Errorf("voided: %v, %s", err, o.State)
	}
	if err := o.Void(vocab.ReasonInventoryChanged, "changed", start.Add(time.Minute)); !errors.Is(err, vocab.ReasonOperationState) {
		t.Errorf("voided twice: %v", err)
	}
	if _, err := waiting(t, Transfer, 1).Tally(nil, anybody); !errors.Is(err, vocab.ReasonStoreDamaged) {
		t.Errorf("a tally without a quorum: %v", err)
	}
}
