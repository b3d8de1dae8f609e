package rmsctl

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// templateFrom reads a template of an answer. The uid, author and time are
// left out: files do not have them.
func templateFrom(m *rmsv1.Template) (*policy.Template, error) {
	t := &policy.Template{
		Slug: lastPart(m.GetName()), Revision: m.GetRevision(),
		Names: m.GetDisplayNames(), Descriptions: m.GetDescriptions(),
		State: policy.State(m.GetState()), Contact: m.GetContact(), Custody: vocab.CustodyMode(m.GetCustodyMode()),
		Author: m.GetAuthor(), Comment: m.GetComment(), Offline: policy.OfflineMax,
	}
	bad := func(err error) error {
		return vocab.Errorf(vocab.ReasonInternal, "template %s cannot be shown by this version", t.Slug).
			WithNext("Update this program").Because(err)
	}
	for _, g := range m.GetGrants() {
		grant, err := grantFrom(g)
		if err != nil {
			return nil, bad(err)
		}
		t.Grants = append(t.Grants, grant)
	}
	for _, s := range m.GetSelect() {
		p, err := vocab.ParsePrincipal(s)
		if err != nil {
			return nil, bad(err)
		}
		t.Select = append(t.Select, p)
	}
	if m.GetOffline() != nil {
		t.Offline = m.GetOffline().AsDuration()
	}
	switch when := m.GetExpiry().GetWhen().(type) {
	case *rmsv1.Expiry_At:
		t.Expiry = policy.Expiry{Kind: policy.ExpiryOnDate, At: when.At.AsTime()}
	case *rmsv1.Expiry_After:
		t.Expiry = policy.Expiry{Kind: policy.ExpiryAfter, After: when.After.AsDuration()}
	}
	return t, nil
}

func grantFrom(g *rmsv1.Grant) (policy.Grant, error) {
	to, err := vocab.ParsePrincipal(g.GetTo())
	if err != nil {
		return policy.Grant{}, err
	}
	out := policy.Grant{To: to, Rights: rightsOf(g.GetRights()), Login: policy.Login(g.GetLogin())}
	if g.GetUntil() != nil {
		out.Until = g.GetUntil().AsTime()
	}
	for _, s := range g.GetNetworks() {
		n, err := policy.ParseNetwork(s)
		if err != nil {
			return policy.Grant{}, err
		}
		out.Networks = append(out.Networks, n)
	}
	return out, nil
}

// changeFrom reads what an edit means for one principal.
func changeFrom(m *rmsv1.TemplateChange) (policy.Change, error) {
	to, err := vocab.ParsePrincipal(m.GetPrincipal())
	if err != nil {
		return policy.Change{}, err
	}
	c := policy.Change{To: to, Gains: rightsOf(m.GetGains()), Loses: rightsOf(m.GetLoses()), More: m.GetMore(), Less: m.GetLess()}
	for _, side := range []struct {
		from []*rmsv1.Grant
		to   *[]policy.Grant
	}{{m.GetBefore(), &c.Before}, {m.GetAfter(), &c.After}} {
		for _, g := range side.from {
			grant, err := grantFrom(g)
			if err != nil {
				return c, err
			}
			*side.to = append(*side.to, grant)
		}
	}
	return c, nil
}

// templateProto writes a template for the API, under its resource name.
func templateProto(name string, t *policy.Template) *rmsv1.Template {
	m := &rmsv1.Template{
		Name: name, DisplayNames: t.Names, Descriptions: t.Descriptions, State: rmsv1.Template_State(t.State),
		Contact: t.Contact, CustodyMode: rmsv1.CustodyMode(t.Custody), Comment: t.Comment,
	}
	for _, g := range t.Grants {
		m.Grants = append(m.Grants, grantProto(g))
	}
	for _, p := range t.Select {
		m.Select = append(m.Select, p.String())
	}
	if t.Offline >= 0 {
		m.Offline = durationpb.New(t.Offline)
	}
	switch t.Expiry.Kind {
	case policy.ExpiryNever:
	case policy.ExpiryOnDate:
		m.Expiry = &rmsv1.Expiry{When: &rmsv1.Expiry_At{At: timestamppb.New(t.Expiry.At)}}
	case policy.ExpiryAfter:
		m.Expiry = &rmsv1.Expiry{When: &rmsv1.Expiry_After{After: durationpb.New(t.Expiry.After.Truncate(time.Millisecond))}}
	}
	return m
}
