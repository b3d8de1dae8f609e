package server

import (
	"context"
	"encoding/binary"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/tenant"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

func (p *policies) ExplainEvent(ctx context.Context, req *rmsv1.ExplainEventRequest) (*rmsv1.ExplainEventResponse, error) {
	c := callOf(ctx)
	id, err := eventIDOf(c, req.GetName())
	if err != nil {
		return nil, err
	}
	l, err := p.listing(c, req, req.GetAll(), req.GetPageSize())
	if err != nil {
		return nil, err
	}
	x, err := c.tenant.ExplainEvent(ctx, id, l)
	if err != nil {
		return nil, err
	}
	out := &rmsv1.ExplainEventResponse{Event: p.s.protoEvent(ctx, c, *x.Event), Explanation: protoExplanation(c.tenant.Name(), x)}
	if e := x.Event.Event; x.Question == 0 && (e.Reason == vocab.ReasonRoleRequired || e.Reason == vocab.ReasonNoRights) {
		out.Explanation.Roles = p.s.rolesFor(e.Method)
	}
	out.Grants, out.NextPageToken = p.grants(c, req, x)
	return out, nil
}

func (p *policies) EvaluateAccess(ctx context.Context, req *rmsv1.EvaluateAccessRequest) (*rmsv1.EvaluateAccessResponse, error) {
	c := callOf(ctx)
	q := tenant.AccessQuestion{Right: vocab.RightView, WithoutDirectory: req.GetCaller().GetWithoutDirectory()}
	var err error
	if q.Who, err = supposedOf(req.GetCaller()); err != nil {
		return nil, err
	}
	if req.GetRight() != rmsv1.Right_RIGHT_UNSPECIFIED {
		q.Right = rightOf(req.GetRight())
	}
	if q.At, err = timeOf(req.GetTime()); err != nil {
		return nil, err
	}
	switch d := req.GetDocument().(type) {
	case *rmsv1.EvaluateAccessRequest_License:
		q.Content, err = contentIDOf(c.tenant.Name(), d.License)
	case *rmsv1.EvaluateAccessRequest_Template:
		q.Template, err = p.slug(c, d.Template)
	}
	if err != nil {
		return nil, err
	}
	l, err := p.listing(c, req, req.GetAll(), req.GetPageSize())
	if err != nil {
		return nil, err
	}
	x, err := c.tenant.EvaluateAccess(ctx, q, l)
	if err != nil {
		return nil, err
	}
	out := &rmsv1.EvaluateAccessResponse{Explanation: protoExplanation(c.tenant.Name(), x)}
	out.Grants, out.NextPageToken = p.grants(c, req, x)
	return out, nil
}

// supposedOf reads a caller who did not ask.
func supposedOf(in *rmsv1.SupposedCaller) (s policy.Supposed, err error) {
	if s.Who, err = vocab.ParsePrincipal(in.GetPrincipal()); err != nil {
		return s, invalid("%s", err)
	}
	for _, g := range in.GetGroups() {
		address, err := vocab.CanonicalAddress(strings.TrimPrefix(g, "group:"))
		if err != nil {
			return s, invalid("groups: %s", err)
		}
		s.Groups = append(s.Groups, address)
	}
	if s.MFA, s.Peer = in.GetMfa(), in.GetPeer(); s.Peer != "" && !policy.ValidPeer(s.Peer) {
		return s, invalid("peer: %q is not a network address", s.Peer)
	}
	return s, nil
}

// listing reads which grants of a policy are wanted.
func (p *policies) listing(c *call, req interface {
	proto.Message
	GetPageToken() string
}, all bool, size int32,
) (policy.Listing, error) {
	cursor, err := p.s.pages.cursor(c, req)
	if err != nil {
		return policy.Listing{}, err
	}
	l := policy.Listing{All: all, Limit: pageSize(size)}
	if len(cursor) == 4 {
		l.From = int(binary.BigEndian.Uint32(cursor))
	}
	return l, nil
}

// grants is a page of the policy's grants, which ends before it is too large for
// an answer, and the token that leads to the next one.
func (p *policies) grants(c *call, req interface {
	proto.Message
	GetAll() bool
}, x *tenant.Explanation,
) (out []*rmsv1.Explanation_ListedGrant, token string) {
	if x.Opening == nil {
		return nil, ""
	}
	for _, g := range x.Opening.Grants {
		out = append(out, &rmsv1.Explanation_ListedGrant{
			Index: int32(g.Index), Grant: protoGrants([]policy.Grant{g.Grant})[0], Named: g.Named, Near: g.Near,
			Ended: g.Ended, NeedsLogin: g.NeedsLogin, NeedsNetwork: g.NeedsNetwork,
		})
	}
	next := x.Opening.NextGrant
	if n := fitting(out); n < len(out) {
		if req.GetAll() {
			next = x.Opening.Grants[n].Index
		}
		out = out[:n]
	}
	if next == 0 {
		return out, ""
	}
	return out, p.s.pages.next(c, req, binary.BigEndian.AppendUint32(nil, uint32(next)))
}

// rolesFor returns the roles of which a method wants one.
func (s *Server) rolesFor(method string) []rmsv1.Role {
	if a := s.access["/rms.v1."+method]; a != nil {
		return a.GetRoles()
	}
	return nil
}

// Cursors of ListAccess begin with what they go on with.
const (
	cursorTemplates = 't' // after this slug
	cursorLicenses  = 'l' // before this content ID; from the newest if there is none
)

func (p *policies) ListAccess(ctx context.Context, req *rmsv1.ListAccessRequest) (*rmsv1.ListAccessResponse, error) {
	c := callOf(ctx)
	who, err := supposedOf(req.GetCaller())
	if err != nil {
		return nil, err
	}
	cursor, err := p.s.pages.cursor(c, req)
	if err != nil {
		return nil, err
	}
	var from tenant.AccessCursor
	if len(cursor) > 0 && cursor[0] == cursorTemplates {
		from.Slug = string(cursor[1:])
	} else if len(cursor) > 0 {
		from.Licenses = true
		copy(from.Content[:], cursor[1:])
	}
	at, err := timeOf(req.GetTime())
	if err != nil {
		return nil, err
	}
	page, next, assumed, err := c.tenant.ListAccess(ctx, who, req.GetCaller().GetWithoutDirectory(), at, from, pageSize(req.GetPageSize()))
	if err != nil {
		return nil, err
	}
	out := &rmsv1.ListAccessResponse{Suppositions: protoSuppositions(assumed)}
	for _, a := range page {
		out.Access = append(out.Access, protoAccess(c.tenant.Name(), a))
	}
	if n := fitting(out.Access); n < len(out.Access) {
		out.Access, next = out.Access[:n], cursorAfter(page[n-1])
	}
	switch {
	case next.IsZero():
		return out, nil
	case !next.Licenses:
		cursor = append([]byte{cursorTemplates}, next.Slug...)
	case next.Content.IsZero():
		cursor = []byte{cursorLicenses}
	default:
		cursor = append([]byte{cursorLicenses}, next.Content[:]...)
	}
	out.NextPageToken = p.s.pages.next(c, req, cursor)
	return out, nil
}

// cursorAfter leads to what follows an entry.
func cursorAfter(a tenant.Access) tenant.AccessCursor {
	if a.Template != nil {
		return tenant.AccessCursor{Slug: a.Template.Slug}
	}
	return tenant.AccessCursor{Licenses: true, Content: a.License.Record.Content}
}

func protoAccess(t string, a tenant.Access) *rmsv1.AccessEntry {
	out := &rmsv1.AccessEntry{
		FollowerCount: a.Followers, Rights: protoRights(a.Decision.Rights), Reason: string(a.Decision.Reason), ExpireTime: protoTime(a.Decision.NotAfter),
	}
	if a.Template != nil {
		out.Document = &rmsv1.AccessEntry_Template{Template: resourceName(t, "templates", a.Template.Slug)}
	} else {
		out.Document = &rmsv1.AccessEntry_License{License: protoLicense(t, a.License)}
	}
	return out
}

// protoExplanation shows an explanation.
func protoExplanation(t string, x *tenant.Explanation) *rmsv1.Explanation {
	out := &rmsv1.Explanation{
		Question: rmsv1.Explanation_Question(x.Question), LicenseRevision: x.Revision, SettingsRevision: x.Settings, Abridged: x.Abridged, OtherRules: x.OtherRules,
		Contradiction: x.Contradiction, Suppositions: protoSuppositions(x.Supposed), Key: protoKeyFact(x.Key),
	}
	if !x.Content.IsZero() {
		out.License = resourceName(t, "licenses", x.Content.String())
	}
	switch {
	case x.Template != nil:
		out.Template, out.TemplateRevision = resourceName(t, "templates", x.Template.Slug), x.Template.Revision
	case x.NoTemplate != "":
		out.Template = resourceName(t, "templates", x.NoTemplate)
	}
	if !x.Alarm.IsZero() {
		out.Alarm = resourceName(t, "events", x.Alarm.String())
	}
	if p := x.Policy; p != nil {
		out.ContentExpireTime = protoTime(p.NotAfter)
		if p.AdHoc != nil {
			out.AdHocKind = rmsv1.AdHocPolicy_Kind(p.AdHoc.Kind)
		}
		if !p.Owner.IsZero() {
			out.Owner, out.Issuer = p.Owner.String(), protoIssuer(p.Issuer)
		}
	}
	if x.Caller != nil {
		out.KnownAs = protoKnownAs(x)
	}
	if x.Event != nil {
		out.Time = protoTime(x.Event.Event.Time)
	}
	switch {
	case x.Opening != nil:
		opening(t, out, x.Opening)
	case x.Publishing != nil:
		publishing(t, out, x.Publishing)
	case len(x.Delivery) > 0:
		out.Checks, out.Allowed = protoChecks(x.Delivery), policy.AllPassed(x.Delivery)
		if !out.Allowed {
			out.Reason = string(vocab.ReasonClearKeyNotAllowed)
		}
	}
	for _, r := range x.Revocations {
		out.Revocations = append(out.Revocations, &rmsv1.Explanation_RevocationInForce{
			Scopes: protoScopes(r.Scope), Event: resourceName(t, "events", r.Event.String()),
			Revocation: &rmsv1.Revocation{RevokeTime: protoTime(r.At), RevokedBy: r.By, Reason: r.Reason},
		})
	}
	if x.Key != nil && !x.Key.Usable() && (out.Allowed || len(out.Remedies) > 0) {
		out.Remedies = append(out.Remedies, &rmsv1.Explanation_Remedy{Kind: rmsv1.Explanation_Remedy_KIND_RESUME_KEY})
	}
	return out
}

func protoKnownAs(x *tenant.Explanation) *rmsv1.Explanation_KnownAs {
	known := x.Known
	out := &rmsv1.Explanation_KnownAs{
		Principal: x.Caller.Name(), Addresses: known.Addresses, Service: known.Service, Provider: x.Caller.Provider, IssueTime: protoTime(known.IssuedAt),
		Mfa: known.MFA, Certificate: known.Certificate, Member: known.Member, Peer: x.Caller.Peer,
		TokenGroups: known.Groups, DirectoryGroups: known.Directory, GroupsIncomplete: known.GroupsIncomplete, Actor: known.Actor,
	}
	if x.Event != nil && !x.Event.Event.Actor.IsZero() {
		out.Actor = x.Event.Event.Actor.Name
	}
	if a := known.Abridged; a != nil {
		out.GroupCount = int32(a.Groups + a.Directory)
	}
	if x.Opening != nil {
		out.Part = rmsv1.Explanation_Part(x.Opening.Role)
	}
	return out
}

// opening fills in a decision to open.
func opening(t string, out *rmsv1.Explanation, d *policy.Trace) {
	out.Allowed, out.Reason, out.Right, out.Time = d.Allowed, string(d.Reason), protoRight(d.Right), protoTime(d.Time)
	out.Checks, out.GrantCount, out.MatchedCount = protoChecks(d.Checks), int32(d.GrantCount), int32(d.Matched)
	out.Rights, out.ExpireTime, out.Cacheable, out.CustodyMode = protoRights(d.Rights), protoTime(d.NotAfter), d.Cache == policy.CacheStored, protoCustody(d.Custody)
	for _, b := range d.Bounds {
		out.Bounds = append(out.Bounds, &rmsv1.Explanation_Bound{Limit: string(b.Limit), EndTime: protoTime(b.End), Binds: b.Binds, Sets: b.Sets})
	}
	out.Remedies = protoRemedies(t, out, d.Remedies)
}

// publishing fills in a decision to publish.
func publishing(t string, out *rmsv1.Explanation, d *policy.PublishTrace) {
	out.Allowed, out.Reason, out.Checks, out.CustodyMode = d.Allowed, string(d.Reason), protoChecks(d.Checks), protoCustody(d.Custody)
	for _, p := range d.Parents {
		parent := &rmsv1.Explanation_Parent{
			License: resourceName(t, "licenses", p.ID.String()), Reason: string(p.Decision.Reason), Rights: protoRights(p.Decision.Rights), Binds: p.Binds,
		}
		if !p.Found {
			parent.Reason = string(vocab.ReasonNoRights)
		}
		out.Parents = append(out.Parents, parent)
	}
	out.Remedies = protoRemedies(t, out, d.Remedies)
}

func protoChecks(in []policy.Check) (out []*rmsv1.Explanation_Check) {
	for _, c := range in {
		out = append(out, &rmsv1.Explanation_Check{
			Name: string(c.Name), Outcome: rmsv1.Explanation_Check_Outcome(c.Outcome), Reason: string(c.Reason),
		})
	}
	return out
}

var remedyKinds = map[policy.RemedyKind]rmsv1.Explanation_Remedy_Kind{
	policy.RemedyEnable:       rmsv1.Explanation_Remedy_KIND_ENABLE_PRINCIPAL,
	policy.RemedyAdmit:        rmsv1.Explanation_Remedy_KIND_ADMIT_DOMAIN,
	policy.RemedyShare:        rmsv1.Explanation_Remedy_KIND_SHARE,
	policy.RemedyGrant:        rmsv1.Explanation_Remedy_KIND_GRANT_IN_TEMPLATE,
	policy.RemedySecondFactor: rmsv1.Explanation_Remedy_KIND_SECOND_FACTOR,
	policy.RemedyNetwork:      rmsv1.Explanation_Remedy_KIND_NETWORK,
	policy.RemedyRestore:      rmsv1.Explanation_Remedy_KIND_RESTORE,
	policy.RemedyUndelete:     rmsv1.Explanation_Remedy_KIND_UNDELETE_TEMPLATE,
	policy.RemedyExtend:       rmsv1.Explanation_Remedy_KIND_EXTEND,
	policy.RemedyPublisher:    rmsv1.Explanation_Remedy_KIND_ADD_PUBLISHER,
	policy.RemedySelect:       rmsv1.Explanation_Remedy_KIND_SELECT_TEMPLATE,
	policy.RemedyPublish:      rmsv1.Explanation_Remedy_KIND_PUBLISH_TEMPLATE,
}

// protoRemedies shows remedies of the license and template that are explained.
func protoRemedies(t string, of *rmsv1.Explanation, in []policy.Remedy) (out []*rmsv1.Explanation_Remedy) {
	for _, r := range in {
		p := &rmsv1.Explanation_Remedy{Kind: remedyKinds[r.Kind], Rights: protoRights(r.Rights), Domain: r.Domain}
		if !r.To.IsZero() {
			p.To = r.To.String()
		}
		for _, n := range r.Networks {
			p.Networks = append(p.Networks, n.String())
		}
		switch r.Kind {
		case policy.RemedyShare, policy.RemedyExtend:
			p.License = of.GetLicense()
		case policy.RemedyRestore:
			p.License, p.Scopes = of.GetLicense(), protoScopes(r.Revocation.Scope)
			p.Event = resourceName(t, "events", r.Revocation.Event.String())
		case policy.RemedyGrant, policy.RemedyUndelete, policy.RemedySelect, policy.RemedyPublish:
			p.Template = of.GetTemplate()
		case policy.RemedyEnable, policy.RemedyAdmit, policy.RemedySecondFactor, policy.RemedyNetwork, policy.RemedyPublisher:
		}
		if !r.Content.IsZero() {
			p.License, p.Template = resourceName(t, "licenses", r.Content.String()), ""
		}
		out = append(out, p)
	}
	return out
}

var scopes = map[policy.RevocationScope]rmsv1.Explanation_RevocationInForce_Scope{
	policy.RevokedDocument:  rmsv1.Explanation_RevocationInForce_SCOPE_DOCUMENT,
	policy.RevokedLineage:   rmsv1.Explanation_RevocationInForce_SCOPE_LINEAGE,
	policy.RevokedTemplate:  rmsv1.Explanation_RevocationInForce_SCOPE_TEMPLATE,
	policy.RevokedOwner:     rmsv1.Explanation_RevocationInForce_SCOPE_OWNER,
	policy.RevokedPrincipal: rmsv1.Explanation_RevocationInForce_SCOPE_PRINCIPAL,
	policy.RevokedDevice:    rmsv1.Explanation_RevocationInForce_SCOPE_DEVICE,
	policy.RevokedPeriod:    rmsv1.Explanation_RevocationInForce_SCOPE_PERIOD,
}

// protoScopes names the conditions of a revocation.
func protoScopes(s policy.RevocationScope) (out []rmsv1.Explanation_RevocationInForce_Scope) {
	for bit := policy.RevocationScope(1); bit != 0; bit <<= 1 {
		if s&bit != 0 {
			out = append(out, scopes[bit])
		}
	}
	return out
}

func protoKeyFact(k *tenant.KeyFact) *rmsv1.Explanation_Key {
	if k == nil {
		return nil
	}
	name := func(s keys.State) string {
		if s == 0 {
			return ""
		}
		return s.String()
	}
	return &rmsv1.Explanation_Key{
		Name: k.Name, Version: k.Version, Generation: k.Number, GenerationState: name(k.State), VersionState: name(k.VersionState), Usable: k.Usable(),
	}
}

var suppositions = map[tenant.Supposition]rmsv1.Explanation_Supposition{
	tenant.SupposedGroups:    rmsv1.Explanation_SUPPOSITION_GROUPS,
	tenant.SupposedDirectory: rmsv1.Explanation_SUPPOSITION_DIRECTORY,
	tenant.SupposedMember:    rmsv1.Explanation_SUPPOSITION_MEMBER,
	tenant.SupposedGuest:     rmsv1.Explanation_SUPPOSITION_GUEST,
	tenant.SupposedLogin:     rmsv1.Explanation_SUPPOSITION_LOGIN,
	tenant.SupposedIssuer:    rmsv1.Explanation_SUPPOSITION_ISSUER,
	tenant.SupposedPolicy:    rmsv1.Explanation_SUPPOSITION_POLICY,
	tenant.SupposedDocument:  rmsv1.Explanation_SUPPOSITION_DOCUMENT,
}

func protoSuppositions(in []tenant.Supposition) (out []rmsv1.Explanation_Supposition) {
	for _, s := range in {
		out = append(out, suppositions[s])
	}
	return out
}
