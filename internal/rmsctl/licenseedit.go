package rmsctl

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/policy/templatefile"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// edit is a change to a license, and what there is to say about it. One without
// fields changes nothing.
type edit struct {
	next   *rmsv1.License
	fields []string // of the update mask
	said   []string // what changes, a line each
	undo   []string // the commands that take it back
	undoer string   // who can, if not whoever made the change
}

// editLicense reads a license, lets change decide what becomes of it, and writes
// that unless somebody else changed the license in between.
func (a *app) editLicense(ctx context.Context, arg string, change func(now *rmsv1.License) (*edit, error)) error {
	s, name, err := a.licenseOf(ctx, arg)
	if err != nil {
		return err
	}
	l, err := s.Licenses().GetLicense(ctx, &rmsv1.GetLicenseRequest{Name: name})
	if err != nil {
		return err
	}
	e, err := change(l)
	if err != nil {
		return err
	}
	if len(e.fields) == 0 {
		return a.emit(l, func() {
			a.outf("%s (revision %d of license %s, unchanged)", strings.Join(e.said, ", "), l.GetRevision(), l.GetContentId())
		})
	}
	e.next.Name, e.next.Etag = l.GetName(), l.GetEtag()
	l, err = s.Licenses().UpdateLicense(ctx, &rmsv1.UpdateLicenseRequest{License: e.next, UpdateMask: &fieldmaskpb.FieldMask{Paths: e.fields}})
	if err != nil {
		return err
	}
	err = a.emit(l, func() {
		a.outf("%s (revision %d of license %s)", strings.Join(e.said, ", "), l.GetRevision(), l.GetContentId())
	})
	if err == nil && len(e.undo) > 0 {
		a.next("undo%s: %s", e.undoer, strings.Join(e.undo, "; "))
	}
	return err
}

// editAdHoc is editLicense for documents whose rights were named when they were
// protected.
func (a *app) editAdHoc(ctx context.Context, arg string, change func(now *rmsv1.License, p *rmsv1.AdHocPolicy) (*edit, error)) error {
	return a.editLicense(ctx, arg, func(now *rmsv1.License) (*edit, error) {
		if now.GetAdHoc() == nil {
			template := lastPart(now.GetTemplate())
			e := &exitError{code: exitConflict, err: fmt.Errorf("the rights on this document are those of template %s", template)} //nolint:err113 // a sentence for people
			return nil, e.withNext("Edit the template, which changes every document that follows it: rmsctl template export %s; or protect the document anew", template)
		}
		return change(now, now.GetAdHoc())
	})
}

// equalRights reports whether all recipients of a policy have the same rights.
func equalRights(p *rmsv1.AdHocPolicy) bool { return p.GetKind() != rmsv1.AdHocPolicy_KIND_GRANTS }

// withGrants is the license with other grants, in the form its kind of policy has.
func withGrants(p *rmsv1.AdHocPolicy, grants []policy.Grant) *rmsv1.License {
	next := &rmsv1.AdHocPolicy{Kind: p.GetKind(), Offline: p.GetOffline()}
	for _, g := range grants {
		if equalRights(p) {
			next.Recipients = append(next.Recipients, g.To.String())
		} else {
			next.Grants = append(next.Grants, grantProto(g))
		}
	}
	return &rmsv1.License{Policy: &rmsv1.License_AdHoc{AdHoc: next}}
}

// grantsOf reads the grants in force of a license.
func grantsOf(p *rmsv1.AdHocPolicy) ([]policy.Grant, error) {
	var out []policy.Grant
	for _, m := range p.GetGrants() {
		g, err := grantFrom(m)
		if err != nil {
			return nil, err
		}
		out = append(out, g)
	}
	return out, nil
}

func grantProto(g policy.Grant) *rmsv1.Grant {
	out := &rmsv1.Grant{To: g.To.String(), Rights: rightsProto(g.Rights)}
	if !g.Until.IsZero() {
		out.Until = timestamppb.New(g.Until)
	}
	if g.Login == policy.LoginMFA {
		out.Login = rmsv1.Login_LOGIN_MFA
	}
	for _, n := range g.Networks {
		out.Networks = append(out.Networks, n.String())
	}
	return out
}

// shareCommands are the commands that give grants. A command gives everybody
// the same terms, and a principal one grant.
func shareCommands(id string, equal bool, grants []policy.Grant) []string {
	var terms []string // in the order they come
	to := map[string][]string{}
	for _, g := range grants {
		t := termsOf(g)
		if !slices.Contains(terms, t) {
			terms = append(terms, t)
		}
		who := shortPrincipal(g.To.String())
		if !equal {
			who += "=" + strings.ReplaceAll(policy.Describe(g.Rights), " ", "+")
		}
		to[t] = append(to[t], " --to "+shellWord(who))
	}
	var out []string
	for _, t := range terms {
		out = append(out, "rmsctl license share "+id+strings.Join(to[t], "")+t)
	}
	return out
}

// termsOf are the flags that bind a grant as it is bound.
func termsOf(g policy.Grant) string {
	var b strings.Builder
	if !g.Until.IsZero() {
		b.WriteString(" --until " + templatefile.FormatTime(g.Until))
	}
	if g.Login == policy.LoginMFA {
		b.WriteString(" --login mfa")
	}
	for _, n := range policy.SortedNetworks(g.Networks) {
		b.WriteString(" --network " + n.String())
	}
	return b.String()
}

// shellWord quotes what a shell would not take as one plain word.
func shellWord(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("@%+=:,./_-", r)
	}
	if s != "" && !strings.ContainsFunc(s, func(r rune) bool { return !plain(r) }) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
