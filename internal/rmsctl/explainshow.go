package rmsctl

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// Marks of checks and grants.
const (
	markPassed = "✓"
	markFailed = "✗"
	markExempt = "○" // would fail, but does not bind the caller
	markMoot   = "–" // has no answer
)

// showEventExplained prints an event and how it came about: what happened in
// one line, then a line for each part of the path.
func (a *app) showEventExplained(r *rmsv1.ExplainEventResponse, all bool) {
	e, x := r.GetEvent(), r.GetExplanation()
	if c := x.GetContradiction(); c != "" {
		a.outf("CONTRADICTION  %s: somebody changed the store. Alarm %s", c, lastPart(x.GetAlarm()))
	}
	outcome := strings.ToUpper(eventWord(e))
	if refused(e) {
		outcome = "REFUSED " + e.GetOutcome()
	}
	a.outf("%s  %s %s, %s%s", outcome, orDash(e.GetPrincipal()), askedFor(e, x), showStamp(e.GetTime()), decidedBy(x))
	t := newTable(a.stdout)
	if x.GetQuestion() == rmsv1.Explanation_QUESTION_UNSPECIFIED {
		t.row("why", withoutPolicy(e, x))
		t.flush()
		return
	}
	t.row("known as", knownAs(x, e.GetTime()))
	if e.GetBreakGlass() && x.GetAllowed() {
		t.row("recovery", "BREAK-GLASS by operation "+lastPart(e.GetOperation())+": grants, expiry and revocations do not bind")
	}
	a.explanationRows(t, x, r.GetGrants(), all)
	if x.GetAllowed() && refused(e) {
		t.row("but", "the policy allowed it; what refused came after: "+e.GetOutcome())
	}
	t.flush()
	a.listGrants(r.GetGrants(), all)
}

// showSupposed prints what a decision would be.
func (a *app) showSupposed(r *rmsv1.EvaluateAccessResponse, all bool) {
	x := r.GetExplanation()
	outcome := "ALLOWED"
	if !x.GetAllowed() {
		outcome = "REFUSED " + x.GetReason()
	}
	what := "a document of template " + lastPart(x.GetTemplate())
	if x.GetLicense() != "" {
		what = lastPart(x.GetLicense())
	}
	a.outf("%s  %s, %s on %s, %s%s", outcome, x.GetKnownAs().GetPrincipal(), rightName(x.GetRight()), what, showStamp(x.GetTime()), decidedBy(x))
	t := newTable(a.stdout)
	t.row("known as", knownAs(x, nil))
	a.explanationRows(t, x, r.GetGrants(), all)
	t.flush()
	a.listGrants(r.GetGrants(), all)
	a.showSuppositions(x.GetSuppositions())
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func rightName(r rmsv1.Right) string { return strings.TrimPrefix(r.String(), "RIGHT_") }

// askedFor is what the caller wanted.
func askedFor(e *rmsv1.Event, x *rmsv1.Explanation) string {
	license := lastPart(e.GetLicense())
	switch x.GetQuestion() {
	case rmsv1.Explanation_QUESTION_OPEN:
		return "asked " + rightName(x.GetRight()) + " on " + license
	case rmsv1.Explanation_QUESTION_PUBLISH:
		switch {
		case license != "":
			return "protected " + license
		case x.GetTemplate() != "":
			return "asked to protect with template " + lastPart(x.GetTemplate())
		}
		return "asked to protect"
	case rmsv1.Explanation_QUESTION_REPEAT:
		return "repeated the request that made " + license
	case rmsv1.Explanation_QUESTION_CLEAR_KEY:
		return "asked for a content key in the clear"
	case rmsv1.Explanation_QUESTION_UNSPECIFIED:
	}
	if license != "" {
		return "called " + e.GetMethod() + " on " + license
	}
	return "called " + e.GetMethod()
}

// decidedBy names what decided.
func decidedBy(x *rmsv1.Explanation) string {
	var parts []string
	switch {
	case x.GetTemplateRevision() > 0:
		parts = append(parts, fmt.Sprintf("policy %s r%d", lastPart(x.GetTemplate()), x.GetTemplateRevision()))
	case x.GetAdHocKind() != rmsv1.AdHocPolicy_KIND_UNSPECIFIED:
		parts = append(parts, fmt.Sprintf("policy ad hoc r%d", x.GetLicenseRevision()))
	}
	if k := x.GetKey(); k != nil {
		key := strings.TrimSpace("key " + k.GetName() + fmt.Sprintf(" v%d", k.GetVersion()))
		if k.GetGeneration() > 0 {
			key += fmt.Sprintf(" g%d", k.GetGeneration())
		}
		parts = append(parts, key+" "+keyState(k))
	}
	if len(parts) == 0 {
		return ""
	}
	return "; " + strings.Join(parts, "; ")
}

func keyState(k *rmsv1.Explanation_Key) string {
	if !k.GetUsable() && k.GetVersionState() != "" {
		return k.GetVersionState()
	}
	if k.GetGenerationState() != "" {
		return k.GetGenerationState()
	}
	return or(k.GetVersionState(), "active")
}

// withoutPolicy explains what no policy decided.
func withoutPolicy(e *rmsv1.Event, x *rmsv1.Explanation) string {
	var roles []string
	for _, r := range x.GetRoles() {
		roles = append(roles, strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(r.String(), "ROLE_")), "_", "-"))
	}
	noRights := e.GetOutcome() == string(vocab.ReasonNoRights)
	switch {
	case noRights && len(roles) > 0:
		return fmt.Sprintf("%s is for the license's owner and for the role %s; the caller was neither, or there is no such license", e.GetMethod(), strings.Join(roles, " or "))
	case noRights:
		return "there is no such license: whoever names one that is not there gets the answer of one without rights"
	case len(roles) > 0:
		return fmt.Sprintf("%s needs the role %s, which the caller did not hold", e.GetMethod(), strings.Join(roles, " or "))
	case e.GetOutcome() == string(vocab.ReasonPrincipalDisabled):
		return "the caller, or the service acting for them, was disabled; to allow: rmsctl principal enable " + or(e.GetPrincipal(), "PRINCIPAL")
	case refused(e):
		return "refused before any policy was asked; the reason says all there is"
	}
	return "no policy was asked: a role, or being the owner, lets callers do this"
}

// knownAs is what was known of the caller; at is when, for the token's age.
func knownAs(x *rmsv1.Explanation, at *timestamppb.Timestamp) string {
	k := x.GetKnownAs()
	var from []string
	if k.GetProvider() != "" {
		from = append(from, k.GetProvider())
	}
	switch {
	case k.GetCertificate():
		from = append(from, "client certificate")
	case k.GetIssueTime() != nil && at != nil:
		from = append(from, "token "+age(at.AsTime().Sub(k.GetIssueTime().AsTime()))+" old")
	}
	if k.GetMfa() {
		from = append(from, "second factor")
	}
	if k.GetPeer() != "" {
		from = append(from, "from "+k.GetPeer())
	}
	out := k.GetPrincipal()
	if len(from) > 0 {
		out += " (" + strings.Join(from, ", ") + ")"
	}
	add := func(format string, args ...any) { out += "; " + fmt.Sprintf(format, args...) }
	if len(k.GetAddresses()) > 1 {
		add("also %s", strings.Join(k.GetAddresses()[1:], ", "))
	}
	switch {
	case k.GetService() != "":
		add("a service")
	case !k.GetMember():
		add("a guest")
	}
	switch k.GetPart() {
	case rmsv1.Explanation_PART_OWNER:
		add("its owner")
	case rmsv1.Explanation_PART_ISSUER:
		add("who protected it")
	case rmsv1.Explanation_PART_UNSPECIFIED:
	}
	if k.GetActor() != "" {
		add("through %s", k.GetActor())
	}
	add("groups: %s", or(strings.Join(k.GetTokenGroups(), ", "), "none"))
	if len(k.GetDirectoryGroups()) > 0 {
		add("by the directory: %s", strings.Join(k.GetDirectoryGroups(), ", "))
	}
	if n := k.GetGroupCount(); n > 0 {
		add("of %d, the others are named by no grant", n)
	}
	if k.GetGroupsIncomplete() {
		add("the provider held groups back")
	}
	return out
}

// age is a time that has passed, as people say it.
func age(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", max(d, 0)/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%d min", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", d/time.Hour)
	}
	return fmt.Sprintf("%d d", d/(24*time.Hour))
}

// explanationRows are the lines between who and what would help.
func (a *app) explanationRows(t *table, x *rmsv1.Explanation, grants []*rmsv1.Explanation_ListedGrant, all bool) {
	if x.GetQuestion() == rmsv1.Explanation_QUESTION_OPEN || x.GetQuestion() == rmsv1.Explanation_QUESTION_REPEAT {
		t.row("grants", grantsLine(x, grants, all))
	}
	if x.GetAllowed() && len(x.GetRights()) > 0 {
		t.row("gives", givesLine(x))
	}
	t.row("checks", checksLine(x))
	for _, r := range x.GetRevocations() {
		t.row("revoked", revokedLine(r))
	}
	for _, p := range x.GetParents() {
		t.row("made from", parentLine(p))
	}
	for i, r := range x.GetRemedies() {
		name := "to allow"
		if i > 0 {
			name = "and"
		}
		t.row(name, remedyLine(x, r))
	}
	if x.GetOtherRules() {
		t.row("note", "a version with other rules decided: what was decided may differ")
	}
	if x.GetAbridged() {
		t.row("note", "the event holds only some of the caller's many names: what was decided may differ")
	}
}

func grantsLine(x *rmsv1.Explanation, grants []*rmsv1.Explanation_ListedGrant, all bool) string {
	out := fmt.Sprintf("%s of %s matched", group(int64(x.GetMatchedCount())), group(int64(x.GetGrantCount())))
	var near []string
	for _, g := range grants {
		if g.GetNear() {
			near = append(near, shortPrincipal(g.GetGrant().GetTo()))
		}
	}
	if len(near) > 0 {
		out += "; nearest: " + strings.Join(near, ", ") + ", not a member"
	}
	if !all && x.GetGrantCount() > x.GetMatchedCount() {
		out += "   (--all lists every grant)"
	}
	return out
}

// listGrants prints grants one to a line: those that match, or all.
func (a *app) listGrants(grants []*rmsv1.Explanation_ListedGrant, all bool) {
	t := newTable(a.stdout)
	for _, g := range grants {
		if g.GetNamed() || all {
			t.row("  "+grantMark(g), g.GetGrant().GetTo(), policy.Describe(rightsOf(g.GetGrant().GetRights())), grantWhy(g))
		}
	}
	t.flush()
}

func grantMark(g *rmsv1.Explanation_ListedGrant) string {
	switch {
	case !g.GetNamed():
		return markMoot
	case g.GetEnded() || g.GetNeedsLogin() || g.GetNeedsNetwork():
		return markFailed
	}
	return markPassed
}

// grantWhy says why a grant counts or does not.
func grantWhy(g *rmsv1.Explanation_ListedGrant) string {
	var out []string
	if !g.GetNamed() {
		out = append(out, "does not name the caller")
	}
	until := g.GetGrant().GetUntil()
	switch {
	case g.GetEnded():
		out = append(out, "ended "+showStamp(until))
	case until != nil:
		out = append(out, "until "+showStamp(until))
	}
	if g.GetNeedsLogin() {
		out = append(out, "needs a second factor")
	} else if g.GetGrant().GetLogin() == rmsv1.Login_LOGIN_MFA {
		out = append(out, "with a second factor")
	}
	if networks := strings.Join(g.GetGrant().GetNetworks(), ", "); g.GetNeedsNetwork() {
		out = append(out, "not from "+networks)
	} else if networks != "" {
		out = append(out, "from "+networks)
	}
	return strings.Join(out, "; ")
}

// showRights names a set of rights as short as possible.
func showRights(list []rmsv1.Right) string {
	if rights := rightsOf(list); rights != vocab.AllRights {
		return policy.Describe(rights)
	}
	return "everything"
}

// givesLine is what the decision gives, and what sets its end.
func givesLine(x *rmsv1.Explanation) string {
	out := showRights(x.GetRights())
	if x.GetExpireTime() != nil {
		out += " until " + showStamp(x.GetExpireTime())
	}
	if i := slices.IndexFunc(x.GetBounds(), (*rmsv1.Explanation_Bound).GetSets); i >= 0 {
		out += " (" + x.GetBounds()[i].GetLimit() + ")"
	}
	if x.GetCacheable() {
		return out + "; may be kept"
	}
	return out + "; for one open"
}

// checkWords say how a check reads if it passed and if it failed; a check
// without words for having passed is told only if it did not.
var checkWords = map[string][2]string{
	"enabled":     {"not disabled", "disabled"},
	"actor":       {"", "a person acts for the caller"},
	"admitted":    {"", "guests of that domain are not admitted"},
	"policy":      {"", "the policy cannot be understood"},
	"named":       {"named by a grant", "named by no grant"},
	"not-revoked": {"not revoked", "revoked"},
	"template":    {"template in force", "template not in force"},
	"right":       {"right granted", "right not granted"},
	"not-expired": {"not expired", "expired"},
	"publisher":   {"may protect", "may not protect"},
	"owner":       {"", "may not be its owner"},
	"request":     {"", "the request has no meaning"},
	"parents":     {"originals open", "an original is in the way"},
	"terms":       {"keeps the original's terms", "changes the original's terms"},
	"scope":       {"may choose the template", "no such template for the caller"},
	"clear-keys":  {"the tenant allows clear keys", "the tenant allows no clear keys"},
	"service":     {"a service", "not a service"},
	"certificate": {"a client certificate", "no client certificate"},
}

// failures say more exactly what failed.
var failures = map[string]string{
	"policy TEMPLATE_DELETED":       "nothing is left of the template",
	"right STRONGER_LOGIN_REQUIRED": "needs a second factor",
	"right NETWORK_NOT_ALLOWED":     "not from this network",
	"right GRANT_ENDED":             "the grant has ended",
	"right GROUPS_INCOMPLETE":       "groups were held back",
	"named GROUPS_INCOMPLETE":       "named by no grant, and groups were held back",
	"publisher GROUPS_INCOMPLETE":   "groups were held back",
	"scope GROUPS_INCOMPLETE":       "groups were held back",
	"template TEMPLATE_DELETED":     "template deleted",
	"template TEMPLATE_ARCHIVED":    "template archived",
}

func checksLine(x *rmsv1.Explanation) string {
	var out []string
	exempt := false
	for _, c := range x.GetChecks() {
		words, known := checkWords[c.GetName()]
		if !known {
			words = [2]string{c.GetName(), c.GetName()}
		}
		switch c.GetOutcome() {
		case rmsv1.Explanation_Check_OUTCOME_PASSED:
			if c.GetName() == "named" && x.GetKnownAs().GetPart() != rmsv1.Explanation_PART_UNSPECIFIED {
				words[0] = "the document is theirs"
			}
			if words[0] != "" {
				out = append(out, words[0]+" "+markPassed)
			}
		case rmsv1.Explanation_Check_OUTCOME_FAILED:
			out = append(out, or(failures[c.GetName()+" "+c.GetReason()], words[1])+when(c, x)+" "+markFailed)
		case rmsv1.Explanation_Check_OUTCOME_EXEMPT:
			exempt = true
			out = append(out, words[1]+when(c, x)+" "+markExempt)
		case rmsv1.Explanation_Check_OUTCOME_MOOT, rmsv1.Explanation_Check_OUTCOME_UNSPECIFIED:
		}
	}
	if k := x.GetKey(); k != nil {
		if k.GetUsable() {
			out = append(out, "key usable "+markPassed)
		} else {
			out = append(out, "key "+keyState(k)+" "+markFailed)
		}
	}
	line := strings.Join(out, "  ")
	if exempt {
		line += "   (" + markExempt + " does not bind the caller)"
	}
	return line
}

// when adds the instant to what expired.
func when(c *rmsv1.Explanation_Check, x *rmsv1.Explanation) string {
	if c.GetName() == "not-expired" && x.GetContentExpireTime() != nil {
		return " " + showStamp(x.GetContentExpireTime())
	}
	return ""
}

var scopeWords = map[rmsv1.Explanation_RevocationInForce_Scope]string{
	rmsv1.Explanation_RevocationInForce_SCOPE_DOCUMENT: "the document", rmsv1.Explanation_RevocationInForce_SCOPE_LINEAGE: "what was made from a document",
	rmsv1.Explanation_RevocationInForce_SCOPE_TEMPLATE: "whatever follows its template", rmsv1.Explanation_RevocationInForce_SCOPE_OWNER: "whatever its owner has",
	rmsv1.Explanation_RevocationInForce_SCOPE_PRINCIPAL: "the caller", rmsv1.Explanation_RevocationInForce_SCOPE_DEVICE: "the caller's key",
	rmsv1.Explanation_RevocationInForce_SCOPE_PERIOD: "what was protected in its time",
}

func revokedLine(r *rmsv1.Explanation_RevocationInForce) string {
	var aims []string
	for _, scope := range r.GetScopes() {
		aims = append(aims, or(scopeWords[scope], "something this version does not know"))
	}
	out := strings.Join(aims, " and ")
	if v := r.GetRevocation(); v.GetRevokeTime() != nil {
		out += ", " + showStamp(v.GetRevokeTime()) + " by " + orDash(v.GetRevokedBy()) + reasonSuffix(v.GetReason())
	}
	return out + " (event " + lastPart(r.GetEvent()) + ")"
}

func parentLine(p *rmsv1.Explanation_Parent) string {
	out := lastPart(p.GetLicense()) + ": "
	switch {
	case p.GetReason() != "":
		return out + p.GetReason() + " " + markFailed
	case p.GetBinds():
		return out + showRights(p.GetRights()) + "; its terms must be kept"
	}
	return out + showRights(p.GetRights())
}

// remedyLine is the command that would do it, or, where there is none, what to
// do.
func remedyLine(x *rmsv1.Explanation, r *rmsv1.Explanation_Remedy) string {
	license, template := lastPart(r.GetLicense()), lastPart(r.GetTemplate())
	who := or(x.GetKnownAs().GetPrincipal(), "the caller")
	inTemplate := func(what string) string {
		return fmt.Sprintf("%s in template %s: rmsctl template export %s, edit, rmsctl template apply -f FILE", what, template, template)
	}
	switch r.GetKind() {
	case rmsv1.Explanation_Remedy_KIND_SHARE:
		to := shortPrincipal(r.GetTo())
		if k := x.GetAdHocKind(); k == rmsv1.AdHocPolicy_KIND_UNSPECIFIED || k == rmsv1.AdHocPolicy_KIND_GRANTS {
			to += "=" + rightsFlag(r.GetRights())
		}
		return "rmsctl license share " + license + " --to " + to
	case rmsv1.Explanation_Remedy_KIND_GRANT_IN_TEMPLATE:
		grant := fmt.Sprintf("{to: %q, rights: %s}", r.GetTo(), rightsYAML(r.GetRights()))
		if template == "" {
			return "grant " + grant + " in the template that " + license + " follows"
		}
		return inTemplate("grant " + grant)
	case rmsv1.Explanation_Remedy_KIND_SELECT_TEMPLATE:
		return inTemplate(fmt.Sprintf("add %q to select", r.GetTo()))
	case rmsv1.Explanation_Remedy_KIND_PUBLISH_TEMPLATE:
		return inTemplate("write state: published")
	case rmsv1.Explanation_Remedy_KIND_UNDELETE_TEMPLATE:
		return "rmsctl template undelete " + template
	case rmsv1.Explanation_Remedy_KIND_ADD_PUBLISHER:
		return "rmsctl tenant set --publisher " + r.GetTo()
	case rmsv1.Explanation_Remedy_KIND_ADMIT_DOMAIN:
		return "rmsctl tenant set --guest " + r.GetDomain()
	case rmsv1.Explanation_Remedy_KIND_RESTORE:
		if slices.Contains(r.GetScopes(), rmsv1.Explanation_RevocationInForce_SCOPE_DOCUMENT) {
			return "rmsctl license restore " + license
		}
		return "rmsctl license restore revocations/" + lastPart(r.GetEvent())
	case rmsv1.Explanation_Remedy_KIND_ENABLE_PRINCIPAL:
		return "rmsctl principal enable " + shortPrincipal(r.GetTo())
	case rmsv1.Explanation_Remedy_KIND_SECOND_FACTOR:
		return who + " signs in with a second factor"
	case rmsv1.Explanation_Remedy_KIND_NETWORK:
		return who + " connects from " + strings.Join(r.GetNetworks(), " or ")
	case rmsv1.Explanation_Remedy_KIND_EXTEND:
		return "rmsctl license extend " + license + " --expires +30d"
	case rmsv1.Explanation_Remedy_KIND_RESUME_KEY:
		return "a key custodian resumes the key"
	case rmsv1.Explanation_Remedy_KIND_UNSPECIFIED:
	}
	return "something this version does not know: update rmsctl"
}

// rightsFlag writes rights as --to takes them.
func rightsFlag(list []rmsv1.Right) string {
	rights := rightsOf(list)
	if level, ok := policy.LevelOf(rights); ok {
		return string(level)
	}
	return strings.ReplaceAll(rights.String(), " ", "+")
}

// rightsYAML writes rights as a template's file takes them.
func rightsYAML(list []rmsv1.Right) string {
	rights := rightsOf(list)
	if level, ok := policy.LevelOf(rights); ok {
		return string(level)
	}
	return "[" + strings.ReplaceAll(rights.String(), " ", ", ") + "]"
}

var suppositionWords = map[rmsv1.Explanation_Supposition]string{
	rmsv1.Explanation_SUPPOSITION_GROUPS:    "the identity provider vouches for the groups given and no others",
	rmsv1.Explanation_SUPPOSITION_DIRECTORY: "the groups of the tenant's directory are those of now",
	rmsv1.Explanation_SUPPOSITION_MEMBER:    "a member, by the address",
	rmsv1.Explanation_SUPPOSITION_GUEST:     "a guest, by the address",
	rmsv1.Explanation_SUPPOSITION_LOGIN:     "second factor and network only as given",
	rmsv1.Explanation_SUPPOSITION_ISSUER:    "who protected a document is known by the address it was protected under",
	rmsv1.Explanation_SUPPOSITION_POLICY:    "the policy of now, at another time",
	rmsv1.Explanation_SUPPOSITION_DOCUMENT:  "a document that somebody else protects with the template then",
}

// showSuppositions says what was assumed, which is as much part of the answer
// as the rest.
func (a *app) showSuppositions(list []rmsv1.Explanation_Supposition) {
	var words []string
	for _, s := range list {
		words = append(words, or(suppositionWords[s], "something this version does not know"))
	}
	if len(words) > 0 {
		a.outf("assumed: %s", strings.Join(words, "; "))
	}
}
