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
// over another: first who gains (+) or loses (-), then what else changes (~).
// No lines means that both say the same. Revision, author, comment and time
// do not count.
func templateDiff(old, new *policy.Template) []string {
	var lines []string
	changes, fields := policy.Diff(old, new)
	for _, c := range changes {
		lines = append(lines, grantDiff(c.To, c.Before, c.After)...)
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
		default:
			lines = append(lines, "~ "+field)
		}
	}
	return lines
}

func merged[K comparable, V any](a, b map[K]V) map[K]V {
	m := maps.Clone(a)
	if m == nil {
		m = map[K]V{}
	}
	maps.Copy(m, b)
	return m
}

// grantDiff compares what one principal has. Grants that are the same on both
// sides do not count.
func grantDiff(p vocab.Principal, before, after []policy.Grant) []string {
	key := func(g policy.Grant) string {
		return fmt.Sprint(uint32(g.Rights), g.Until.UnixMilli(), g.Login, g.Networks)
	}
	var gone, come []policy.Grant
	left := slices.Clone(after)
	for _, g := range before {
		if i := slices.IndexFunc(left, func(h policy.Grant) bool { return key(g) == key(h) }); i >= 0 {
			left = slices.Delete(left, i, i+1)
		} else {
			gone = append(gone, g)
		}
	}
	come = left
	if len(gone)+len(come) == 0 {
		return []string{fmt.Sprintf("~ %s  the same grants in another order", p)}
	}
	if len(gone) == 1 && len(come) == 1 {
		return []string{changedGrant(p, gone[0], come[0])}
	}
	var lines []string
	for _, g := range gone {
		lines = append(lines, fmt.Sprintf("- %s  loses %s%s", p, policy.Describe(g.Rights), grantTerms(g)))
	}
	for _, g := range come {
		lines = append(lines, fmt.Sprintf("+ %s  gains %s%s", p, policy.Describe(g.Rights), grantTerms(g)))
	}
	return lines
}

func changedGrant(p vocab.Principal, old, new policy.Grant) string {
	// What OWNER implies is not lost with the word.
	lost, gained := old.Rights.Effective()&^new.Rights.Effective(), new.Rights.Effective()&^old.Rights.Effective()
	line := fmt.Sprintf("%s  %s%s → %s%s", p, policy.Describe(old.Rights), grantTerms(old), policy.Describe(new.Rights), grantTerms(new))
	sign := "~"
	switch {
	case lost != 0:
		sign = "-"
		line += ": loses " + lost.String()
		if gained != 0 {
			line += ", gains " + gained.String()
		}
	case gained != 0:
		sign = "+"
		line += ": gains " + gained.String()
	}
	return sign + " " + line
}

// grantTerms is what limits a grant, to follow its rights.
func grantTerms(g policy.Grant) string {
	var b strings.Builder
	if !g.Until.IsZero() {
		b.WriteString(" until " + showTime(g.Until))
	}
	if g.Login == policy.LoginMFA {
		b.WriteString(" with a second factor")
	}
	if len(g.Networks) > 0 {
		names := make([]string, len(g.Networks))
		for i, n := range g.Networks {
			names[i] = n.String()
		}
		slices.Sort(names)
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
	names := make([]string, len(list))
	for i, p := range list {
		names[i] = p.String()
	}
	return strings.Join(names, ", ")
}

func or(s, fallback string) string {
	if s == "" {
		return fallback
	}
	return s
}
