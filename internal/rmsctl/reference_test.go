package rmsctl

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

var update = flag.Bool("update", false, "write docs/rmsctl-reference.md anew")

// The reference is made from the command tree, and a stale one fails.
func TestReferenceIsCurrent(t *testing.T) {
	const path = "../../docs/rmsctl-reference.md"
	var b strings.Builder
	b.WriteString("# rmsctl: all commands\n\nMade from the command tree by\n`go test ./internal/rmsctl -run TestReferenceIsCurrent -update`. The guide is [rmsctl.md](rmsctl.md).\n")
	root := (&app{}).root()
	fmt.Fprintf(&b, "\nFlags of every command:\n\n```\n%s```\n", root.PersistentFlags().FlagUsages())
	describeCommand(&b, root)
	if *update {
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(have) != b.String() {
		t.Error("docs/rmsctl-reference.md is stale: run this test with -update")
	}
}

func describeCommand(b *strings.Builder, c *cobra.Command) {
	for _, sub := range c.Commands() {
		if sub.Hidden {
			continue
		}
		if len(sub.Commands()) == 0 || sub.LocalNonPersistentFlags().HasAvailableFlags() {
			fmt.Fprintf(b, "\n## %s\n\n", sub.CommandPath())
			text := sub.Long
			if text == "" {
				text = sub.Short + "."
			}
			b.WriteString(text + "\n\n```\n" + sub.UseLine() + "\n")
			if sub.Example != "" {
				b.WriteString("\n" + sub.Example + "\n")
			}
			if sub.LocalNonPersistentFlags().HasAvailableFlags() {
				b.WriteString("\n" + sub.LocalNonPersistentFlags().FlagUsages())
			}
			b.WriteString("```\n")
		}
		describeCommand(b, sub)
	}
}

// Every command says what it does, in one line without a full stop.
func TestHelpTexts(t *testing.T) {
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			if !sub.Hidden && (sub.Short == "" || strings.HasSuffix(sub.Short, ".") || len(sub.Short) > 110) {
				t.Errorf("%s: %q", sub.CommandPath(), sub.Short)
			}
			walk(sub)
		}
	}
	walk((&app{}).root())
}
