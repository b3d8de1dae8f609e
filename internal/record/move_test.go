package record

import (
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/openrms/rms/internal/store"
)

// A table that nobody thought of would stay behind when a tenant leaves.
func TestEveryTableIsCarriedOrRemade(t *testing.T) {
	t.Parallel()
	f, err := parser.ParseFile(token.NewFileSet(), "doc.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	known := append([]store.Table{tableTenants}, remade...)
	numbers := map[uint64]bool{}
	for _, c := range carried {
		if numbers[c.number] || c.number == 0 || c.number >= 100 {
			t.Errorf("the number of %s is taken, or not one of a table", c.table)
		}
		numbers[c.number] = true
		known = append(known, c.table)
	}
	found := 0
	ast.Inspect(f, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || !strings.HasPrefix(spec.Names[0].Name, "table") {
			return true
		}
		name, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
		if err != nil {
			t.Fatal(err)
		}
		if found++; !slices.Contains(known, store.Table(name)) {
			t.Errorf("table %s is neither carried nor made anew: give it a number in carried, or a place in remade", name)
		}
		return true
	})
	if found != len(known) {
		t.Errorf("%d tables are declared, %d are known", found, len(known))
	}
	if !slices.IsSorted(Carried()) {
		t.Error("the carried tables are not in the order of their numbers")
	}
}
