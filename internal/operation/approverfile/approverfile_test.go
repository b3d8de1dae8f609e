package approverfile_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/openrms/rms/internal/operation/approverfile"
	"github.com/openrms/rms/internal/vocab"
)

// Public keys made for this test alone.
const (
	anna = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAICERnv2bPnuIRF48UqwlGOVuMB/1pC8K7uwN9I4Xud4N"
	ben  = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"
)

const good = `kind: Approvers
threshold: 2
approvers:
  - who: Ben@contoso.com
    keys: ["` + ben + ` ben@laptop"]
  - {who: "user:anna@contoso.com", label: "Anna, security", keys: ["` + anna + `"]}
`

func TestParse(t *testing.T) {
	s, err := approverfile.Parse([]byte(good))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, a := range s.Approvers {
		got = append(got, a.Principal+" "+a.Label)
	}
	if diff := cmp.Diff([]string{"user:anna@contoso.com Anna, security", "user:ben@contoso.com "}, got); diff != "" || s.String() != "2 of 2" {
		t.Errorf("%s: %s", s, diff)
	}
	file, err := approverfile.Format(s)
	if err != nil {
		t.Fatal(err)
	}
	again, err := approverfile.Parse(file)
	if diff := cmp.Diff(s, again); err != nil || diff != "" {
		t.Errorf("written and read again: %v\n%s", err, diff)
	}
}

var refused = map[string]struct{ old, with, want string }{
	"nothing":            {good, "", ""},
	"another kind":       {"Approvers", "Group", "line 1"},
	"no threshold":       {"threshold: 2\n", "", "threshold"},
	"threshold in words": {"threshold: 2", "threshold: two", "line 2"},
	"a list of it":       {"threshold: 2", "threshold: [2]", "line 2"},
	"one of two":         {"threshold: 2", "threshold: 1", "must be 2 or more"},
	"three of two":       {"threshold: 2", "threshold: 3", "no quorum"},
	"no approvers":       {"approvers:", "people:", "people"},
	"nobody":             {good[strings.Index(good, "\n  - who"):], " []\n", "no quorum"},
	"no key":             {`, keys: ["` + anna + `"]`, "", "keys"},
	"no list of keys":    {`keys: ["` + anna + `"]`, `keys: "` + anna + `"`, "line 6"},
	"a key that is none": {anna, "ssh-ed25519 x", "line 6"},
	"a key twice":        {anna, ben, "a key is one person's"},
	"a person twice":     {"user:anna@", "ben@", "named twice"},
	"a group":            {"user:anna@", "group:anna@", "is not one person"},
	"no address":         {"user:anna@contoso.com", "anna", "line 6"},
	"no person":          {`who: "user:anna@contoso.com", `, "", "who"},
	"a label too long":   {"Anna, security", strings.Repeat("x", 200), "label"},
	"a label of two":     {`"Anna, security"`, "[a, b]", "line 6"},
	"a list in keys":     {`["` + anna + `"]`, "[[x]]", "line 6"},
	"unknown":            {"label:", "title:", "title"},
	"two documents":      {"threshold: 2", "---\nthreshold: 2", ""},
}

func TestWhatIsRefused(t *testing.T) {
	for name, c := range refused {
		_, err := approverfile.Parse([]byte(strings.Replace(good, c.old, c.with, 1)))
		if !errors.Is(err, vocab.ReasonConfigurationInvalid) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// FuzzParse: what is read is the same when written and read again.
func FuzzParse(f *testing.F) {
	f.Add([]byte(good))
	for _, c := range refused {
		f.Add([]byte(strings.Replace(good, c.old, c.with, 1)))
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		s, err := approverfile.Parse(file)
		if err != nil {
			if !errors.Is(err, vocab.ReasonConfigurationInvalid) {
				t.Errorf("another reason: %v", err)
			}
			return
		}
		out, err := approverfile.Format(s)
		if err != nil {
			t.Fatal(err)
		}
		again, err := approverfile.Parse(out)
		if err != nil {
			t.Fatalf("what was written cannot be read: %v", err)
		}
		if second, err := approverfile.Format(again); err != nil || !bytes.Equal(second, out) {
			t.Errorf("written twice it differs: %v", err)
		}
	})
}
