package tenant_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

// TestOnlyResealsOpenForReseal keeps the ring's ways to open what is compromised
// from being called by anything but reseals: in the files of those they are, and
// nowhere else in the service.
func TestOnlyResealsOpenForReseal(t *testing.T) {
	guarded := map[string]bool{"OpenForReseal": true, "OpenDocumentsForReseal": true}
	found := 0
	if err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() && strings.HasPrefix(d.Name(), ".") && d.Name() != ".." {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok && guarded[s.Sel.Name] {
				found++
				if filepath.Base(path) != "resealaway.go" {
					t.Errorf("%s uses %s", path, s.Sel.Name)
				}
			}
			return true
		})
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if found != 2 {
		t.Errorf("they are used %d times, want 2", found)
	}
}
