package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// What the operator's guide says the daemon says, the daemon says: each text
// and reason of its tables is in the program.
func TestOperatorsGuide(t *testing.T) {
	page, err := os.ReadFile("../../docs/operating.md")
	if err != nil {
		t.Fatal(err)
	}
	// Texts of a library, or put together as the program runs; the scripts
	// have them.
	source := []byte("field, not found in type, address already in use, this is a development store, not a production one, rms.db.lock")
	err = filepath.WalkDir("../../internal", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
			return err
		}
		b, err := os.ReadFile(path)
		source = append(source, b...)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	rows := 0
	for _, row := range regexp.MustCompile(`(?m)^\| ([^|]+) \|.*\|$`).FindAllStringSubmatch(string(page), -1) {
		var said []string
		for _, quoted := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(row[1], -1) {
			said = append(said, strings.FieldsFunc(strings.ReplaceAll(quoted[1], " N ", "…"), func(r rune) bool { return r == '…' })...)
		}
		said = append(said, regexp.MustCompile(`\b[A-Z]{3,}(?:_[A-Z]+)+\b`).FindAllString(row[1], -1)...)
		for _, text := range said {
			rows++
			if text = strings.TrimSpace(text); !strings.Contains(string(source), strings.TrimSuffix(text, ":")) {
				t.Errorf("the daemon never says %q", text)
			}
		}
	}
	if rows < 30 {
		t.Errorf("only %d texts were found in the guide's tables", rows)
	}
}
