package license

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/vocab"
)

// grantsFor returns n grants for people with addresses of size bytes.
func grantsFor(n, size int) []policy.Grant {
	out := make([]policy.Grant, n)
	for i := range out {
		address := fmt.Sprintf("%05d.", i) + strings.Repeat("a", min(size-18, 58)) + "@"
		domain := "contoso.com"
		for len(address)+len(domain) < size {
			label := min(size-len(address)-len(domain)-1, 60)
			domain = strings.Repeat("b", max(label, 1)) + "." + domain
		}
		out[i] = policy.Grant{
			To:     vocab.Principal{Kind: vocab.KindUser, Value: address + domain},
			Rights: vocab.RightsOf(vocab.RightView, vocab.RightPrint, vocab.RightObjModel),
		}
	}
	return out
}

func TestLargestTemplate(t *testing.T) {
	if testing.Short() {
		t.Skip("half a minute under the race detector, and nothing here is concurrent")
	}
	w := newWorld(t)
	for _, c := range []struct {
		name   string
		grants []policy.Grant
		refuse vocab.Reason
	}{
		{name: "50,000 usual addresses", grants: grantsFor(policy.MaxTemplateGrants, 36)},
		{name: "50,000 with end, second factor and a network", grants: func() []policy.Grant {
			out := grantsFor(policy.MaxTemplateGrants, 36)
			for i := range out {
				out[i].Until, out[i].Login = now.Add(time.Hour), policy.LoginMFA
				out[i].Networks = []netip.Prefix{netip.MustParsePrefix("2001:db8:1234:5678::/64")}
			}
			return out
		}()},
		{name: "50,001", grants: grantsFor(policy.MaxTemplateGrants+1, 36), refuse: vocab.ReasonLicenseMalformed},
		{name: "50,000 of the longest addresses", grants: grantsFor(policy.MaxTemplateGrants, 250), refuse: vocab.ReasonRequestInvalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			tmpl := *w.template
			tmpl.Grants = c.grants
			signed, err := SignTemplate(t.Context(), w.daemon, w.cert, &tmpl)
			if c.refuse != "" {
				wantReason(t, err, c.refuse)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d bytes", len(signed.Raw()))
			read, err := w.verifier.VerifyTemplate(signed.Raw())
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tmpl.Grants[49_999], read.Template.Grants[49_999], cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); d != "" || len(read.Template.Grants) != len(tmpl.Grants) {
				t.Errorf("%d grants came back; the last differs: %s", len(read.Template.Grants), d)
			}
		})
	}
}

// The larger limit is one kind's alone, and no kind can borrow it: the size is
// judged by the bytes before the key ID and by the kind that is wanted, and
// nothing behind them is looked at. Everything after them here is garbage.
func TestSizeIsJudgedBeforeParsing(t *testing.T) {
	startOf := func(k Kind) []byte {
		return appendString(bytes.Clone(coseSign1), cborBytes, protectedSign1(k, KeyID{}))
	}
	sized := func(start []byte, n int) []byte { return append(slices.Clone(start), make([]byte, n-len(start))...) }
	large := sized(startOf(KindTemplate), MaxTemplateEnvelope)
	const tooLarge = "more than"
	for name, c := range map[string]struct {
		err  error
		size bool // refused for its size
	}{
		"template at the limit":               {second(ParseTemplate(large)), false},
		"template over the limit":             {second(ParseTemplate(append(large, 0))), true},
		"envelope of a template at the limit": {second(ParseEnvelope(large)), false},
		"envelope over the limit":             {second(ParseEnvelope(append(large, 0))), true},
		"publishing license at the limit":     {second(ParseEnvelope(sized(startOf(KindPL), MaxEnvelope))), false},
		"publishing license over the limit":   {second(ParseEnvelope(sized(startOf(KindPL), MaxEnvelope+1))), true},
		"two signatures over the limit":       {second(ParseEnvelope(sized(coseSign, MaxEnvelope+1))), true},
		"nothing known over the limit":        {second(ParseEnvelope(make([]byte, MaxEnvelope+1))), true},
		"template as publishing license":      {second(ParsePL(large)), true},
		"template as certificate":             {second(ParseCertificate(large)), true},
		"template as bundle":                  {second(ParseBundle(large)), true},
		"template as generation":              {second(ParseGeneration(large)), true},
		"template as use license":             {second(ParseUL(large)), true},
	} {
		wantReason(t, c.err, vocab.ReasonLicenseMalformed)
		if c.err != nil && strings.Contains(c.err.Error(), tooLarge) != c.size {
			t.Errorf("%s: %v; refused for its size: want %v", name, c.err, c.size)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// Whatever policies may say can be signed.
func TestLongestPeriods(t *testing.T) {
	w := newWorld(t)
	w.template.Expiry = policy.Expiry{Kind: policy.ExpiryAfter, After: policy.MaxPeriod}
	w.template.Offline = policy.MaxPeriod
	if _, err := SignTemplate(t.Context(), w.daemon, w.cert, w.template); err != nil {
		t.Fatal(err)
	}
	w.template.Offline++
	_, err := SignTemplate(t.Context(), w.daemon, w.cert, w.template)
	wantReason(t, err, vocab.ReasonLicenseMalformed)
}
