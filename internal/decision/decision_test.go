package decision_test

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/decision"
	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/vocab"
)

var (
	issued = time.Date(2026, 11, 22, 9, 2, 40, 0, time.UTC)
	hash   = [32]byte{0: 0xaa, 31: 0xbb}
	event  = vocab.EventID{0: 1, 6: 0x70, 15: 9}
)

const mallory = "mallory@contoso.com"

func nobody(vocab.Principal) bool { return false }

// usual is what the events of most opens hold.
func usual() *decision.Inputs {
	return &decision.Inputs{
		Question: decision.Acquire, Rules: 1, Settings: 3,
		Caller: decision.Caller{
			Addresses: []string{mallory}, Groups: []string{"all-staff@contoso.com"}, Member: true, IssuedAt: issued,
		},
		License: &decision.License{Policy: hash},
		Key:     decision.Key{Generation: 4, Version: 3, State: 2},
	}
}

// full has every field that goes together.
func full() *decision.Inputs {
	in := usual()
	in.Recovery = true
	in.License.Strict = true
	in.Revocations = []policy.Revocation{{Scope: policy.RevokedDocument, Event: event}, {Scope: policy.RevokedPeriod, Event: event}}
	in.Caller.Addresses = append(in.Caller.Addresses, "m@contoso.com")
	in.Caller.Directory = []string{"partners@contoso.com"}
	in.Caller.GroupsIncomplete, in.Caller.MFA, in.Caller.Certificate, in.Caller.Disabled = true, true, true, true
	in.Caller.Through, in.Caller.Actor = true, "dms"
	in.Key.VersionState = 4
	return in
}

func publish() *decision.Inputs {
	return &decision.Inputs{
		Question: decision.Publish, Rules: 1, Caller: decision.Caller{Service: "dms", Certificate: true, Addresses: []string{"dms@contoso.com"}},
		Publish: &decision.Publishing{
			How: decision.AdHoc, Same: true, Owner: vocab.Principal{Kind: vocab.KindUser, Value: mallory},
			Parents: []decision.Parent{
				{Content: vocab.ContentID{1}, License: &decision.License{Policy: hash, Strict: true}, Revocations: []policy.Revocation{{Scope: policy.RevokedLineage, Event: event}}, Revision: 2, TemplateRevision: 7},
				{Content: vocab.ContentID{2}},
			},
		},
	}
}

func encode(t testing.TB, in *decision.Inputs, name string, named func(vocab.Principal) bool) []byte {
	t.Helper()
	b, err := decision.Encode(in, name, named)
	if err != nil {
		t.Fatal(err)
	}
	if len(b) > decision.MaxSize {
		t.Fatalf("%d bytes", len(b))
	}
	return b
}

func TestRoundTrip(t *testing.T) {
	byPerson := usual()
	byPerson.Caller.Through = true
	unknown := publish()
	unknown.Publish = &decision.Publishing{How: decision.ByTemplate, Slug: "no-such"}
	for name, in := range map[string]*decision.Inputs{
		"usual": usual(), "full": full(), "publish": publish(), "through a person": byPerson, "unknown template": unknown,
		"repeat":     {Question: decision.Repeat, Rules: 2, License: &decision.License{Policy: hash}},
		"deliver":    {Question: decision.Deliver, Rules: 1, Caller: decision.Caller{Service: "dlp"}},
		"no license": {Question: decision.Acquire, Rules: 1},
		"taken over": {Question: decision.Publish, Rules: 1, Publish: &decision.Publishing{How: decision.TakenOver}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := decision.Decode(encode(t, in, mallory, nobody), mallory)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(in, got, cmpopts.EquateEmpty()); d != "" {
				t.Error(d)
			}
		})
	}
}

// The bytes that docs/audit.md shows.
func TestVector(t *testing.T) {
	const want = "a7" + // a map of 7
		"0101" + // question: acquire
		"021881" + // flags: member, the first address is the event's name
		"0303" + // settings revision 3
		"045820aa000000000000000000000000000000000000000000000000000000000000bb" + // hash of the policy
		"078175616c6c2d737461666640636f6e746f736f2e636f6d" + // groups: all-staff@contoso.com
		"091a6b02afb0" + // token issued 2026-11-22T09:02:40Z
		"0c8404030200" // key: g4, version 3, active, nothing said of the version
	if got := hex.EncodeToString(encode(t, usual(), mallory, nobody)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	page, err := os.ReadFile("../../docs/audit.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(strings.Join(strings.Fields(string(page)), ""), want) {
		t.Error("docs/audit.md shows other bytes")
	}
}

func TestIdentity(t *testing.T) {
	id := &vocab.Identity{
		Issuer: "https://idp", Subject: "7", Provider: "entra", Peer: "10.0.0.1", Addresses: []string{mallory, "m@contoso.com"},
		Groups: []string{"a@contoso.com"}, GroupsIncomplete: true, Member: "contoso", MFA: true, IssuedAt: issued,
		Actor: &vocab.Identity{Service: "dms"},
	}
	c := decision.CallerOf(id, []string{"b@contoso.com"}, true)
	got := c.Identity(vocab.Identity{Issuer: "https://idp", Subject: "7", Provider: "entra", Peer: "10.0.0.1"}, "contoso")
	want := *id
	want.Groups = []string{"a@contoso.com", "b@contoso.com"}
	if d := cmp.Diff(&want, got); d != "" {
		t.Error(d)
	}
	if !c.Disabled {
		t.Error("disabled is lost")
	}
	guest := decision.CallerOf(&vocab.Identity{Addresses: []string{"eve@fabrikam.com"}}, nil, false)
	if got := guest.Identity(vocab.Identity{}, "contoso"); got.Member != "" || got.Actor != nil || !got.IssuedAt.IsZero() {
		t.Errorf("%+v", got)
	}
}

// A caller in hundreds of groups is recorded with those that the policy names,
// and with how many there were.
func TestAbridged(t *testing.T) {
	in := usual()
	in.Caller.Groups, in.Caller.Directory = nil, nil
	for i := range 300 {
		in.Caller.Groups = append(in.Caller.Groups, fmt.Sprintf("a-group-with-a-rather-long-name-%03d@contoso.com", i))
	}
	for i := range 20 {
		in.Caller.Directory = append(in.Caller.Directory, fmt.Sprintf("local-%d@contoso.com", i))
	}
	in.Caller.Addresses = []string{mallory, "m@contoso.com", "m@other.example"}
	names := map[string]bool{in.Caller.Groups[7]: true, in.Caller.Groups[299]: true, in.Caller.Directory[3]: true, "other.example": true}
	b := encode(t, in, mallory, func(p vocab.Principal) bool { return names[p.Value] })
	if len(b) > 500 {
		t.Errorf("%d bytes for four names", len(b))
	}
	got, err := decision.Decode(b, mallory)
	if err != nil {
		t.Fatal(err)
	}
	all, err := canon.Marshal([][]string{in.Caller.Addresses, in.Caller.Groups, in.Caller.Directory})
	if err != nil {
		t.Fatal(err)
	}
	want := *in
	want.Caller.Addresses = []string{mallory, "m@other.example"}
	want.Caller.Groups = []string{in.Caller.Groups[7], in.Caller.Groups[299]}
	want.Caller.Directory = []string{in.Caller.Directory[3]}
	want.Caller.Abridged = &decision.Abridged{Addresses: 3, Groups: 300, Directory: 20, Hash: canon.Hash(all)}
	if d := cmp.Diff(&want, got); d != "" {
		t.Error(d)
	}
}

// Nothing a caller has makes an event that cannot be written.
func TestBounded(t *testing.T) {
	long := strings.Repeat("x", 60) + "@" + strings.Repeat("y", 60) + "." + strings.Repeat("z", 60) + ".example"
	in := publish()
	for i := range 2000 {
		in.Caller.Groups = append(in.Caller.Groups, fmt.Sprintf("%d%s", i%10, long[1:]))
		in.Caller.Directory = append(in.Caller.Directory, fmt.Sprintf("%d%s", i%10, long[1:]))
		in.Caller.Addresses = append(in.Caller.Addresses, fmt.Sprintf("%d%s", i%10, long[1:]))
	}
	var many []policy.Revocation
	for i := range 500 {
		many = append(many, policy.Revocation{Scope: policy.RevokedDocument, Event: vocab.EventID{byte(i)}})
	}
	many = append(many, policy.Revocation{Scope: policy.RevokedOwner, Event: event})
	for i := range 16 {
		in.Publish.Parents = append(in.Publish.Parents[:min(i, 15)], decision.Parent{
			Content: vocab.ContentID{byte(i + 1)}, License: &decision.License{Policy: hash}, Revocations: many, Revision: 1 << 31, TemplateRevision: 1 << 31,
		})
	}
	in.License, in.Revocations = &decision.License{Policy: hash}, many
	got, err := decision.Decode(encode(t, in, "", func(vocab.Principal) bool { return true }), "")
	if err != nil {
		t.Fatal(err)
	}
	if a := got.Caller.Abridged; a == nil || !a.Cut || a.Groups != 2000 || len(got.Caller.Addresses) == 0 || got.Caller.Addresses[0] != in.Caller.Addresses[0] {
		t.Errorf("%+v", got.Caller.Abridged)
	}
	// Of many revocations the one that is not of the document decides.
	if r := got.Revocations; len(r) != 32 || r[0].Scope != policy.RevokedOwner {
		t.Errorf("%d revocations, the first %+v", len(r), r[0])
	}
}

func TestEncodeRefusesWhatIsNotCanonical(t *testing.T) {
	in := usual()
	in.Caller.Groups = []string{"a\x00b"}
	if _, err := decision.Encode(in, mallory, nobody); vocab.ReasonOf(err) != vocab.ReasonInternal {
		t.Error(err)
	}
}

// seeds are encodings, and what almost is one.
func seeds(t testing.TB) (out [][]byte) {
	abridged := usual()
	for range 100 {
		abridged.Caller.Groups = append(abridged.Caller.Groups, "some-group@contoso.com")
	}
	for _, in := range []*decision.Inputs{
		usual(), full(), publish(), abridged,
		{Question: decision.Deliver}, {Question: decision.Publish, Publish: &decision.Publishing{How: decision.ByTemplate, Slug: "no-such"}},
	} {
		out = append(out, encode(t, in, mallory, nobody))
	}
	var m map[uint64]any
	for _, b := range [][]byte{out[1], out[2]} {
		for key, values := range map[uint64][]any{
			1: {uint64(0), uint64(9)}, 2: {uint64(1 << 20), uint64(1 << 10)}, 4: {[]byte{1}}, 5: {"No Slug"}, 6: {[]string{"Not@Canonical"}},
			9: {uint64(1 << 60)}, 10: {"X"}, 11: {[]byte{1}, make([]byte, 17), bytes.Repeat([]byte{200}, 17), bytes.Repeat([]byte{1}, 17*33)}, 12: {[]uint64{1}, []uint64{0, 0, 0, 0}, []uint64{1, 1, 999, 1}},
			14: {uint64(0), uint64(8)}, 15: {"nobody", "user:Bob@contoso.com"}, 16: {"A B"},
			18: {uint64(1)}, 17: {[]any{map[uint64]any{1: make([]byte, 16), 2: uint64(1)}}, []any{map[uint64]any{1: make([]byte, 16), 3: []byte{1}}}, []any{map[uint64]any{1: make([]byte, 16), 3: hash[:], 4: uint64(2)}}},
		} {
			for _, v := range values {
				m = nil
				if err := canon.Unmarshal(b, &m); err != nil {
					t.Fatal(err)
				}
				m[key] = v
				if changed, err := canon.Marshal(m); err == nil {
					out = append(out, changed)
				}
			}
		}
	}
	return append(out, nil, []byte{0xa0}, make([]byte, decision.MaxSize+1))
}

// FuzzDecode: what is read is written again in the same bytes, and nothing else
// is read.
func FuzzDecode(f *testing.F) {
	for _, b := range seeds(f) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		in, err := decision.Decode(b, mallory)
		if err != nil {
			if vocab.ReasonOf(err) != vocab.ReasonLogDamaged {
				t.Fatal(err)
			}
			return
		}
		if in.Caller.Abridged != nil {
			return // what was left out cannot be written again
		}
		again, err := decision.Encode(in, mallory, nobody)
		if err != nil {
			t.Fatal(err)
		}
		back, err := decision.Decode(again, mallory)
		if err != nil || back.Caller.Abridged == nil && cmp.Diff(in, back, cmpopts.EquateEmpty()) != "" {
			t.Fatalf("%v\n%s", err, cmp.Diff(in, back))
		}
	})
}
