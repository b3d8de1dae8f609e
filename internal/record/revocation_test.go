package record

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/vocab"
)

func TestRevocationRuleReadsBack(t *testing.T) {
	group := vocab.Principal{Kind: vocab.KindGroup, Value: "finance@contoso.test"}
	for name, r := range map[string]RevocationRule{
		"all of it": {
			Rule: policy.RevocationRule{
				Principal: group, Owner: user(t, "bob"), Template: vocab.TemplateUID{1}, From: start, Until: start.Add(time.Millisecond), Lineage: cachedOne,
			},
			By: "alice@contoso.test", Reason: "leaked", ByOwner: true,
		},
		"one condition": {Rule: policy.RevocationRule{Until: start}, By: "alice@contoso.test", Reason: "leaked"},
	} {
		b, err := r.Encode()
		if err != nil {
			t.Fatal(err)
		}
		back, err := DecodeRevocationRule(b)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(&r, back); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// A rule of which a condition is lost or bent would be another rule.
func TestRevocationRuleIsReadWholeOrNotAtAll(t *testing.T) {
	uid := make([]byte, 16)
	uid[0] = 1
	for name, f := range map[string]revocationForm{
		"no condition":           {Reason: "x"},
		"a principal of no kind": {Principal: "robot:bob", Template: uid},
		"everybody":              {Principal: "anyone"},
		"an owner that owns not": {Owner: "group:finance@contoso.test"},
		"a short template":       {Template: uid[:15]},
		"a long template":        {Template: append(uid[:16:16], 0)},
		"a template of zeroes":   {Template: make([]byte, 16), From: 1},
		"a short lineage":        {Lineage: uid[:15], From: 1},
		"a period that ends":     {From: 2, Until: 2},
		"made by two":            {Template: uid, ByOwner: 2},
	} {
		b, err := encodeBody(&f)
		if err != nil {
			t.Fatal(err)
		}
		if r, err := DecodeRevocationRule(b); err == nil {
			t.Errorf("%s was read as %+v", name, r)
		} else {
			reasonOf(t, err, vocab.ReasonStoreDamaged)
		}
	}
	s := &Resource{Name: PrefixRevocations + vocab.NewEventID().String(), Revision: 1, Body: []byte{0xa0}}
	reasonOf(t, s.check(), vocab.ReasonStoreDamaged)
}

func TestNextUsed(t *testing.T) {
	tx := memory()
	first, second, third := vocab.ContentID{0: 1}, vocab.ContentID{0: 1, 15: 1}, vocab.ContentID{0: 2}
	for i, c := range []vocab.ContentID{first, second, second, third} {
		if err := PutUse(tx, tenantA, c, vocab.EventID{byte(i + 1)}, Use{Principal: "bob", NotAfter: start}); err != nil {
			t.Fatal(err)
		}
	}
	if err := PutUse(tx, tenantB, vocab.ContentID{0: 9}, vocab.EventID{9}, Use{Principal: "bob", NotAfter: start}); err != nil {
		t.Fatal(err)
	}
	var got []vocab.ContentID
	for c := (vocab.ContentID{}); ; {
		next, err := NextUsed(tx, tenantA, c)
		if err != nil {
			t.Fatal(err)
		}
		if next.IsZero() {
			break
		}
		got, c = append(got, next), next
	}
	if diff := cmp.Diff([]vocab.ContentID{third, second, first}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
