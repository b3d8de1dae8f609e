package custody_test

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// rule is one path of a policy, as its text says it.
type rule struct {
	path         string
	capabilities []string
	required     []string // parameters
	allowed      []parameter
}

// parameter is one that a request may have, with the values it may have; none is
// any.
type parameter struct {
	name   string
	values []string // as they stand in the text
}

var (
	pathLine   = regexp.MustCompile(`^path "([^"]+)" *\{`)
	attribute  = regexp.MustCompile(`(?s)^\s*(capabilities|required_parameters|allowed_parameters)\s*=\s*(\[[^\]]*\]|\{[^}]*\})`)
	listed     = regexp.MustCompile(`"(?:[^"\\]|\\.)*"|true|false`)
	parameters = regexp.MustCompile(`"([^"]+)"\s*=\s*\[([^\]]*)\]`)
)

// readPolicy takes the text of a policy apart. A construct it does not know ends
// the test: it would otherwise not be tried.
func readPolicy(t *testing.T, text string) (rules []rule) {
	t.Helper()
	lines := slices.DeleteFunc(strings.Split(text, "\n"), func(l string) bool { return strings.HasPrefix(l, "#") })
	rest := strings.TrimSpace(strings.Join(lines, "\n"))
	for rest != "" {
		m := pathLine.FindStringSubmatch(rest)
		if m == nil {
			t.Fatalf("a policy has %q where a path should stand", rest)
		}
		r := rule{path: m[1]}
		rest = rest[len(m[0]):]
		for {
			m := attribute.FindStringSubmatch(rest)
			if m == nil {
				break
			}
			rest = rest[len(m[0]):]
			switch m[1] {
			case "capabilities":
				r.capabilities = listed.FindAllString(m[2], -1)
			case "required_parameters":
				r.required = listed.FindAllString(m[2], -1)
			case "allowed_parameters":
				for _, p := range parameters.FindAllStringSubmatch(m[2], -1) {
					r.allowed = append(r.allowed, parameter{p[1], listed.FindAllString(p[2], -1)})
				}
			}
		}
		rest = strings.TrimSpace(rest)
		if !strings.HasPrefix(rest, "}") {
			t.Fatalf("path %s of a policy has %q, which this test does not know", r.path, rest)
		}
		rest = strings.TrimSpace(rest[1:])
		rules = append(rules, r)
	}
	return rules
}

func (r rule) String() string {
	s := fmt.Sprintf("path %q {\n  capabilities = [%s]\n", r.path, strings.Join(r.capabilities, ", "))
	if r.required != nil {
		s += "  required_parameters = [" + strings.Join(r.required, ", ") + "]\n"
	}
	if r.allowed != nil {
		var ps []string
		for _, p := range r.allowed {
			ps = append(ps, fmt.Sprintf("%q = [%s]", p.name, strings.Join(p.values, ", ")))
		}
		s += "  allowed_parameters = { " + strings.Join(ps, ", ") + " }\n"
	}
	return s + "}\n"
}

func policyText(rules []rule) string {
	var s strings.Builder
	for _, r := range rules {
		s.WriteString(r.String())
	}
	return s.String()
}

// mutant is a policy with one thing taken out of it.
type mutant struct {
	name string // what is taken out
	text string
	// wider: what is taken out is a restriction, so that more is allowed.
	wider bool
}

// mutants takes out each path, capability, parameter, value and restriction in
// turn.
func mutants(rules []rule) (out []mutant) {
	with := func(i int, change func(r *rule)) string {
		changed := slices.Clone(rules)
		change(&changed[i])
		return policyText(changed)
	}
	without := func(s []string, at int) []string { return slices.Delete(slices.Clone(s), at, at+1) }
	for i, r := range rules {
		out = append(out, mutant{name: r.path, text: policyText(slices.Delete(slices.Clone(rules), i, i+1))})
		if len(r.capabilities) > 1 {
			for j, c := range r.capabilities {
				out = append(out, mutant{name: r.path + " " + unquote(c), text: with(i, func(r *rule) { r.capabilities = without(r.capabilities, j) })})
			}
		}
		for j, p := range r.required {
			out = append(out, mutant{r.path + " must " + unquote(p), with(i, func(r *rule) {
				if r.required = without(r.required, j); len(r.required) == 0 {
					r.required = nil
				}
			}), true})
		}
		if r.allowed != nil {
			out = append(out, mutant{r.path + " may only", with(i, func(r *rule) { r.allowed = nil }), true})
		}
		for j, p := range r.allowed {
			set := func(change func(*parameter)) string {
				return with(i, func(r *rule) {
					r.allowed = slices.Clone(r.allowed)
					change(&r.allowed[j])
				})
			}
			if len(r.allowed) > 1 {
				out = append(out, mutant{name: r.path + " may " + p.name, text: with(i, func(r *rule) { r.allowed = slices.Delete(slices.Clone(r.allowed), j, j+1) })})
			}
			if p.values != nil {
				out = append(out, mutant{r.path + " may " + p.name + " only", set(func(p *parameter) { p.values = nil }), true})
			}
			if len(p.values) > 1 {
				for k, v := range p.values {
					out = append(out, mutant{name: r.path + " may " + p.name + "=" + v, text: set(func(p *parameter) { p.values = without(p.values, k) })})
				}
			}
		}
	}
	return out
}

func unquote(s string) string { return strings.Trim(s, `"`) }
