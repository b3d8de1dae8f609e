package rmsctl

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/policy/templatefile"
	"github.com/openrms/rms/internal/vocab"
)

// templateDiff says in lines for people what one revision of a template has
// over another. No lines means that both say the same. Revision, author, comment
// and time do not count.
func (a *app) templateDiff(old, new *policy.Template) []string {
	changes, fields := policy.Diff(old, new, a.now())
	return a.changeLines(changes, fields, old, new)
}

// changeLines writes a difference: first who gains (+) or loses (-), then what
// else changes (~). Of the templates only the fields are looked at.
func (a *app) changeLines(changes []policy.Change, fields []string, old, new *policy.Template) []string {
	var lines []string
	for _, c := range changes {
		lines = append(lines, a.principalLine(c))
	}
	change := func(what, a, b string) {
		lines = append(lines, fmt.Sprintf("~ %s: %s → %s", what, or(a, "none"), or(b, "none")))
	}
	texts := func(what string, a, b map[string]string) {
		for _, lang := range slices.Sorted(maps.Keys(merged(a, b))) {
			if a[lang] != b[lang] {
				change(what+" ("+lang+")", a[lang], b[lang])
			}
		}
	}
	for _, field := range fields {
		switch field {
		case "id":
			change(field, old.Slug, new.Slug)
		case "names":
			texts("name", old.Names, new.Names)
		case "descriptions":
			texts("description", old.Descriptions, new.Descriptions)
		case "state":
			change(field, stateName(old.State), stateName(new.State))
		case "grants":
			lines = append(lines, "~ grants: the same in another order")
		case "expires":
			change(field, templatefile.FormatExpiry(old.Expiry), templatefile.FormatExpiry(new.Expiry))
		case "offline":
			change(field, templatefile.FormatOffline(old.Offline), templatefile.FormatOffline(new.Offline))
		case "select":
			change(field, principalList(old.Select), principalList(new.Select))
		case "contact":
			change(field, old.Contact, new.Contact)
		case "custody":
			change(field, custodyWord(old.Custody), custodyWord(new.Custody))
		default: // of a newer server
			lines = append(lines, "~ "+field)
		}
	}
	return lines
}

// principalLine says what one principal gains or loses.
func (a *app) principalLine(c policy.Change) string {
	sign := "~"
	switch {
	case c.Less:
		sign = "-"
	case c.More:
		sign = "+"
	}
	before, after := a.grantList(c.Before), a.grantList(c.After)
	switch {
	case len(c.Before) == 0 && c.More:
		return fmt.Sprintf("%s %s  gains %s", sign, c.To, after)
	case len(c.After) == 0 && c.Less:
		return fmt.Sprintf("%s %s  loses %s", sign, c.To, before)
	}
	line := fmt.Sprintf("%s %s  %s → %s", sign, c.To, or(before, "none"), or(after, "none"))
	switch {
	case c.Loses != 0 && c.Gains != 0:
		return line + ": loses " + c.Loses.String() + ", gains " + c.Gains.String()
	case c.Loses != 0:
		return line + ": loses " + c.Loses.String()
	case c.Gains != 0:
		return line + ": gains " + c.Gains.String()
	}
	return line
}

// grantList writes the grants of one principal.
func (a *app) grantList(grants []policy.Grant) string {
	const most = 4
	var out []string
	for i, g := range grants {
		if i == most {
			return strings.Join(out, ", ") + fmt.Sprintf(" and %s more", group(int64(len(grants)-most)))
		}
		out = append(out, policy.Describe(g.Rights)+a.grantTerms(g))
	}
	return strings.Join(out, " and ")
}

func merged[K comparable, V any](a, b map[K]V) map[K]V {
	m := maps.Clone(a)
	if m == nil {
		m = map[K]V{}
	}
	maps.Copy(m, b)
	return m
}

// grantTerms is what limits a grant, to follow its rights.
func (a *app) grantTerms(g policy.Grant) string {
	var b strings.Builder
	if !g.Until.IsZero() {
		b.WriteString(" until " + showTime(g.Until))
		if !g.Until.After(a.now()) {
			b.WriteString(" (ended)")
		}
	}
	if g.Login == policy.LoginMFA {
		b.WriteString(" with a second factor")
	}
	if len(g.Networks) > 0 {
		var names []string
		for _, n := range policy.SortedNetworks(g.Networks) {
			names = append(names, n.String())
		}
		b.WriteString(" from " + strings.Join(names, ", "))
	}
	return b.String()
}

func stateName(s policy.State) string {
	switch s {
	case policy.StatePublished:
		return "published"
	case policy.StateArchived:
		return "archived"
	case policy.StateDeleted:
		return "deleted"
	}
	return ""
}

func custodyWord(m vocab.CustodyMode) string {
	if m == 0 {
		return "the tenant's"
	}
	return m.String()
}

func principalList(list []vocab.Principal) string {
	var names []string
	for _, p := range policy.SortedPrincipals(list) {
		names = append(names, p.String())
	}
	return strings.Join(names, ", ")
}

func or(s, fallback string) string {
	if s == "" {
		return fallback
	}
	return s
}
