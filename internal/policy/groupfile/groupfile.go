// Package groupfile reads and writes groups of the tenant's directory as files
// for people: YAML, one document for each group, as `rmsctl group apply` takes
// them and `rmsctl group show` writes them. Reading is as strict as that of
// templates.
package groupfile

import (
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	"golang.org/x/text/unicode/norm"

	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/policy/strictyaml"
	"github.com/openrms/rms/internal/vocab"
)

// Limits of one file.
const (
	// MaxBytes is enough for one group with all the members it may have.
	MaxBytes = 8 << 20
	// MaxGroups is how many documents a file may hold.
	MaxGroups = 10_000
	// MaxMembers is how many members a group may have.
	MaxMembers = 50_000
)

// Group is a group as a file says it.
type Group struct {
	Address string
	// Members are users, services and groups, sorted, without doubles.
	Members     []vocab.Principal
	Description string
}

var (
	kind = strictyaml.Kind{Name: "Group", Noun: "group", MaxBytes: MaxBytes, MaxDocuments: MaxGroups}
	keys = []string{"kind", "id", "members", "description"}
)

// Parse reads all groups of a file. It returns a [vocab.Error] with
// [vocab.ReasonConfigurationInvalid] that names the line, and no group, if
// anything in the file is wrong.
func Parse(file []byte) ([]*Group, error) {
	var out []*Group
	seen := map[string]bool{}
	err := kind.Documents(file, func(root *yaml.Node) error {
		g, err := parseGroup(root)
		if err != nil {
			return err
		}
		if seen[g.Address] {
			return strictyaml.Fail(root.Line, "the group %s is in the file twice", g.Address)
		}
		seen[g.Address] = true
		out = append(out, g)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func parseGroup(root *yaml.Node) (*Group, error) {
	g := &Group{}
	lines := map[vocab.Principal]int{} // where a member is named
	err := strictyaml.Mapping(root, "a group", keys, map[string]strictyaml.Field{
		"kind": kind.Field(),
		"id": {Required: "id: finance@contoso.com", Read: strictyaml.Word("id", func(s string) (err error) {
			g.Address, err = vocab.CanonicalAddress(s)
			return err
		})},
		"members": {Required: "members: [bob@contoso.com]", Read: func(n *yaml.Node) error {
			return strictyaml.List(n, "members", MaxMembers, func(e *yaml.Node) error {
				p, err := parseMember(e)
				if err != nil {
					return err
				}
				if lines[p] > 0 {
					return strictyaml.Fail(e.Line, "%s is a member twice: see line %d", p, lines[p])
				}
				lines[p] = e.Line
				g.Members = append(g.Members, p)
				return nil
			})
		}},
		"description": {Read: func(n *yaml.Node) error {
			s, err := strictyaml.Text(n, "description")
			if err != nil {
				return err
			}
			if g.Description = norm.NFC.String(s); !policy.PlainText(g.Description, policy.MaxText) {
				return strictyaml.Fail(n.Line, "the description is longer than %d bytes, or not one line of plain text", policy.MaxText)
			}
			return nil
		}},
	})
	if err != nil {
		return nil, err
	}
	if line := lines[vocab.Principal{Kind: vocab.KindGroup, Value: g.Address}]; line > 0 {
		return nil, strictyaml.Fail(line, "%s cannot be a member of itself", g.Address)
	}
	slices.SortFunc(g.Members, vocab.Principal.Compare)
	return g, nil
}

// parseMember reads a principal; an address alone is a user's.
func parseMember(n *yaml.Node) (vocab.Principal, error) {
	s, err := strictyaml.Text(n, "members")
	if err != nil {
		return vocab.Principal{}, err
	}
	if !strings.Contains(s, ":") && strings.Contains(s, "@") {
		s = "user:" + s
	}
	p, err := vocab.ParsePrincipal(s)
	if err != nil {
		return p, strictyaml.Fail(n.Line, "%s", err.Error())
	}
	switch p.Kind {
	case vocab.KindUser, vocab.KindService, vocab.KindGroup:
		return p, nil
	default:
		return p, strictyaml.Fail(n.Line, "%s cannot be a member", p).WithNext("Name users, services and groups")
	}
}

// CheckApart refuses groups that would stand in a circle among themselves. What
// is already there, only the service knows.
func CheckApart(groups []*Group) error {
	byAddress := map[string]*Group{}
	for _, g := range groups {
		byAddress[g.Address] = g
	}
	const under, over = 1, 2 // on the way that is being walked, and walked to its end
	state := map[string]int{}
	var way []string
	var walk func(g *Group) error
	walk = func(g *Group) error {
		state[g.Address] = under
		way = append(way, g.Address)
		for _, m := range g.Members {
			below := byAddress[m.Value]
			switch {
			case m.Kind != vocab.KindGroup || below == nil || state[below.Address] == over:
			case state[below.Address] == under:
				circle := append(way[slices.Index(way, below.Address):], below.Address)
				return vocab.Errorf(vocab.ReasonConfigurationInvalid, "groups would stand in a circle: %s", strings.Join(circle, " contains "))
			default:
				if err := walk(below); err != nil {
					return err
				}
			}
		}
		way = way[:len(way)-1]
		state[g.Address] = over
		return nil
	}
	for _, g := range groups {
		if state[g.Address] == 0 {
			if err := walk(g); err != nil {
				return err
			}
		}
	}
	return nil
}

// Format writes groups as one file that [Parse] reads back as the same groups.
// The same groups give the same bytes.
func Format(groups ...*Group) ([]byte, error) {
	var roots []*yaml.Node
	for _, g := range groups {
		o := strictyaml.NewObject(0)
		o.Add("kind", strictyaml.Str(kind.Name))
		o.Add("id", strictyaml.Str(g.Address))
		if g.Description != "" {
			o.Add("description", strictyaml.Str(g.Description))
		}
		members := &yaml.Node{Kind: yaml.SequenceNode}
		if len(g.Members) == 0 {
			members.Style = yaml.FlowStyle
		}
		for _, p := range g.Members {
			if p.Kind == vocab.KindUser {
				members.Content = append(members.Content, strictyaml.Str(p.Value))
			} else {
				members.Content = append(members.Content, strictyaml.Quoted(p.String()))
			}
		}
		o.Add("members", members)
		roots = append(roots, o.Node)
	}
	b, err := strictyaml.Encode(roots...)
	if err != nil {
		return nil, fmt.Errorf("write groups: %w", err)
	}
	return b, nil
}
