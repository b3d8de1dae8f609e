package audit

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/vocab"
)

var testTime = time.Date(2026, 11, 22, 9, 14, 3, 412e6, time.UTC)

// fullEvent has every field of the first version.
func fullEvent() *Event {
	return &Event{
		ID: id7(1), Tenant: tenantA, Time: testTime, Kind: KindRefused,
		Method: "ProtectionService/Acquire", Reason: vocab.ReasonNoRights, Alarm: true, Parent: id7(2),
		Principal: Principal{Issuer: "https://idp.contoso.test", Subject: "a1b2", Name: "bob@contoso.test", Provider: "entra-contoso"},
		Actor:     Principal{Issuer: "x509", Subject: "spiffe://contoso.test/dms", Name: "service:dms", Provider: "mtls"},
		Peer:      "198.51.100.7", Client: "rmsctl/0.1 linux",
		Content: vocab.ContentID(id7(3)), LicenseRevision: 2, Template: vocab.TemplateUID(id7(4)), TemplateRevision: 7, Target: "settings/max_offline",
		Asked: vocab.RightsOf(vocab.RightView), Granted: vocab.RightsOf(vocab.RightView, vocab.RightPrint), NotAfter: testTime.Add(7 * 24 * time.Hour), Cached: true,
		Generation: vocab.GenerationID(id7(5)), Custodian: vocab.CustodianID(id7(6)), KeyVersion: 3, Custody: vocab.CustodyStrict,
		CustodianRequest: "5b0f1c9e-0000-4000-8000-000000000000", RecipientKey: [32]byte{0xaa, 31: 0xbb},
		Detail: "sent by mistake", Decision: []byte{0xa0},
	}
}

// breakGlassEvent has the fields that came with operations.
func breakGlassEvent() *Event {
	return &Event{
		ID: id7(1), Tenant: tenantA, Time: testTime, Kind: KindReleased,
		Operation: vocab.OperationID(id7(7)), BreakGlass: true, State: [32]byte{0xcc, 31: 0xdd},
	}
}

var (
	tenantA = vocab.TenantID(id7(0xa0))
	tenantB = vocab.TenantID(id7(0xb0))
)

// id7 makes recognisable identifiers of version 7.
func id7(n byte) vocab.EventID {
	return vocab.EventID{0x01, 0x9a, 0x8c, 0x1e, 0x77, n, 0x70, 0, 0x80, 0, 0, 0, 0, 0, 0, n}
}

// The leaf is a format: these bytes can never change.
func TestLeafVectors(t *testing.T) {
	small := &Event{ID: id7(1), Tenant: tenantA, Time: testTime, Kind: KindReleased}
	for _, c := range []struct {
		name       string
		event      *Event
		leaf, hash string
	}{
		{"smallest", small, vectorSmallLeaf, vectorSmallHash},
		{"every field", fullEvent(), vectorFullLeaf, vectorFullHash},
		{"break-glass", breakGlassEvent(), vectorBreakGlassLeaf, vectorBreakGlassHash},
	} {
		b, err := c.event.Encode()
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if got := hex.EncodeToString(b); got != c.leaf {
			t.Errorf("%s: leaf changed to\n%s", c.name, got)
		}
		h, err := c.event.LeafHash()
		if err != nil {
			t.Fatal(err)
		}
		if got := hex.EncodeToString(h[:]); got != c.hash {
			t.Errorf("%s: leaf hash changed to %s", c.name, got)
		}
		back, err := ParseEvent(b)
		if diff := cmp.Diff(c.event, back); diff != "" || err != nil {
			t.Errorf("%s: parsed back (-want +got): %v\n%s", c.name, err, diff)
		}
	}
}

func TestEncodeRefusesTheProgramsMistakes(t *testing.T) {
	for name, spoil := range map[string]func(*Event){
		"no ID":                func(e *Event) { e.ID = vocab.EventID{} },
		"random ID":            func(e *Event) { e.ID = vocab.EventID(vocab.NewRandom[struct{}]()) },
		"no tenant":            func(e *Event) { e.Tenant = vocab.TenantID{} },
		"no time":              func(e *Event) { e.Time = time.Time{} },
		"time before 1970":     func(e *Event) { e.Time = time.Unix(-1, 0) },
		"no kind":              func(e *Event) { e.Kind = 0 },
		"unknown kind":         func(e *Event) { e.Kind = 9999 },
		"two rights asked":     func(e *Event) { e.Asked = 3 },
		"unknown right asked":  func(e *Event) { e.Asked = 1 << 14 },
		"unknown right given":  func(e *Event) { e.Granted = 1 << 31 },
		"unknown custody mode": func(e *Event) { e.Custody = 9 },
		"decision too long":    func(e *Event) { e.Decision = make([]byte, MaxDecision+1) },
	} {
		e := fullEvent()
		spoil(e)
		if _, err := e.Encode(); !errors.Is(err, vocab.ReasonInternal) {
			t.Errorf("%s: %v, want INTERNAL", name, err)
		}
	}
}

// Nobody escapes the log by what he calls himself.
func TestTextsAreCleanedNotRefused(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"plain", "rmsctl/0.1", "rmsctl/0.1"},
		{"control characters", "a\x00b\nc\u0085d", "a\uFFFDb\uFFFDc\uFFFDd"},
		{"invalid UTF-8", "a\xff\xfeb", "a\uFFFDb"},
		{"not NFC", "Gru\u0308n", "Gr\u00fcn"},
		{"exactly the limit", strings.Repeat("x", maxClient), strings.Repeat("x", maxClient)},
		{"too long", strings.Repeat("x", maxClient+1), strings.Repeat("x", maxClient-3) + "…"},
		{"far too long", strings.Repeat("x", 1<<20), strings.Repeat("x", maxClient-3) + "…"},
		{"cut inside a character", strings.Repeat("x", maxClient-4) + "üüü", strings.Repeat("x", maxClient-4) + "…"},
	} {
		e := fullEvent()
		e.Client = c.in
		b, err := e.Encode()
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		back, err := ParseEvent(b)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		} else if back.Client != c.want {
			t.Errorf("%s: %q, want %q", c.name, back.Client, c.want)
		}
	}
}

func TestAnyTextIsRecorded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(rapid.String(), rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) }))
		e := fullEvent()
		for _, f := range []*string{
			&e.Method, (*string)(&e.Reason), &e.Principal.Issuer, &e.Principal.Subject, &e.Principal.Name, &e.Principal.Provider,
			&e.Peer, &e.Client, &e.Target, &e.CustodianRequest, &e.Detail,
		} {
			*f = strings.Repeat(text.Draw(t, "text"), rapid.IntRange(1, 200).Draw(t, "times"))
		}
		b, err := e.Encode()
		if err != nil {
			t.Fatal(err)
		}
		back, err := ParseEvent(b)
		if err != nil {
			t.Fatal(err)
		}
		again, err := back.Encode()
		if err != nil || !bytes.Equal(b, again) {
			t.Fatalf("parsed and encoded again it differs: %v", err)
		}
	})
}

// The largest event fits, with room for fields to come.
func TestLargestEvent(t *testing.T) {
	e := fullEvent()
	long := strings.Repeat("x", 4096)
	e.Method, e.Reason, e.Peer, e.Client, e.Target, e.CustodianRequest, e.Detail = long, vocab.Reason(long), long, long, long, long, long
	e.Principal = Principal{long, long, long, long}
	e.Actor = e.Principal
	e.Decision = make([]byte, MaxDecision)
	b, err := e.Encode()
	if err != nil || len(b) > MaxLeaf/2 {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	if _, err := ParseEvent(b); err != nil {
		t.Error(err)
	}
}

func TestParseRefuses(t *testing.T) {
	// change makes a leaf with one field set; the leaf type itself allows
	// what Encode never writes.
	change := func(fn func(*leaf)) []byte {
		b, err := fullEvent().Encode()
		if err != nil {
			t.Fatal(err)
		}
		var l leaf
		if err := canon.Unmarshal(b, &l); err != nil {
			t.Fatal(err)
		}
		fn(&l)
		b, err = canon.Marshal(&l)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	unknown, err := canon.Marshal(map[uint64]any{2: tenantA[:], 3: uint64(1), 159: uint64(1), 160: id7(1), 161: uint64(1)})
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"nothing":             nil,
		"too large":           make([]byte, MaxLeaf+1),
		"not CBOR":            []byte("event"),
		"not a map":           {0x01},
		"unknown field":       unknown,
		"short tenant":        change(func(l *leaf) { l.Tenant = l.Tenant[:15] }),
		"zero tenant":         change(func(l *leaf) { l.Tenant = make([]byte, 16) }),
		"no tenant":           change(func(l *leaf) { l.Tenant = nil }),
		"short ID":            change(func(l *leaf) { l.ID = l.ID[:8] }),
		"ID of version 4":     change(func(l *leaf) { l.ID[6] = 0x40 }),
		"long content":        change(func(l *leaf) { l.Content = make([]byte, 17) }),
		"zero generation":     change(func(l *leaf) { l.Generation = make([]byte, 16) }),
		"short template":      change(func(l *leaf) { l.Template = []byte{1} }),
		"short custodian":     change(func(l *leaf) { l.Custodian = []byte{1} }),
		"short parent":        change(func(l *leaf) { l.Parent = []byte{1} }),
		"short operation":     change(func(l *leaf) { l.Operation = []byte{1} }),
		"zero operation":      change(func(l *leaf) { l.Operation = make([]byte, 16) }),
		"short recipient key": change(func(l *leaf) { l.RecipientKey = make([]byte, 31) }),
		"time zero":           change(func(l *leaf) { l.Time = 0 }),
		"time too late":       change(func(l *leaf) { l.Time = 1 << 63 }),
		"end too late":        change(func(l *leaf) { l.NotAfter = 1 << 63 }),
		"kind zero":           change(func(l *leaf) { l.Kind = 0 }),
		"two rights asked":    change(func(l *leaf) { l.Asked = 3 }),
		"unknown right":       change(func(l *leaf) { l.Granted = 1 << 14 }),
		"unknown custody":     change(func(l *leaf) { l.Custody = 3 }),
		"unknown cache":       change(func(l *leaf) { l.Cache = 2 }),
		"unknown flag":        change(func(l *leaf) { l.Flags = 4 }),
		"decision too long":   change(func(l *leaf) { l.Decision = make([]byte, MaxDecision+1) }),
		"nobody as principal": change(func(l *leaf) { l.Principal = &leafWho{} }),
		"long method":         change(func(l *leaf) { l.Method = strings.Repeat("x", maxMethod+1) }),
		"long reason":         change(func(l *leaf) { l.Reason = strings.Repeat("x", maxReason+1) }),
		"long issuer":         change(func(l *leaf) { l.Actor.Issuer = strings.Repeat("x", maxIdentity+1) }),
		"long subject":        change(func(l *leaf) { l.Principal.Subject = strings.Repeat("x", maxIdentity+1) }),
		"long name":           change(func(l *leaf) { l.Principal.Name = strings.Repeat("x", maxName+1) }),
		"long provider":       change(func(l *leaf) { l.Principal.Provider = strings.Repeat("x", maxProvider+1) }),
		"long peer":           change(func(l *leaf) { l.Peer = strings.Repeat("x", maxPeer+1) }),
		"long client":         change(func(l *leaf) { l.Client = strings.Repeat("x", maxClient+1) }),
		"long target":         change(func(l *leaf) { l.Target = strings.Repeat("x", maxTarget+1) }),
		"long request":        change(func(l *leaf) { l.CustodianRequest = strings.Repeat("x", maxRequestID+1) }),
		"long detail":         change(func(l *leaf) { l.Detail = strings.Repeat("x", maxDetail+1) }),
	} {
		if _, err := ParseEvent(b); !errors.Is(err, vocab.ReasonLogDamaged) {
			t.Errorf("%s: %v, want LOG_DAMAGED", name, err)
		}
	}
	// A later version's kind can be read, and verified, by this one.
	e, err := ParseEvent(change(func(l *leaf) { l.Kind = 999 }))
	if err != nil || e.Kind.String() != "kind-999" {
		t.Errorf("a later kind: %v, %v", e, err)
	}
}

func TestKindNames(t *testing.T) {
	for k, name := range kindNames {
		if got, ok := ParseKind(name); !ok || got != k || k.String() != name {
			t.Errorf("%d %s: %d, %v", k, name, got, ok)
		}
	}
	if _, ok := ParseKind("kind-999"); ok {
		t.Error("an unknown kind has a name")
	}
}

func TestPrincipalOf(t *testing.T) {
	got := PrincipalOf(&vocab.Identity{Issuer: "https://idp", Subject: "1", Provider: "p", Addresses: []string{"bob@contoso.test"}})
	if diff := cmp.Diff(Principal{"https://idp", "1", "bob@contoso.test", "p"}, got); diff != "" {
		t.Error(diff)
	}
	if !PrincipalOf(nil).IsZero() {
		t.Error("nobody is somebody")
	}
}

func idBytes[K any](id vocab.ID[K]) []byte { return id[:] }

func FuzzParseEvent(f *testing.F) {
	full, err := fullEvent().Encode()
	if err != nil {
		f.Fatal(err)
	}
	small, err := (&Event{ID: id7(1), Tenant: tenantA, Time: testTime, Kind: KindReleased}).Encode()
	if err != nil {
		f.Fatal(err)
	}
	writing := fullEvent()
	writing.State = [32]byte{1}
	written, err := writing.Encode()
	if err != nil {
		f.Fatal(err)
	}
	glass, err := breakGlassEvent().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(glass)
	f.Add(full)
	f.Add(small)
	f.Add(written)
	f.Add([]byte{})
	f.Add(full[:len(full)/2])
	f.Add(append(bytes.Clone(small), 0))
	f.Add(make([]byte, MaxLeaf+1))
	f.Add(bytes.Replace(full, idBytes(id7(3)), make([]byte, 16), 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := ParseEvent(b)
		if err != nil {
			if vocab.ReasonOf(err) != vocab.ReasonLogDamaged {
				t.Errorf("reason of %v", err)
			}
			return
		}
		if !e.Kind.Known() {
			return
		}
		again, err := e.Encode()
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		if !bytes.Equal(again, b) {
			t.Fatalf("two encodings of one event:\n%x\n%x", b, again)
		}
	})
}
