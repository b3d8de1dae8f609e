package embedded_test

import (
	"bytes"
	"errors"
	"os"
	"testing"

	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/keys/embedded"
	"github.com/openrms/rms/internal/vocab"
)

// A version that is destroyed is gone from the file, and destroying it again is
// no error; the newest stays.
func TestDestroyRoot(t *testing.T) {
	c := config(t)
	k := create(t, c)
	item := keys.WrapItem{Binding: keys.TenantBinding(vocab.TenantID{1}, vocab.NewGenerationID()), Secret: vocab.NewSecret()}
	ws, err := k.Wrap(t.Context(), []keys.WrapItem{item})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.RotateRoot(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := k.DestroyRoot(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
	}
	for version, want := range map[uint32]vocab.Reason{2: vocab.ReasonKeyInUse, 0: vocab.ReasonRequestInvalid} {
		if err := k.DestroyRoot(t.Context(), version); !errors.Is(err, want) {
			t.Errorf("destroying version %d: %v, want %s", version, err, want)
		}
	}
	again, err := embedded.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	rs, err := again.Unwrap(t.Context(), []keys.UnwrapItem{{Binding: item.Binding, Wrap: ws[0].Wrap}})
	if err != nil || !errors.Is(rs[0].Err, vocab.ReasonKeyState) {
		t.Errorf("what version 1 wrapped: %v, %v", rs[0].Err, err)
	}
	f, err := again.Describe(t.Context())
	if err != nil || f.Root.MinAvailable != 2 {
		t.Errorf("versions from %d on, %v", f.Root.MinAvailable, err)
	}
}

// What is left of a ring that was destroyed opens, says so, and is used for
// nothing; it is never taken for a place to make a new one in.
func TestDestroyAll(t *testing.T) {
	c := config(t)
	k := create(t, c)
	before, err := os.ReadFile(c.Path)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := k.DestroyAll(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	again, err := embedded.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if _, err := embedded.Create(c); !errors.Is(err, vocab.ReasonResourceExists) {
		t.Errorf("made anew in its place: %v", err)
	}
	if after, err := os.ReadFile(c.Path); err != nil || len(after) >= len(before) || bytes.Contains(before, after[64:]) {
		t.Errorf("the file has %d bytes of %d, %v", len(after), len(before), err)
	}
	for name, k := range map[string]*embedded.Keyring{"the one in use": k, "opened again": again} {
		if holds, _, err := k.HoldsRoot(t.Context()); err != nil || holds {
			t.Errorf("%s: holds its root %v, %v", name, holds, err)
		}
		_, describe := k.Describe(t.Context())
		_, sign := k.Sign(t.Context(), 1, []byte("m"))
		_, wrap := k.Wrap(t.Context(), []keys.WrapItem{{Secret: vocab.NewSecret()}})
		_, rotate := k.RotateRoot(t.Context())
		for what, err := range map[string]error{"describe": describe, "sign": sign, "wrap": wrap, "rotate": rotate, "check": k.Check(t.Context()), "destroy": k.Destroy(t.Context(), 1)} {
			if !errors.Is(err, vocab.ReasonKeyState) {
				t.Errorf("%s: %s: %v, want KEY_STATE", name, what, err)
			}
		}
		if h := k.Health(t.Context()); h.OK() {
			t.Errorf("%s is healthy", name)
		}
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := again.HoldsRoot(t.Context()); !errors.Is(err, vocab.ReasonCustodianUnreachable) {
		t.Errorf("closed: %v", err)
	}
}
