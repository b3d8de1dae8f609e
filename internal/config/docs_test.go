package config

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/openrms/rms/internal/identity"
)

const manual = "../../docs/configuration.md"

var exampleBlock = regexp.MustCompile("(?s)```yaml\n# ([a-z./]+)\n(.*?)```")

// TestManualLoads puts the manual's examples where their first lines say and
// loads them.
func TestManualLoads(t *testing.T) {
	text, err := os.ReadFile(manual)
	if err != nil {
		t.Fatal(err)
	}
	var file string
	tenants := map[string]string{}
	for _, m := range exampleBlock.FindAllStringSubmatch(string(text), -1) {
		if m[1] == "rmsd.yaml" {
			file = m[2]
		} else {
			tenants[strings.TrimPrefix(m[1], "tenants.d/")] = m[2]
		}
	}
	if n := strings.Count(string(text), "```yaml"); n != 1+len(tenants) {
		t.Errorf("the manual has %d examples, of which %d say where they belong", n, 1+len(tenants))
	}
	c, err := Load(folder(t, file, tenants))
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Tenants) != len(tenants) || len(tenants) < 2 {
		t.Errorf("%d of %d tenants loaded", len(c.Tenants), len(tenants))
	}

	// What the manual shows as a default is one.
	entra := c.IdentityProviders["entra-contoso"]
	for _, d := range []struct {
		field     string
		got, want any
	}{
		{"limits", c.Limits, Limits{DefaultPerCaller, DefaultPerTenant, DefaultConnections}},
		{"max_token_age", entra.MaxTokenAge, identity.DefaultMaxTokenAge},
		{"token", entra.Token, identity.TokenAccess},
		{"timeout", c.Tenants["contoso"].Custodians["contoso-vault"].Vault.Timeout, 3 * time.Second},
	} {
		if d.got != d.want {
			t.Errorf("the manual shows %v as the default of %s, which is %v", d.got, d.field, d.want)
		}
	}
}

// TestManualIsComplete finds every key of the structs in the manual.
func TestManualIsComplete(t *testing.T) {
	text, err := os.ReadFile(manual)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range slices.Concat(keysOf(reflect.TypeFor[File]()), keysOf(reflect.TypeFor[Tenant]())) {
		if !regexp.MustCompile(`(?m)(^ *|[{ ]|` + "`)" + key + `:`).Match(text) {
			t.Errorf("%s does not explain the key %s", filepath.Base(manual), key)
		}
	}
}

// keysOf returns the YAML keys of a struct and of the structs in it.
func keysOf(t reflect.Type) (keys []string) {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Map || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return nil
	}
	for f := range t.Fields() {
		tag, ok := f.Tag.Lookup("yaml")
		if !ok {
			continue
		}
		name, _, _ := strings.Cut(tag, ",")
		keys = append(keys, name)
		keys = append(keys, keysOf(f.Type)...)
	}
	return keys
}
