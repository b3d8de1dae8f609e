package license

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/vocab"
)

// A template that waits for approval reads back as it was, but for its time,
// which signing gives it.
func TestTemplateDraftReadsBack(t *testing.T) {
	draft := &policy.Template{
		UID: vocab.NewTemplateUID(), Slug: "finance-internal", Revision: 8, Names: map[string]string{"en": "Finance", "de": "Finanzen"},
		State: policy.StateArchived, Offline: policy.OfflineMax, Contact: "help@contoso.test", Custody: vocab.CustodyStrict,
		Grants: []policy.Grant{{
			To: vocab.Principal{Kind: vocab.KindGroup, Value: "finance@contoso.test"}, Rights: vocab.RightsOf(vocab.RightView),
			Until: time.Date(2126, 1, 1, 0, 0, 0, 0, time.UTC), Login: policy.LoginMFA,
		}},
		Expiry: policy.Expiry{Kind: policy.ExpiryAfter, After: 90 * policy.Day}, Author: "alice@contoso.test", Comment: "interns",
		Select: []vocab.Principal{{Kind: vocab.KindAnyone}},
	}
	b, err := EncodeTemplate(draft)
	if err != nil {
		t.Fatal(err)
	}
	back, err := DecodeTemplate(b)
	if diff := cmp.Diff(draft, back, cmp.Comparer(func(a, b time.Time) bool { return a.Equal(b) })); diff != "" || err != nil {
		t.Errorf("%v, read back (-want +got):\n%s", err, diff)
	}
	if _, err := DecodeTemplate(append(b, 0)); !errors.Is(err, vocab.ReasonLicenseMalformed) {
		t.Errorf("a byte more: %v", err)
	}
	draft.Comment = "line\nbreak"
	if _, err := EncodeTemplate(draft); !errors.Is(err, vocab.ReasonRequestInvalid) {
		t.Errorf("a control character: %v, want REQUEST_INVALID", err)
	}
	draft.Comment = strings.Repeat("x", maxText+1)
	if _, err := EncodeTemplate(draft); err == nil {
		t.Error("a text that is too long was accepted")
	}
}
