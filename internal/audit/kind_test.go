package audit

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// The published description of the log names every kind of event.
func TestKindsAreDescribed(t *testing.T) {
	doc, err := os.ReadFile("../../docs/audit.md")
	if err != nil {
		t.Fatal(err)
	}
	for kind, name := range kindNames {
		if want := fmt.Sprintf("%d `%s`", uint16(kind), name); !strings.Contains(string(doc), want) {
			t.Errorf("docs/audit.md does not list %s", want)
		}
		if back, ok := ParseKind(name); !ok || back != kind {
			t.Errorf("%s reads back as %d", name, back)
		}
	}
}
