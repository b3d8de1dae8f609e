package templatefile

import (
	"go.yaml.in/yaml/v3"

	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/vocab"
)

// ParseNode reads a template that stands inside another file, as [Parse] does.
func ParseNode(root *yaml.Node) (*policy.Template, error) { return parseTemplate(root) }

// ParseRights reads a level or a list of rights, as a grant has them.
func ParseRights(n *yaml.Node) (vocab.Rights, error) { return parseRights(n) }
