package container_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"flag"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openrms/rms/internal/container"
	"github.com/openrms/rms/internal/vocab"
)

var update = flag.Bool("update", false, "write the container vector anew")

// vector is what v1.json says of the container beside it.
type vector struct {
	Keys struct {
		ContentKey string `json:"content_key"`
	} `json:"keys"`
	IDs struct {
		Tenant  string `json:"tenant_id"`
		Content string `json:"content_id"`
	} `json:"ids"`
	Derived struct {
		Prefix string `json:"container_prefix"`
	} `json:"derived"`
	License   string `json:"publishing_license"`
	Container struct {
		Name    string `json:"name"`
		Type    string `json:"type"`
		Size    int64  `json:"size"`
		ModTime int64  `json:"mtime"`
		Content string `json:"content"`
	} `json:"container"`
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The container that docs/formats.md publishes opens for ever. verify.py
// beside it opens the same bytes with nothing of this package.
func TestVector(t *testing.T) {
	dir := filepath.Join("..", "license", "testdata", "vectors")
	b, err := os.ReadFile(filepath.Join(dir, "v1.json"))
	if err != nil {
		t.Fatal(err)
	}
	var v vector
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	ck := vocab.SecretFrom(unhex(t, v.Keys.ContentKey)) // test value
	license, plain := unhex(t, v.License), unhex(t, v.Container.Content)
	prefix := container.NewPrefix(vocab.TenantID(unhex(t, v.IDs.Tenant)), vocab.ContentID(unhex(t, v.IDs.Content)), ck)
	meta := container.Meta{Name: v.Container.Name, Type: v.Container.Type, Size: v.Container.Size, ModTime: time.UnixMilli(v.Container.ModTime).UTC()}
	path := filepath.Join(dir, "v1.rms")
	if *update {
		d := &document{ck: ck, prefix: prefix, license: license, meta: meta, plain: plain}
		if err := os.WriteFile(path, d.write(t), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(file[:container.PrefixSize], unhex(t, v.Derived.Prefix)) {
		t.Errorf("prefix % x", file[:container.PrefixSize])
	}
	src := bytes.NewReader(file)
	h, err := container.ReadHeader(src)
	if err != nil {
		t.Fatal(err)
	}
	if h.Prefix() != prefix {
		t.Errorf("prefix %+v, want %+v", h.Prefix(), prefix)
	}
	if got, err := h.License(); err != nil || !bytes.Equal(got, license) {
		t.Errorf("the license differs: %v", err)
	}
	if got, err := h.Meta(ck); err != nil || got != meta {
		t.Errorf("metadata: %s, %v", cmp.Diff(meta, got), err)
	}
	r, err := h.Reader(src, ck)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, plain) {
		t.Errorf("content %q, %v", got, err)
	}
}
