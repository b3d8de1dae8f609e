package container

import (
	"errors"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/text/unicode/norm"

	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/vocab"
)

var names = []struct{ in, want string }{
	{"q3.pdf", "q3.pdf"},
	{"Übersicht März 2026.pdf", "Übersicht März 2026.pdf"},
	{"Stu\u0308ck.pdf", "St\u00fcck.pdf"},
	{"漢字.docx", "漢字.docx"},
	{"../../etc/passwd", "passwd"},
	{`..\..\Windows\win.ini`, "win.ini"},
	{"/", "document"},
	{"", "document"},
	{".", "document"},
	{"..", "document"},
	{"...", "document"},
	{"a/..", "document"},
	{"   ", "document"},
	{".bashrc", "_bashrc"},
	{"-rf", "_rf"},
	{"--with=sh.pdf", "_-with=sh.pdf"},
	{"a\x00b.pdf", "ab.pdf"},
	{"a\x1b[31mb\r\n.pdf", "a[31mb.pdf"},
	{"invoice\u202efdp.exe", "invoicefdp.exe"},
	{"zero\u200bwidth\ufeff.pdf", "zerowidth.pdf"},
	{"e\u00ad\u0301.pdf", "é.pdf"},
	{"می\u200cخواهم.pdf", "می\u200cخواهم.pdf"},
	{"line\u2028break", "linebreak"},
	{"non\u00a0breaking", "non breaking"},
	{"C:autoexec.bat", "C_autoexec.bat"},
	{"report.pdf:stream", "report.pdf_stream"},
	{`a<b>c"d|e?f*g`, "a_b_c_d_e_f_g"},
	{"trailing. . ", "trailing"},
	{" leading", "leading"},
	{"CON", "_CON"},
	{"con.txt", "_con.txt"},
	{"Nul .tar.gz", "_Nul .tar.gz"},
	{"COM1.pdf", "_COM1.pdf"},
	{"lpt³", "_lpt³"},
	{"CONIN$", "_CONIN$"},
	{"COM10.pdf", "COM10.pdf"},
	{"console.log", "console.log"},
	{"\xff\xfe.pdf", "_.pdf"},
	{strings.Repeat("a", 300) + ".pdf", strings.Repeat("a", 251) + ".pdf"},
	{strings.Repeat("ä", 200) + ".pdf", strings.Repeat("ä", 125) + ".pdf"},
	{strings.Repeat("a", 254) + "." + strings.Repeat("b", 40), strings.Repeat("a", 254)},
}

func TestCleanName(t *testing.T) {
	for _, c := range names {
		if got := CleanName(c.in); got != c.want {
			t.Errorf("CleanName(%q) = %q, want %q", c.in, got, c.want)
		}
	}
}

// FuzzCleanName states what a safe name is.
func FuzzCleanName(f *testing.F) {
	for _, c := range names {
		f.Add(c.in)
	}
	f.Fuzz(func(t *testing.T, in string) {
		s := CleanName(in)
		if CleanName(s) != s {
			t.Errorf("%q: %q becomes %q", in, s, CleanName(s))
		}
		if s == "" || len(s) > 255 || !utf8.ValidString(s) || !norm.NFC.IsNormalString(s) {
			t.Errorf("%q: %q has the wrong size or form", in, s)
		}
		if strings.ContainsAny(s, `/\<>:"|?*`) || strings.HasPrefix(s, ".") || strings.HasPrefix(s, "-") ||
			strings.HasSuffix(s, ".") || strings.TrimSpace(s) != s {
			t.Errorf("%q: %q is not safe", in, s)
		}
		for _, r := range s {
			if unicode.IsControl(r) || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
				t.Errorf("%q: %q holds %U", in, s, r)
			}
		}
		if b, err := encodeMeta(Meta{Name: in, Type: in, Size: UnknownSize}); err != nil || len(b) > maxMeta-canon.BoxOverhead {
			t.Errorf("%q: not written: %d bytes, %v", in, len(b), err)
		}
	})
}

func TestCleanType(t *testing.T) {
	for in, want := range map[string]string{
		"application/pdf":           "application/pdf",
		"Text/Plain; charset=utf-8": "text/plain",
		"application/vnd.openxmlformats-officedocument.wordprocessingml.document": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
		"":                                 DefaultType,
		"pdf":                              DefaultType,
		"a/b/c":                            DefaultType,
		"text/":                            DefaultType,
		"../x":                             DefaultType,
		"text/<script>":                    DefaultType,
		"text/" + strings.Repeat("x", 128): DefaultType,
		"text/pl\nain":                     DefaultType,
	} {
		if got := cleanType(in); got != want {
			t.Errorf("cleanType(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestMeta(t *testing.T) {
	noon := time.Date(2026, 1, 2, 12, 0, 0, 0, time.FixedZone("x", 3600))
	for _, c := range []struct {
		name     string
		in, want Meta
	}{
		{"nothing known", Meta{Size: UnknownSize}, Meta{Name: "document", Type: DefaultType, Size: UnknownSize}},
		{"empty file", Meta{Name: "a"}, Meta{Name: "a", Type: DefaultType}},
		{"time in UTC, to the millisecond", Meta{Name: "a", ModTime: noon.Add(1234567)}, Meta{Name: "a", Type: DefaultType, ModTime: noon.Add(1e6).UTC()}},
		{"before 1970", Meta{Name: "a", ModTime: time.Unix(-1, 0)}, Meta{Name: "a", Type: DefaultType}},
		{"after 9999", Meta{Name: "a", ModTime: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)}, Meta{Name: "a", Type: DefaultType}},
	} {
		b, err := encodeMeta(c.in)
		if err != nil {
			t.Fatal(err)
		}
		got, err := decodeMeta(b)
		if d := cmp.Diff(c.want, got); err != nil || d != "" {
			t.Errorf("%s: %v %s", c.name, err, d)
		}
	}
}

// hostile is metadata that only somebody with the content key can have sealed.
var hostile = []struct {
	name string
	v    any
	want *Meta // nil: refused
}{
	{"path as name", metaFields{Name: "../../.ssh/authorized_keys", Type: "text/plain"}, &Meta{Name: "authorized_keys", Type: "text/plain", Size: UnknownSize}},
	{"direction override", metaFields{Name: "invoice\u202efdp.exe", Type: "x"}, &Meta{Name: "invoicefdp.exe", Type: DefaultType, Size: UnknownSize}},
	{"time beyond 9999", metaFields{Name: "a", Type: "a/b", ModTime: maxModTime + 1}, nil},
	{"size beyond the format", map[uint64]any{112: "a", 113: "a/b", 114: uint64(maxPlaintext + 1)}, nil},
	{"unknown field", map[uint64]any{112: "a", 113: "a/b", 116: uint64(1)}, nil},
	{"unknown field that may be ignored", map[uint64]any{112: "a", 113: "a/b", 0x8001: uint64(1)}, &Meta{Name: "a", Type: "a/b", Size: UnknownSize}},
	{"no type", map[uint64]any{112: "a"}, nil},
	{"name as bytes", map[uint64]any{112: []byte("a"), 113: "a/b"}, nil},
	{"a list", []string{"a"}, nil},
}

func TestHostileMeta(t *testing.T) {
	for _, c := range hostile {
		b, err := canon.Marshal(c.v)
		if err != nil {
			t.Fatal(err)
		}
		got, err := decodeMeta(b)
		if c.want == nil {
			if !errors.Is(err, vocab.ReasonContainerMalformed) {
				t.Errorf("%s: %+v, %v", c.name, got, err)
			}
			continue
		}
		if d := cmp.Diff(*c.want, got); err != nil || d != "" {
			t.Errorf("%s: %v %s", c.name, err, d)
		}
	}
	for _, b := range []string{"", "\xa2\x18\x70\x62a\n\x18\x71\x61b", "\xa0", "\xff"} {
		if _, err := decodeMeta([]byte(b)); !errors.Is(err, vocab.ReasonContainerMalformed) {
			t.Errorf("% x: %v", b, err)
		}
	}
}

// FuzzMeta reads any bytes as metadata; what is read is written again to the
// same effect.
func FuzzMeta(f *testing.F) {
	for _, c := range hostile {
		b, err := canon.Marshal(c.v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	b, err := encodeMeta(Meta{Name: "q3.pdf", Type: "application/pdf", Size: 5, ModTime: time.Unix(1, 0)})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeMeta(b)
		if err != nil {
			if !errors.Is(err, vocab.ReasonContainerMalformed) {
				t.Fatalf("error of another kind: %v", err)
			}
			return
		}
		again, err := encodeMeta(m)
		if err != nil {
			t.Fatal(err)
		}
		n, err := decodeMeta(again)
		if d := cmp.Diff(m, n); err != nil || d != "" {
			t.Fatalf("%v %s", err, d)
		}
	})
}
