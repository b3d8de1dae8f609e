// Package approverfile reads and writes a tenant's approvers as a file for
// people: YAML, one document, as `rmsctl approver set` takes it and `rmsctl
// approver export` writes it. Reading is as strict as that of templates.
package approverfile

import (
	"fmt"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	"golang.org/x/text/unicode/norm"

	"github.com/openrms/rms/internal/operation"
	"github.com/openrms/rms/internal/policy/strictyaml"
	"github.com/openrms/rms/internal/sshsig"
	"github.com/openrms/rms/internal/vocab"
)

// MaxBytes is the largest file, enough for all approvers that may be.
const MaxBytes = 1 << 20

var (
	kind = strictyaml.Kind{Name: "Approvers", Noun: "approvers", MaxBytes: MaxBytes, MaxDocuments: 1}
	keys = []string{"kind", "threshold", "approvers"}
	each = []string{"who", "label", "keys"}
)

// Parse reads a file. It returns a [vocab.Error] with
// [vocab.ReasonConfigurationInvalid], which names the line where that helps.
func Parse(file []byte) (*operation.ApproverSet, error) {
	var out *operation.ApproverSet
	err := kind.Documents(file, func(root *yaml.Node) (err error) {
		out, err = parse(root)
		return err
	})
	if err != nil {
		return nil, err
	}
	out.Sort()
	if err := out.Validate(); err != nil {
		return nil, vocab.Errorf(vocab.ReasonConfigurationInvalid, "approvers: %s", strictyaml.Message(err))
	}
	return out, nil
}

func parse(root *yaml.Node) (*operation.ApproverSet, error) {
	s := &operation.ApproverSet{}
	return s, strictyaml.Mapping(root, "approvers", keys, map[string]strictyaml.Field{
		"kind": kind.Field(),
		"threshold": {Required: "threshold: 2", Read: func(n *yaml.Node) error {
			text, err := strictyaml.Scalar(n, "threshold")
			if err != nil {
				return err
			}
			m, err := strconv.ParseUint(text, 10, 8)
			if err != nil {
				return strictyaml.Fail(n.Line, "threshold: %q is not how many of the approvers must sign", strictyaml.Clip(text))
			}
			s.Threshold = uint8(m)
			return nil
		}},
		"approvers": {Required: "approvers: [{who: anna@contoso.com, keys: [ssh-ed25519 AAAA…]}]", Read: func(n *yaml.Node) error {
			return strictyaml.List(n, "approvers", operation.MaxApprovers, func(e *yaml.Node) error {
				a, err := parseApprover(e)
				if err == nil {
					s.Approvers = append(s.Approvers, *a)
				}
				return err
			})
		}},
	})
}

func parseApprover(n *yaml.Node) (*operation.Approver, error) {
	a := &operation.Approver{}
	return a, strictyaml.Mapping(n, "an approver", each, map[string]strictyaml.Field{
		"who": {Required: "who: anna@contoso.com", Read: strictyaml.Word("who", func(s string) error {
			if !strings.Contains(s, ":") {
				s = "user:" + s
			}
			p, err := vocab.ParsePrincipal(s)
			if err == nil && p.Kind != vocab.KindUser {
				err = fmt.Errorf("%s is not one person", p) //nolint:err113 // a sentence for people
			}
			a.Principal = p.String()
			return err
		})},
		"label": {Read: func(n *yaml.Node) error {
			s, err := strictyaml.Text(n, "label")
			a.Label = norm.NFC.String(s)
			return err
		}},
		"keys": {Required: "keys: [ssh-ed25519 AAAA…]", Read: func(n *yaml.Node) error {
			return strictyaml.List(n, "keys", operation.MaxApproverKeys, func(e *yaml.Node) error {
				line, err := strictyaml.Text(e, "keys")
				if err != nil {
					return err
				}
				k, err := sshsig.ParseAuthorizedKey(line)
				if err != nil {
					return strictyaml.Fail(e.Line, "%s", strictyaml.Message(err))
				}
				a.Keys = append(a.Keys, k.Wire())
				return nil
			})
		}},
	})
}

// Format writes a set as a file that [Parse] reads back as the same set. The same
// set gives the same bytes.
func Format(s *operation.ApproverSet) ([]byte, error) {
	root := strictyaml.NewObject(0)
	root.Add("kind", strictyaml.Str(kind.Name))
	root.Add("threshold", strictyaml.Raw(strconv.Itoa(int(s.Threshold))))
	list := &yaml.Node{Kind: yaml.SequenceNode}
	for i := range s.Approvers {
		a := &s.Approvers[i]
		o := strictyaml.NewObject(0)
		o.Add("who", strictyaml.Str(strings.TrimPrefix(a.Principal, "user:")))
		if a.Label != "" {
			o.Add("label", strictyaml.Str(a.Label))
		}
		own := &yaml.Node{Kind: yaml.SequenceNode}
		for _, wire := range a.Keys {
			k, err := sshsig.ParseKey(wire)
			if err != nil {
				return nil, err
			}
			own.Content = append(own.Content, strictyaml.Str(k.String()))
		}
		o.Add("keys", own)
		list.Content = append(list.Content, o.Node)
	}
	root.Add("approvers", list)
	b, err := strictyaml.Encode(root.Node)
	if err != nil {
		return nil, fmt.Errorf("write approvers: %w", err)
	}
	return b, nil
}
