package main

import (
	"bytes"
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/openrms/rms/rmstest"
)

func TestExample(t *testing.T) {
	svc := rmstest.Start(t)
	root := svc.Trust().RootKeyIDs[0]
	common := []string{"-server", svc.Address(), "-tenant", svc.Tenant(), "-ca", svc.CAFile()}
	pinned := append(common, "-root", "SHA256:"+base64.RawStdEncoding.EncodeToString(root[:]))
	path := filepath.Join(t.TempDir(), "q3.txt")
	if err := os.WriteFile(path, []byte("third quarter"), 0o600); err != nil {
		t.Fatal(err)
	}
	call := func(who, verb string, args ...string) (string, error) {
		var out bytes.Buffer
		err := run(t.Context(), append([]string{verb}, args...), svc.Token(who), &out)
		return out.String(), err
	}
	with := func(args []string, more ...string) []string { return append(append([]string(nil), args...), more...) }

	if _, err := call("alice", "protect", with(common, path)...); err == nil || !strings.Contains(err.Error(), "SHA256:") {
		t.Errorf("without a pinned root: %v", err)
	}
	if out, err := call("alice", "protect", with(pinned, "-to", "user:bob@contoso.test", path)...); err != nil || !strings.Contains(out, "license") {
		t.Fatalf("%q, %v", out, err)
	}
	if out, err := call("bob", "open", with(pinned, path+".rms")...); err != nil || out != "third quarter" {
		t.Errorf("bob: %q, %v", out, err)
	}
	if out, err := call("mallory", "open", with(pinned, path+".rms")...); err == nil || out != "" || !strings.Contains(err.Error(), "NO_RIGHTS") {
		t.Errorf("mallory: %q, %v", out, err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".protecting-*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	for _, args := range [][]string{nil, {"eat"}, {"open"}, {"open", "-x"}} {
		if err := run(t.Context(), args, "", &bytes.Buffer{}); err == nil {
			t.Errorf("%v was accepted", args)
		}
	}
}
