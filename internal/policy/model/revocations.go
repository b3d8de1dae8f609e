package model

import (
	"slices"
	"strings"
)

// Rule is a revocation of many licenses in the model's form: conditions, each
// of which is one or is not there.
type Rule struct {
	For, Owner  string // principals as text, "" for no condition
	Template    string
	From, Until int64 // ms; Since and Before say whether they are there
	Since       bool
	Before      bool
	MadeFrom    string
}

// Document is what of a license a rule can be about.
type Document struct {
	Name, Owner, Template string
	Published             int64    // ms
	MadeFrom              []string // directly and through others
	TooManyToSay          bool     // it may be made from any document
}

// Verdict is whether a rule covers somebody's opening of a document.
type Verdict string

// Verdicts.
const (
	Covers     Verdict = "covers"
	MayCover   Verdict = "may cover" // if the caller is in the group
	CoversNone Verdict = "covers none"
)

// Judge asks the conditions one after the other. through is the service that
// calls for the caller, if one does; nobody as caller stands for everybody.
func (r Rule) Judge(d Document, caller, through *Person) Verdict {
	if r.Owner != "" && r.Owner != d.Owner {
		return CoversNone
	}
	if r.Template != "" && r.Template != d.Template {
		return CoversNone
	}
	if r.Since && d.Published < r.From || r.Before && d.Published >= r.Until {
		return CoversNone
	}
	if r.MadeFrom != "" && d.Name != r.MadeFrom && !slices.Contains(d.MadeFrom, r.MadeFrom) && !d.TooManyToSay {
		return CoversNone
	}
	if r.For == "" || r.is(caller) || r.is(through) {
		return Covers
	}
	if strings.HasPrefix(r.For, "group:") && (caller != nil && caller.MoreGroups || through != nil && through.MoreGroups) {
		return MayCover
	}
	return CoversNone
}

// is: does the rule mean this person or service, by any name at all?
func (r Rule) is(p *Person) bool {
	if p == nil {
		return false
	}
	kind, value, _ := strings.Cut(r.For, ":")
	switch kind {
	case "user":
		return slices.Contains(p.Addresses, value)
	case "domain":
		return slices.ContainsFunc(p.Addresses, func(a string) bool { return strings.HasSuffix(a, "@"+value) })
	case "group":
		return slices.Contains(p.Groups, value)
	case "service":
		return p.Service != "" && p.Service == value
	}
	return false
}
