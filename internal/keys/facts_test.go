package keys_test

import (
	"maps"
	"strings"
	"testing"

	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/vocab"
)

// goodFacts are those of a custodian in order, at version 3 of both keys, of
// which version 1 was destroyed.
func goodFacts() *keys.Facts {
	public := func(n byte) []byte { return append([]byte{n}, make([]byte, 31)...) }
	return &keys.Facts{
		Custodian: vocab.CustodianID{1}, Kind: keys.KindVault, ClusterID: "c",
		Root: keys.KeyFacts{Name: "root", Type: "aes256-gcm96", Derived: true, Latest: 3, MinAvailable: 2},
		Sign: keys.KeyFacts{Name: "sign", Type: "ed25519", Latest: 3, MinAvailable: 2, Versions: []keys.KeyVersion{
			{Version: 2, PublicKey: public(2)}, {Version: 3, PublicKey: public(3)},
		}},
	}
}

// Every attribute that makes a key unsafe is refused on both keys, and named.
func TestFactsSafe(t *testing.T) {
	if err := goodFacts().Safe(); err != nil {
		t.Fatal(err)
	}
	for says, change := range map[string]func(*keys.KeyFacts){
		"of type":                          func(k *keys.KeyFacts) { k.Type = "rsa-2048" },
		"derived":                          func(k *keys.KeyFacts) { k.Derived = !k.Derived },
		"convergent":                       func(k *keys.KeyFacts) { k.Convergent = true },
		"is exportable":                    func(k *keys.KeyFacts) { k.Exportable = true },
		"open to plaintext backup":         func(k *keys.KeyFacts) { k.PlaintextBackup = true },
		"copied out by a plaintext backup": func(k *keys.KeyFacts) { k.BackedUp = true },
		"restored from a plaintext backup": func(k *keys.KeyFacts) { k.Restored = true },
		"without a version":                func(k *keys.KeyFacts) { k.Latest = 0 },
	} {
		for name, of := range map[string]func(*keys.Facts) *keys.KeyFacts{
			"root": func(f *keys.Facts) *keys.KeyFacts { return &f.Root }, "sign": func(f *keys.Facts) *keys.KeyFacts { return &f.Sign },
		} {
			f := goodFacts()
			change(of(f))
			err := f.Safe()
			if vocab.ReasonOf(err) != vocab.ReasonKeyAttributesUnsafe || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), `"`+name+`"`) {
				t.Errorf("%s %s: %v", name, says, err)
			}
		}
	}
}

// Nothing that was seen of a custodian may go backwards.
func TestFactsSince(t *testing.T) {
	mark := goodFacts().MarkOf(keys.Mark{})
	for name, later := range map[string]func(*keys.Facts){
		"as it was":           func(*keys.Facts) {},
		"rotated":             func(f *keys.Facts) { f.Root.Latest, f.Sign.Latest = 4, 5 },
		"a version destroyed": func(f *keys.Facts) { f.Root.MinAvailable, f.Sign.MinAvailable = 3, 3 },
		"versions hidden":     func(f *keys.Facts) { f.Sign.Versions = f.Sign.Versions[1:] },
	} {
		f := goodFacts()
		later(f)
		if err := f.Since(mark); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, change := range map[string]func(*keys.Facts){
		"another cluster":                     func(f *keys.Facts) { f.ClusterID = "d" },
		"no cluster":                          func(f *keys.Facts) { f.ClusterID = "" },
		"another registered key":              func(f *keys.Facts) { f.Custodian = vocab.CustodianID{2} },
		"root key of an old copy":             func(f *keys.Facts) { f.Root.Latest = 2 },
		"signing key of an old copy":          func(f *keys.Facts) { f.Sign.Latest = 2 },
		"destroyed root versions are back":    func(f *keys.Facts) { f.Root.MinAvailable = 1 },
		"destroyed signing versions are back": func(f *keys.Facts) { f.Sign.MinAvailable = 1 },
		"another public key":                  func(f *keys.Facts) { f.Sign.Versions[0].PublicKey[5]++ },
	} {
		f := goodFacts()
		change(f)
		if err := f.Since(mark); vocab.ReasonOf(err) != vocab.ReasonCustodianChanged {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A public key that is hidden now is held to what it was when it comes back.
	hidden := goodFacts()
	hidden.Sign.Versions = hidden.Sign.Versions[1:]
	later := hidden.MarkOf(mark)
	if !maps.Equal(later.SignKeys, mark.SignKeys) {
		t.Error("a hidden public key was forgotten")
	}
	if err := goodFacts().Since(keys.Mark{}); err != nil {
		t.Errorf("without a mark: %v", err)
	}
}
