package canon_test

import (
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/vocab"
)

type inner struct {
	Name string `cbor:"1,keyasint,omitempty"`
	N    uint64 `cbor:"2,keyasint,omitempty"`
}

type object struct {
	ID    [16]byte `cbor:"1,keyasint"`
	N     uint64   `cbor:"2,keyasint,omitempty"`
	Small uint16   `cbor:"3,keyasint,omitempty"`
	Raw   []byte   `cbor:"4,keyasint,omitempty"`
	List  []inner  `cbor:"5,keyasint,omitempty"`
	Hint  string   `cbor:"32768,keyasint,omitempty"`
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

const id16 = "50 000102030405060708090a0b0c0d0e0f"

func TestUnmarshal(t *testing.T) {
	for _, c := range []struct {
		name, in string
		want     object
		err      error
	}{
		{name: "smallest", in: "a1 01 " + id16},
		{name: "all fields", in: "a6 01 " + id16 + " 02 1903e8 03 07 04 41ff 05 81 a2 01 6161 02 05 19 8000 6168",
			want: object{N: 1000, Small: 7, Raw: []byte{0xff}, List: []inner{{"a", 5}}, Hint: "h"}},
		{name: "unknown key that may be ignored", in: "a2 01 " + id16 + " 19 8001 6168"},
		{name: "and inside a list", in: "a2 01 " + id16 + " 05 81 a2 01 6161 19 9999 82 01 40",
			want: object{List: []inner{{Name: "a"}}}},
		{name: "unknown critical key", in: "a2 01 " + id16 + " 06 01", err: canon.ErrUnknownKey},
		{name: "unknown critical key inside", in: "a2 01 " + id16 + " 05 81 a1 03 01", err: canon.ErrUnknownKey},
		{name: "largest critical key", in: "a2 01 " + id16 + " 19 7fff 01", err: canon.ErrUnknownKey},
		{name: "ID one byte short", in: "a1 01 4f 000102030405060708090a0b0c0d0e", err: canon.ErrMalformed},
		{name: "ID one byte long", in: "a1 01 51 000102030405060708090a0b0c0d0e0f10", err: canon.ErrMalformed},
		{name: "ID missing", in: "a0", err: canon.ErrMalformed},
		{name: "ID as array", in: "a1 01 90 000102030405060708090a0b0c0d0e0f", err: canon.ErrMalformed},
		{name: "present although zero", in: "a2 01 " + id16 + " 02 00", err: canon.ErrMalformed},
		{name: "too large for its type", in: "a2 01 " + id16 + " 03 1a00010000", err: canon.ErrMalformed},
		{name: "number not shortest", in: "a2 01 " + id16 + " 02 1805", err: canon.ErrMalformed},
		{name: "number not shortest in 8 bytes", in: "a2 01 " + id16 + " 02 1b00000000ffffffff", err: canon.ErrMalformed},
		{name: "length not shortest", in: "a2 01 " + id16 + " 04 5801ff", err: canon.ErrMalformed},
		{name: "key twice", in: "a2 01 " + id16 + " 01 " + id16, err: canon.ErrMalformed},
		{name: "keys out of order", in: "a2 02 05 01 " + id16, err: canon.ErrMalformed},
		{name: "ignorable key twice", in: "a3 01 " + id16 + " 19 8001 01 19 8001 01", err: canon.ErrMalformed},
		{name: "negative key", in: "a2 01 " + id16 + " 20 01", err: canon.ErrMalformed},
		{name: "text key", in: "a2 01 " + id16 + " 6161 01", err: canon.ErrMalformed},
		{name: "negative number", in: "a2 01 " + id16 + " 02 20", err: canon.ErrMalformed},
		{name: "float", in: "a2 01 " + id16 + " 02 f93c00", err: canon.ErrMalformed},
		{name: "null", in: "a2 01 " + id16 + " 04 f6", err: canon.ErrMalformed},
		{name: "boolean", in: "a2 01 " + id16 + " 02 f5", err: canon.ErrMalformed},
		{name: "tag", in: "a2 01 " + id16 + " 02 c101", err: canon.ErrMalformed},
		{name: "bignum", in: "a2 01 " + id16 + " 02 c24105", err: canon.ErrMalformed},
		{name: "indefinite map", in: "bf 01 " + id16 + " ff", err: canon.ErrMalformed},
		{name: "indefinite string", in: "a2 01 " + id16 + " 04 5f41ffff", err: canon.ErrMalformed},
		{name: "text that is not UTF-8", in: "a2 01 " + id16 + " 19 8000 61ff", err: canon.ErrMalformed},
		{name: "text that is not NFC", in: "a2 01 " + id16 + " 19 8000 63 65cc81", err: canon.ErrMalformed},
		{name: "newline in text", in: "a2 01 " + id16 + " 19 8000 610a", err: canon.ErrMalformed},
		{name: "C1 control in text", in: "a2 01 " + id16 + " 19 8000 62c285", err: canon.ErrMalformed},
		{name: "bad text in an ignorable field", in: "a2 01 " + id16 + " 19 8001 61ff", err: canon.ErrMalformed},
		{name: "cut in a string", in: "a1 01 50 0001", err: canon.ErrMalformed},
		{name: "cut in a number", in: "a2 01 " + id16 + " 02 19 03", err: canon.ErrMalformed},
		{name: "cut in a map", in: "a2 01 " + id16, err: canon.ErrMalformed},
		{name: "huge count", in: "bb ffffffffffffffff", err: canon.ErrMalformed},
		{name: "huge string", in: "a1 01 5b ffffffffffffffff", err: canon.ErrMalformed},
		{name: "bytes after the end", in: "a1 01 " + id16 + " 00", err: canon.ErrMalformed},
		{name: "five deep", in: "a2 01 " + id16 + " 19 8001 81 81 81 81 01", err: canon.ErrMalformed},
		{name: "empty", in: "", err: canon.ErrMalformed},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got object
			err := canon.Unmarshal(unhex(t, c.in), &got)
			if !errors.Is(err, c.err) || (err == nil) != (c.err == nil) {
				t.Fatalf("error %v, want %v", err, c.err)
			}
			if c.err != nil {
				return
			}
			copy(c.want.ID[:], unhex(t, "000102030405060708090a0b0c0d0e0f"))
			if d := cmp.Diff(c.want, got); d != "" {
				t.Fatal(d)
			}
		})
	}
}

func TestUnmarshalTooLarge(t *testing.T) {
	var v []byte
	if err := canon.Unmarshal(append([]byte{0x5a, 0, 0x80, 0, 0}, make([]byte, canon.MaxSize)...), &v); !errors.Is(err, canon.ErrMalformed) {
		t.Fatalf("error %v, want ErrMalformed", err)
	}
}

func TestMarshalRefuses(t *testing.T) {
	for name, v := range map[string]any{
		"negative number": -1,
		"float":           1.5,
		"boolean":         true,
		"null":            nil,
		"text key":        map[string]uint64{"a": 1},
		"control":         "a\x00b",
		"not NFC":         "e\u0301",
		"not UTF-8":       "\xff",
		"too deep":        [][][][][]uint64{{{{{1}}}}},
		"channel":         make(chan int),
	} {
		if b, err := canon.Marshal(v); !errors.Is(err, canon.ErrMalformed) {
			t.Errorf("%s: Marshal = %x, %v, want ErrMalformed", name, b, err)
		}
	}
}

func TestMarshalNilSliceIsEmpty(t *testing.T) {
	b, err := canon.Marshal([][]byte{nil, {}})
	if err != nil || hex.EncodeToString(b) != "824040" {
		t.Fatalf("Marshal = %x, %v", b, err)
	}
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := object{
			N:     rapid.Uint64().Draw(t, "n"),
			Small: rapid.Uint16().Draw(t, "small"),
			Raw:   rapid.SliceOf(rapid.Byte()).Draw(t, "raw"),
			Hint:  rapid.StringMatching(`[a-zé漢]{0,9}`).Draw(t, "hint"),
		}
		if len(in.Raw) == 0 {
			in.Raw = nil
		}
		b, err := canon.Marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		var out object
		if err := canon.Unmarshal(b, &out); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(in, out); d != "" {
			t.Fatal(d)
		}
		// One value, one encoding: no changed byte reads as the same value.
		i := rapid.IntRange(0, len(b)-1).Draw(t, "i")
		b[i] ^= byte(rapid.IntRange(1, 255).Draw(t, "x"))
		var bent object
		if canon.Unmarshal(b, &bent) == nil && cmp.Equal(in, bent) && bent.Hint != "" {
			t.Fatalf("%x reads as the same value", b)
		}
	})
}

func TestD(t *testing.T) {
	got := canon.D("l", canon.Fields{24: uint8(1), 2: vocab.TenantID{1}, 300: "x"})
	want := unhex(t, "82 616c a3 02 50 01000000000000000000000000000000 18 18 01 19 012c 6178")
	if d := cmp.Diff(want, got); d != "" {
		t.Fatal(d)
	}
	if got := canon.D("l", nil); hex.EncodeToString(got) != "82616ca0" {
		t.Fatalf("D without fields = %x", got)
	}
	defer func() {
		if recover() == nil {
			t.Error("D took a value it has no form for")
		}
	}()
	canon.D("l", canon.Fields{1: make(chan int)})
}

func TestPrincipalIDKeepsPartsApart(t *testing.T) {
	a := canon.PrincipalID("https://idp.example", "bob")
	for _, c := range [][2]string{{"https://idp.exampleb", "ob"}, {"bob", "https://idp.example"}, {"https://idp.example", "Bob"}, {"", ""}} {
		if canon.PrincipalID(c[0], c[1]) == a {
			t.Errorf("PrincipalID(%q) equals another's", c)
		}
	}
}

// TestKDF compares with values made by Python's hmac module from RFC 5869.
func TestKDF(t *testing.T) {
	ikm := vocab.SecretFrom([]byte("0123456789abcdef0123456789abcdef")) // a test value
	empty, salted := canon.KDF(ikm, nil, []byte("info")), canon.KDF(ikm, []byte("salt"), []byte("info"))
	if hex.EncodeToString(empty.Reveal()) != kdfEmptySalt || hex.EncodeToString(salted.Reveal()) != kdfSalted {
		t.Fatalf("KDF = %x and %x", empty.Reveal(), salted.Reveal())
	}
}

func TestBox(t *testing.T) {
	key, other := vocab.NewSecret(), vocab.NewSecret()
	box := canon.Seal(key, []byte("aad"), []byte("plain"))
	if len(box) != 5+canon.BoxOverhead {
		t.Fatalf("box of %d bytes", len(box))
	}
	if got, err := canon.Open(key, []byte("aad"), box); err != nil || string(got) != "plain" {
		t.Fatalf("Open = %q, %v", got, err)
	}
	if _, err := canon.Open(other, []byte("aad"), box); !errors.Is(err, canon.ErrBox) {
		t.Errorf("another key: %v", err)
	}
	if _, err := canon.Open(key, []byte("aae"), box); !errors.Is(err, canon.ErrBox) {
		t.Errorf("other associated data: %v", err)
	}
	for i := range box {
		bent := append([]byte(nil), box...)
		bent[i] ^= 1
		if _, err := canon.Open(key, []byte("aad"), bent); !errors.Is(err, canon.ErrBox) {
			t.Errorf("byte %d changed: %v", i, err)
		}
		if _, err := canon.Open(key, []byte("aad"), box[:i]); !errors.Is(err, canon.ErrBox) {
			t.Errorf("cut to %d: %v", i, err)
		}
	}
}

func FuzzUnmarshal(f *testing.F) {
	for _, s := range []string{
		"a1 01 " + id16,
		"a6 01 " + id16 + " 02 1903e8 03 07 04 41ff 05 81 a2 01 6161 02 05 19 8000 6168",
		"a2 01 " + id16 + " 05 81 a2 01 6161 19 9999 82 01 40",
		"a2 01 " + id16 + " 06 01", "a1 01 4f 000102030405060708090a0b0c0d0e", "a2 01 " + id16 + " 03 1a00010000",
		"a2 01 " + id16 + " 02 1805", "a2 01 " + id16 + " 01 " + id16, "a2 01 " + id16 + " 20 01", "a2 01 " + id16 + " 02 20",
		"a2 01 " + id16 + " 02 f93c00", "a2 01 " + id16 + " 02 c101", "bf 01 " + id16 + " ff", "a2 01 " + id16 + " 19 8000 61ff",
		"a2 01 " + id16 + " 19 8000 63 65cc81", "a2 01 " + id16 + " 19 8000 610a", "a1 01 50 0001", "a2 01 " + id16 + " 02 19 03",
		"bb ffffffffffffffff", "a1 01 5b ffffffffffffffff", "a1 01 " + id16 + " 00", "81 81 81 81 81 01", "a2 01 " + id16 + " 1a 00100000 1b 0000000100000000", "",
	} {
		f.Add(unhex(f, s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var v object
		if err := canon.Unmarshal(b, &v); err != nil {
			if !errors.Is(err, canon.ErrMalformed) && !errors.Is(err, canon.ErrUnknownKey) {
				t.Fatalf("error of another kind: %v", err)
			}
			return
		}
		again, err := canon.Marshal(v)
		if err != nil {
			t.Fatalf("read but not written: %v", err)
		}
		if len(again) > len(b) {
			t.Fatalf("%x became longer: %x", b, again)
		}
		var w object
		if err := canon.Unmarshal(again, &w); err != nil || !cmp.Equal(v, w) {
			t.Fatalf("second reading differs: %v", err)
		}
	})
}

const (
	kdfEmptySalt = "5bb09b1abf4ce30afffc4949faf44173c196fde749fc2c77e48d47bd1a506904"
	kdfSalted    = "28fca426041dba05582c710bd1c002af9bad4f4dac95d0306938649ae096b466"
)
