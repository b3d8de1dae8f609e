package tenant

import (
	"context"
	"slices"
	"time"

	"github.com/openrms/rms/internal/decision"
	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// Supposition is something that had to be assumed of a caller or a document
// that is not there.
type Supposition string

// Suppositions.
const (
	// SupposedGroups: an identity provider would vouch for the groups that
	// were given and no others; what it really sends, only a sign-in shows.
	SupposedGroups Supposition = "groups"
	// SupposedDirectory: the tenant's own directory is as it is now.
	SupposedDirectory Supposition = "directory"
	// SupposedMember and SupposedGuest: who the address makes of the user.
	SupposedMember Supposition = "member"
	SupposedGuest  Supposition = "guest"
	// SupposedLogin: the sign-in has a second factor only if that was said,
	// and comes from no network unless one was given.
	SupposedLogin Supposition = "login"
	// SupposedIssuer: the user is taken for the issuer, because the document
	// was protected under the user's address.
	SupposedIssuer Supposition = "issuer"
	// SupposedPolicy: at another time the policy is what it is now.
	SupposedPolicy Supposition = "policy"
	// SupposedDocument: the document is one that somebody else protects with
	// the template at that moment.
	SupposedDocument Supposition = "document"
)

// AccessQuestion asks whether somebody could exercise a right.
type AccessQuestion struct {
	Who policy.Supposed
	// WithoutDirectory leaves the groups of the tenant's directory out.
	WithoutDirectory bool
	// Content is the license; or Template is the name of the template that a
	// document would follow.
	Content  vocab.ContentID
	Template string
	Right    vocab.Right
	// At is when; zero is now.
	At time.Time
}

// supposed is a caller who is not there, with what was assumed.
type supposed struct {
	standing
	token   *vocab.Identity
	assumed []Supposition
}

// suppose makes the caller of a question.
func (t *Tenant) suppose(q policy.Supposed, withoutDirectory bool, settings record.Settings) (s supposed, err error) {
	file := t.file.Load()
	if s.token, err = q.Identity(t.name, file.Domains); err != nil {
		return s, err
	}
	if s.token.Service != "" {
		if _, known := file.Services[s.token.Service]; !known {
			return s, vocab.Errorf(vocab.ReasonResourceNotFound, "the tenant has no service %q", s.token.Service).
				WithNext("See the tenant's file")
		}
	}
	s.assumed = []Supposition{SupposedGroups, SupposedLogin}
	switch {
	case s.token.Service != "":
	case s.token.Member != "":
		s.assumed = append(s.assumed, SupposedMember)
	default:
		s.assumed = append(s.assumed, SupposedGuest)
	}
	s.standing = t.standingOf(s.token, settings)
	if withoutDirectory {
		s.caller = s.token
	} else {
		s.assumed = append(s.assumed, SupposedDirectory)
	}
	return s, nil
}

// asIssuer is the caller as the issuer of a license that was protected under
// the caller's address.
func (s supposed) asIssuer(p *policy.Policy) supposed {
	caller := *s.caller
	if policy.SupposeIssuer(&caller, p) {
		s.caller, s.assumed = &caller, append(slices.Clip(s.assumed), SupposedIssuer)
	}
	return s
}

// EvaluateAccess says what a decision would be, and how it would come about,
// with the policy as it is now. The errors are REQUEST_INVALID and
// RESOURCE_NOT_FOUND.
func (t *Tenant) EvaluateAccess(ctx context.Context, q AccessQuestion, l policy.Listing) (x *Explanation, err error) {
	at, otherTime := t.when(q.At)
	err = t.store.View(ctx, func(r store.Reader) error {
		settings, err := record.GetSettings(r, t.id)
		if err != nil {
			return err
		}
		who, err := t.suppose(q.Who, q.WithoutDirectory, settings)
		if err != nil {
			return err
		}
		x = &Explanation{Question: decision.Acquire, Content: q.Content, Settings: settings.Revision}
		var put policy.Input
		if q.Template != "" {
			put, err = t.aboutTemplate(r, &who, q, at, settings)
		} else {
			put, err = t.aboutLicense(r, x, &who, q, at, settings)
		}
		if err != nil {
			return err
		}
		if otherTime {
			who.assumed = append(who.assumed, SupposedPolicy)
		}
		trace := policy.Explain(put, l)
		x.Opening, x.Policy, x.Caller, x.Supposed = &trace, put.Policy, who.caller, who.assumed
		x.Known = callerInputs(who.caller, who.token, put.Disabled)
		if put.Template != nil {
			x.Template = put.Template.Template
		}
		x.Revocations, err = t.revocationFacts(r, put.Revocations)
		return err
	})
	if err != nil {
		return nil, err
	}
	return x, nil
}

// when is the instant a question is asked for; other says it is not now.
func (t *Tenant) when(at time.Time) (when time.Time, other bool) {
	if at.IsZero() {
		return t.now().UTC().Truncate(time.Millisecond), false
	}
	return at.UTC().Truncate(time.Millisecond), true
}

// aboutLicense is the question about a document that is there.
func (t *Tenant) aboutLicense(r store.Reader, x *Explanation, who *supposed, q AccessQuestion, at time.Time, settings record.Settings) (put policy.Input, err error) {
	in, err := t.readInputs(r, q.Content, settings)
	if err == nil {
		err = t.verified(r, &in)
	}
	if err != nil {
		return put, err
	}
	if in.record == nil || in.record.Tombstone != 0 {
		return put, vocab.Errorf(vocab.ReasonResourceNotFound, "there is no license %s", q.Content).WithNext("List the licenses")
	}
	*who = who.asIssuer(in.policy)
	if err := t.readLineage(r, &in, who.standing); err != nil {
		return put, err
	}
	x.Revision = in.record.Revision
	key := t.keyInputs(in.record)
	if x.Key, err = t.keyFact(r, key, vocab.CustodianID{}); err != nil {
		return put, err
	}
	return in.evaluation(who.standing, q.Right, at, settings), nil
}

// aboutTemplate is the question about a document that somebody else protects
// with the template then.
func (t *Tenant) aboutTemplate(r store.Reader, who *supposed, q AccessQuestion, at time.Time, settings record.Settings) (put policy.Input, err error) {
	tmpl, err := t.findTemplate(r, q.Template)
	if err != nil {
		return put, err
	}
	if tmpl == nil {
		return put, noTemplate(q.Template)
	}
	who.assumed = append(who.assumed, SupposedDocument)
	return byTemplate(tmpl, who.standing, q.Right, at, settings), nil
}

// byTemplate is the question about a document that follows a template.
func byTemplate(tmpl *policy.CompiledTemplate, who standing, right vocab.Right, at time.Time, settings record.Settings) policy.Input {
	put := policy.Following(tmpl, who.caller, at, settings.Settings)
	put.Right, put.Disabled = right, who.disabled
	put.Revocations = who.covering(policy.Revocable{Policy: put.Policy, Issued: at})
	return put
}

// Access is something a user can open, or could if a condition were met.
type Access struct {
	// Template is what documents follow, Followers how many do, expired and
	// revoked ones included; or License is a document of its own: one with
	// rights named at protecting, or the user's.
	Template  *policy.Template
	Followers int64
	License   *LicenseView
	Decision  policy.Decision
}

// AccessCursor is a place in a listing of access; the zero value is its
// beginning.
type AccessCursor struct {
	Slug    string          // templates after this one
	Content vocab.ContentID // licenses before this one
	// Licenses says that the templates are through.
	Licenses bool
}

// IsZero reports whether it is the beginning, and after a listing its end.
func (c AccessCursor) IsZero() bool { return c == AccessCursor{} }

// maxTemplatesLooked bounds how many templates one page of access looks at.
const maxTemplatesLooked = 500

// ListAccess lists what somebody could open at an instant, zero for now: first the templates that name
// them, then documents one by one, newest first. A page ends after limit
// entries or a bounded amount of work, so it may be short, or empty, before
// the end; the cursor is zero at the end.
func (t *Tenant) ListAccess(ctx context.Context, who policy.Supposed, withoutDirectory bool, at time.Time, from AccessCursor, limit int) (page []Access, next AccessCursor, assumed []Supposition, err error) {
	at, otherTime := t.when(at)
	err = t.store.View(ctx, func(r store.Reader) error {
		settings, err := record.GetSettings(r, t.id)
		if err != nil {
			return err
		}
		s, err := t.suppose(who, withoutDirectory, settings)
		if err != nil {
			return err
		}
		assumed = append(s.assumed, SupposedDocument, SupposedIssuer)
		if otherTime {
			assumed = append(assumed, SupposedPolicy)
		}
		next = from
		if !next.Licenses {
			if page, next, err = t.templateAccess(ctx, r, s, from.Slug, limit, at, settings); err != nil {
				return err
			}
		}
		if next.Licenses && len(page) < limit {
			var own []Access
			own, next, err = t.licenseAccess(ctx, r, s, next.Content, limit-len(page), at, settings)
			page = append(page, own...)
		}
		return err
	})
	if err != nil {
		return nil, AccessCursor{}, nil, err
	}
	return page, next, assumed, nil
}

// concerns reports whether the caller is somebody to what was decided about.
func concerns(d *policy.Decision) bool {
	return d.Allowed || d.Role != policy.RoleNone || len(d.Matches) > 0
}

func (t *Tenant) templateAccess(ctx context.Context, r store.Reader, s supposed, after string, limit int, at time.Time, settings record.Settings) (page []Access, next AccessCursor, err error) {
	looked := 0
	next = AccessCursor{Licenses: true}
	err = record.ListTemplates(r, t.id, after, func(slug string, uid vocab.TemplateUID) (bool, error) {
		if looked == maxTemplatesLooked || len(page) == limit || ctx.Err() != nil {
			next = AccessCursor{Slug: after}
			return false, ctx.Err()
		}
		looked++
		after = slug
		tmpl, err := t.templateAt(r, slug, uid)
		if err != nil {
			return false, err
		}
		a := Access{Template: tmpl.Template, Decision: policy.Evaluate(byTemplate(tmpl, s.standing, vocab.RightView, at, settings))}
		if !concerns(&a.Decision) {
			return true, nil
		}
		if a.Followers, err = record.CountByTemplate(r, t.id, uid); err != nil {
			return false, err
		}
		page = append(page, a)
		return true, nil
	})
	return page, next, err
}

func (t *Tenant) licenseAccess(ctx context.Context, r store.Reader, s supposed, before vocab.ContentID, limit int, at time.Time, settings record.Settings) (page []Access, next AccessCursor, err error) {
	var problem error
	found := map[vocab.ContentID]policy.Decision{}
	list, content, err := record.ListLicenses(r, t.id, record.ListQuery{Before: before, Limit: limit, Match: func(l *record.License) bool {
		if problem != nil || ctx.Err() != nil {
			return false
		}
		p, err := l.DecodePolicy()
		if err != nil {
			problem = err
			return false
		}
		mine := s.asIssuer(p)
		in := inputs{record: l, policy: p}
		if p.AdHoc == nil {
			// The rights that a template gives were told with the template.
			if p.RoleOf(mine.caller, settings.GuestDomains) == policy.RoleNone {
				return false
			}
			if in.template, problem = t.template(r, p.Template); problem != nil {
				return false
			}
		}
		if problem = t.readLineage(r, &in, mine.standing); problem != nil {
			return false
		}
		d := policy.Evaluate(in.evaluation(mine.standing, vocab.RightView, at, settings))
		if concerns(&d) {
			found[l.Content] = d
		}
		return concerns(&d)
	}})
	if err := firstError(err, problem, ctx.Err()); err != nil {
		return nil, next, err
	}
	for _, l := range list {
		if _, err := t.verifyRecord(r, l); err != nil {
			return nil, next, err
		}
		v, err := t.view(r, l)
		if err != nil {
			return nil, next, err
		}
		page = append(page, Access{License: v, Decision: found[l.Content]})
	}
	if !content.IsZero() {
		next = AccessCursor{Licenses: true, Content: content}
	}
	return page, next, nil
}
