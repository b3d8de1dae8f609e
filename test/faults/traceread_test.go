package faults_test

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestReadTrace fixes what is read out of what strace writes, whole calls,
// interleaved ones and the ones the process was killed in.
func TestReadTrace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "trace")
	if err := os.WriteFile(path, []byte(`10 1795438295.242263 openat(AT_FDCWD, "\x2f\x64\x62", O_RDWR|O_CREAT|O_CLOEXEC, 0600 <unfinished ...>
11    1795438295.242264 close(3)        = 0
10 1795438295.242481 <... openat resumed>) = 5
10 1795438295.242518 pwrite64(5, "\x61\x2c\x22\x29", 4, 4096) = 4
11 1795438295.266896 accept4(5, {sa_family=AF_INET, sin_port=htons(53000), sin_addr=inet_addr("\x31")}, [112 => 16], SOCK_CLOEXEC) = 9
12 1795438295.266897 fsync(7) = -1 EIO (Input/output error)
12 1795438295.266898 +++ exited with 0 +++
11 1795438295.266899 write(9, "\x00", 1 <detached ...>
10 1795438295.266900 fdatasync(5) = ?
10 1795438295.266901 writ`), 0o600); err != nil {
		t.Fatal(err)
	}
	steps, err := readTrace(path)
	if err != nil {
		t.Fatal(err)
	}
	type seen struct {
		Name   string
		Args   []string
		Result int64
		Failed bool
		Exit   bool
	}
	var got []seen
	for _, s := range steps {
		got = append(got, seen{s.name, s.args, s.result, s.failed, s.exit})
	}
	open := []string{"AT_FDCWD", "/db", "O_RDWR|O_CREAT|O_CLOEXEC", "0600"}
	accept := []string{"5", `{sa_family=AF_INET, sin_port=htons(53000), sin_addr=inet_addr("\x31")}`, "[112 => 16]", "SOCK_CLOEXEC"}
	want := []seen{
		{"openat", open, 5, false, false},
		{"close", []string{"3"}, 0, false, false}, {"close", []string{"3"}, 0, false, true},
		{"openat", open, 5, false, true},
		{"pwrite64", []string{"5", `a,")`, "4", "4096"}, 4, false, false}, {"pwrite64", []string{"5", `a,")`, "4", "4096"}, 4, false, true},
		{"accept4", accept, 9, false, false}, {"accept4", accept, 9, false, true},
		{"fsync", []string{"7"}, -1, true, false}, {"fsync", []string{"7"}, -1, true, true},
		{"write", []string{"9", "\x00", "1"}, 0, false, false},
		{"fdatasync", []string{"5"}, 0, false, false},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for _, bad := range []string{
		"no time\n", "10 1.000001 close(3)\n", "10 1.000001 <... close resumed>) = 0\n",
		`10 1.000001 write(9, "\x61"..., 4096) = 4096` + "\n", "10 1.000001 close = 0\n",
	} {
		if _, err := appendLine(nil, map[string]*syscall{}, []byte(bad[:len(bad)-1])); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

// TestDisk fixes what the model leaves of a file after a power cut.
func TestDisk(t *testing.T) {
	at := func(name string, result int64, args ...string) *syscall {
		return &syscall{name: name, args: args, result: result}
	}
	d := newDisk("/data")
	for _, c := range []*syscall{
		at("openat", 5, "AT_FDCWD", "/data/db.new", "O_RDWR|O_CREAT|O_EXCL", "0600"),
		at("pwrite64", 4, "5", "aaaa", "4", "0"),
		at("fdatasync", 0, "5"),
		at("renameat", 0, "AT_FDCWD", "/data/db.new", "AT_FDCWD", "/data/db"),
		at("openat", 6, "AT_FDCWD", "/data", "O_RDONLY|O_CLOEXEC"),
		at("fsync", 0, "6"),
		at("ftruncate", 0, "5", "6"),
		at("pwrite64", 2, "5", "bb", "2", "2"),
	} {
		d.apply(step{syscall: c})
		d.apply(step{syscall: c, exit: true})
	}
	if d.err != nil {
		t.Fatal(d.err)
	}
	cut := func(s survival) string {
		dir := t.TempDir()
		if err := d.cut(dir, s, rand.New(rand.NewPCG(rand.Uint64(), 1))); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(dir, "db"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(dir, "db.new")); err == nil {
			t.Error("the name before the rename is there")
		}
		return string(b)
	}
	if got := cut(nothing); got != "aaaa" {
		t.Errorf("of what was synced %q is left", got)
	}
	possible := map[string]bool{"aaaa": true, "aabb": true, "aaaa\x00\x00": true, "aabb\x00\x00": true}
	seen := map[string]bool{}
	for range 200 {
		got := cut(half)
		if seen[got] = true; !possible[got] {
			t.Fatalf("%q cannot be left", got)
		}
	}
	if len(seen) != len(possible) {
		t.Errorf("only %d of %d possible contents were seen", len(seen), len(possible))
	}
	sync := at("fdatasync", 0, "5")
	d.apply(step{syscall: sync})
	if got := cut(nothing); got != "aaaa" {
		t.Errorf("a sync that has not returned made %q durable", got)
	}
	d.apply(step{syscall: sync, exit: true})
	if got := cut(nothing); got != "aabb\x00\x00" {
		t.Errorf("after the sync %q is left", got)
	}
	d.apply(step{syscall: at("mmap", 0, "NULL", "4096", "PROT_READ|PROT_WRITE", "MAP_SHARED", "5", "0"), exit: true})
	if d.err == nil {
		t.Error("a file that is written past the trace was not noticed")
	}
}
