package server

import (
	"net/netip"
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/tenant"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// Translation between the contract's messages and the domain's types. It
// refuses what has no meaning; what has one is judged by package policy.

func invalid(format string, args ...any) error {
	return vocab.Errorf(vocab.ReasonRequestInvalid, format, args...)
}

// The contract's numbers of rights are the domain's plus one.

func rightOf(r rmsv1.Right) vocab.Right { return vocab.Right(r - 1) }

func protoRight(r vocab.Right) rmsv1.Right { return rmsv1.Right(r) + 1 }

func protoRights(s vocab.Rights) []rmsv1.Right {
	var out []rmsv1.Right
	for _, r := range s.List() {
		out = append(out, protoRight(r))
	}
	return out
}

func rightsOf(rs []rmsv1.Right) vocab.Rights {
	var s vocab.Rights
	for _, r := range rs {
		s |= vocab.RightsOf(rightOf(r))
	}
	return s
}

// timeOf reads an instant, to the millisecond; unset is the zero time.
func timeOf(t *timestamppb.Timestamp) (time.Time, error) {
	if t == nil {
		return time.Time{}, nil
	}
	if err := t.CheckValid(); err != nil {
		return time.Time{}, invalid("a time is not valid")
	}
	return t.AsTime().Truncate(time.Millisecond), nil
}

func protoTime(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func durationOf(d *durationpb.Duration) (time.Duration, error) {
	if err := d.CheckValid(); err != nil || d.AsDuration() < 0 {
		return 0, invalid("a duration is not valid")
	}
	return d.AsDuration(), nil
}

// offlineOf reads an offline period: unset is the tenant's maximum.
func offlineOf(d *durationpb.Duration) (time.Duration, error) {
	if d == nil {
		return policy.OfflineMax, nil
	}
	return durationOf(d)
}

func protoOffline(d time.Duration) *durationpb.Duration {
	if d < 0 {
		return nil
	}
	return durationpb.New(d)
}

func principalsOf(in []string) ([]vocab.Principal, error) {
	var out []vocab.Principal
	for _, s := range in {
		p, err := vocab.ParsePrincipal(s)
		if err != nil {
			return nil, invalid("%s", err)
		}
		out = append(out, p)
	}
	return out, nil
}

func protoPrincipals(in []vocab.Principal) []string {
	var out []string
	for _, p := range in {
		out = append(out, p.String())
	}
	return out
}

func custodyOf(m rmsv1.CustodyMode) vocab.CustodyMode { return vocab.CustodyMode(m) }

func protoCustody(m vocab.CustodyMode) rmsv1.CustodyMode { return rmsv1.CustodyMode(m) }

func grantsOf(in []*rmsv1.Grant) ([]policy.Grant, error) {
	var out []policy.Grant
	for _, g := range in {
		to, err := vocab.ParsePrincipal(g.GetTo())
		if err != nil {
			return nil, invalid("%s", err)
		}
		until, err := timeOf(g.GetUntil())
		if err != nil {
			return nil, err
		}
		grant := policy.Grant{To: to, Rights: rightsOf(g.GetRights()), Until: until, Login: policy.Login(g.GetLogin())}
		for _, n := range g.GetNetworks() {
			prefix, err := netip.ParsePrefix(n)
			if err != nil {
				return nil, invalid("%q is not a network like 10.20.0.0/16", n)
			}
			grant.Networks = append(grant.Networks, prefix)
		}
		out = append(out, grant)
	}
	return out, nil
}

func protoGrants(in []policy.Grant) []*rmsv1.Grant {
	var out []*rmsv1.Grant
	for _, g := range in {
		p := &rmsv1.Grant{To: g.To.String(), Rights: protoRights(g.Rights), Until: protoTime(g.Until), Login: rmsv1.Login(g.Login)}
		for _, n := range g.Networks {
			p.Networks = append(p.Networks, n.String())
		}
		out = append(out, p)
	}
	return out
}

func adHocOf(in *rmsv1.AdHocPolicy) (*policy.AdHoc, error) {
	offline, err := offlineOf(in.GetOffline())
	if err != nil {
		return nil, err
	}
	a := &policy.AdHoc{Kind: policy.AdHocKind(in.GetKind()), Offline: offline}
	if a.Kind == policy.AdHocGrants {
		if len(in.GetRecipients()) > 0 {
			return nil, invalid("recipients go with DO_NOT_FORWARD and ENCRYPT_ONLY; name grants")
		}
		a.Grants, err = grantsOf(in.GetGrants())
		return a, err
	}
	if len(in.GetGrants()) > 0 {
		return nil, invalid("DO_NOT_FORWARD and ENCRYPT_ONLY make their grants from the recipients; name those")
	}
	recipients, err := principalsOf(in.GetRecipients())
	if err != nil {
		return nil, err
	}
	a.Grants = policy.RecipientGrants(a.Kind, recipients)
	return a, nil
}

func protoAdHoc(a *policy.AdHoc) *rmsv1.AdHocPolicy {
	out := &rmsv1.AdHocPolicy{Kind: rmsv1.AdHocPolicy_Kind(a.Kind), Grants: protoGrants(a.Grants), Offline: protoOffline(a.Offline)}
	if a.Kind != policy.AdHocGrants {
		for _, g := range a.Grants {
			out.Recipients = append(out.Recipients, g.To.String())
		}
	}
	return out
}

func protoIssuer(i policy.Issuer) *rmsv1.Issuer {
	return &rmsv1.Issuer{Issuer: i.Issuer, Subject: i.Subject, Address: i.Address}
}

func protoLicense(t string, v *tenant.LicenseView) *rmsv1.License {
	l, p := v.Record, v.Policy
	id := l.Content.String()
	out := &rmsv1.License{
		Name: resourceName(t, "licenses", id), ContentId: id, Owner: p.Owner.String(), Issuer: protoIssuer(p.Issuer),
		Title: l.Title, Contact: l.Contact, CreateTime: protoTime(l.Issued.Time()), UpdateTime: protoTime(l.Updated.Time()),
		ExpireTime: protoTime(p.NotAfter), State: rmsv1.License_STATE_ACTIVE, CustodyMode: protoCustody(l.Custody()),
		Generation: l.Generation.String(), Revision: l.Revision, Etag: etag(l.Revision),
	}
	for _, parent := range p.Parents {
		out.Parents = append(out.Parents, resourceName(t, "licenses", parent.String()))
	}
	if p.AdHoc != nil {
		out.Policy = &rmsv1.License_AdHoc{AdHoc: protoAdHoc(p.AdHoc)}
	} else {
		out.Policy = &rmsv1.License_Template{Template: resourceName(t, "templates", v.TemplateSlug)}
	}
	if r := l.Revoked; r != nil {
		out.State = rmsv1.License_STATE_REVOKED
		out.Revocation = &rmsv1.Revocation{RevokeTime: protoTime(r.At.Time()), RevokedBy: r.By, Reason: r.Reason}
	}
	for _, rule := range v.Rules {
		out.State = rmsv1.License_STATE_REVOKED
		out.Revocations = append(out.Revocations, revocationName(t, rule))
	}
	return out
}

func templateOf(in *rmsv1.Template) (*policy.Template, error) {
	offline, err := offlineOf(in.GetOffline())
	if err != nil {
		return nil, err
	}
	t := &policy.Template{
		Names: in.GetDisplayNames(), Descriptions: in.GetDescriptions(), State: policy.State(in.GetState()),
		Offline: offline, Contact: in.GetContact(), Custody: custodyOf(in.GetCustodyMode()), Comment: in.GetComment(),
	}
	if t.State == 0 {
		t.State = policy.StatePublished
	}
	if t.State == policy.StateDeleted {
		return nil, invalid("a template is deleted with DeleteTemplate")
	}
	if t.Grants, err = grantsOf(in.GetGrants()); err != nil {
		return nil, err
	}
	if t.Select, err = principalsOf(in.GetSelect()); err != nil {
		return nil, err
	}
	switch when := in.GetExpiry().GetWhen().(type) {
	case *rmsv1.Expiry_At:
		t.Expiry.Kind = policy.ExpiryOnDate
		t.Expiry.At, err = timeOf(when.At)
	case *rmsv1.Expiry_After:
		t.Expiry.Kind = policy.ExpiryAfter
		t.Expiry.After, err = durationOf(when.After)
	}
	return t, err
}

func protoTemplate(tenantID string, t *policy.Template) *rmsv1.Template {
	out := &rmsv1.Template{
		Name: resourceName(tenantID, "templates", t.Slug), Uid: t.UID.String(), Revision: t.Revision,
		DisplayNames: t.Names, Descriptions: t.Descriptions, State: rmsv1.Template_State(t.State),
		Grants: protoGrants(t.Grants), Offline: protoOffline(t.Offline), Select: protoPrincipals(t.Select),
		Contact: t.Contact, CustodyMode: protoCustody(t.Custody), Author: t.Author, Comment: t.Comment,
		ReviseTime: protoTime(t.Time), Etag: etag(t.Revision),
	}
	switch t.Expiry.Kind {
	case policy.ExpiryOnDate:
		out.Expiry = &rmsv1.Expiry{When: &rmsv1.Expiry_At{At: protoTime(t.Expiry.At)}}
	case policy.ExpiryAfter:
		out.Expiry = &rmsv1.Expiry{When: &rmsv1.Expiry_After{After: durationpb.New(t.Expiry.After)}}
	case policy.ExpiryNever:
	}
	return out
}

func protoSettings(tenantID string, s record.Settings) *rmsv1.Settings {
	out := &rmsv1.Settings{
		Name: tenantName(tenantID) + "/settings", OfflineMax: durationpb.New(s.MaxOffline), IssuerOpensRevoked: s.IssuerOpensRevoked,
		GuestDomains: s.GuestDomains, Publishers: protoPrincipals(s.Publishers), ClearKeys: rmsv1.Settings_ClearKeys(s.ClearKeys) + 1,
		CustodyMode: protoCustody(s.Custody), CacheTtl: durationpb.New(s.CacheTTL), OutageGrace: durationpb.New(s.OutageGrace),
		AllowX25519: s.AllowX25519, Etag: etag(s.Revision),
	}
	if s.TokenAgeMax > 0 {
		out.TokenAgeMax = durationpb.New(s.TokenAgeMax)
	}
	return out
}

// etag is a revision as the contract shows it.
func etag(revision uint32) string { return strconv.FormatUint(uint64(revision), 10) }

// revisionOf reads an etag; any is true for "*".
func revisionOf(etag string) (revision uint32, any bool, err error) {
	if etag == "*" {
		return 0, true, nil
	}
	n, err := strconv.ParseUint(etag, 10, 32)
	if err != nil {
		return 0, false, invalid("an etag is required: that of the resource you read, or * to overwrite whatever is there")
	}
	return uint32(n), false, nil
}
