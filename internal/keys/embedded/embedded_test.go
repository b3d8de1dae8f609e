package embedded_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/keys/custodiantest"
	"github.com/openrms/rms/internal/keys/embedded"
	"github.com/openrms/rms/internal/vocab"
)

func config(t *testing.T) embedded.Config {
	dir := t.TempDir()
	return embedded.Config{ID: vocab.NewCustodianID(), Path: filepath.Join(dir, "keyring"), KeyFile: filepath.Join(dir, "keyring.key")}
}

func create(t *testing.T, c embedded.Config) *embedded.Keyring {
	t.Helper()
	k, err := embedded.Create(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = k.Close() })
	return k
}

func TestConformance(t *testing.T) {
	custodiantest.Run(t, func(t *testing.T) custodiantest.Subject {
		k := create(t, config(t))
		rotate := func(key embedded.Key) func(*testing.T) {
			return func(t *testing.T) {
				if _, err := k.Rotate(t.Context(), key); err != nil {
					t.Fatal(err)
				}
			}
		}
		return custodiantest.Subject{
			Custodian: k, Other: create(t, config(t)), RotateRoot: rotate(embedded.Root), RotateSign: rotate(embedded.Sign),
			Withdraw: func(t *testing.T, n uint32) {
				for v := uint32(1); v < n; v++ {
					if err := k.Destroy(t.Context(), v); err != nil {
						t.Fatal(err)
					}
				}
			},
		}
	})
}

func TestKeyringSurvivesReopening(t *testing.T) {
	c := config(t)
	k := create(t, c)
	item := keys.WrapItem{Binding: keys.TenantBinding(vocab.TenantID{1}, vocab.NewGenerationID()), Secret: vocab.NewSecret()}
	ws, err := k.Wrap(t.Context(), []keys.WrapItem{item})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Rotate(t.Context(), embedded.Root); err != nil {
		t.Fatal(err)
	}
	before, _ := k.Describe(t.Context())
	_ = k.Close()

	k, err = embedded.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	after, _ := k.Describe(t.Context())
	if err := after.Since(before.MarkOf(keys.Mark{})); err != nil {
		t.Errorf("the reopened ring is another: %v", err)
	}
	us, err := k.Unwrap(t.Context(), []keys.UnwrapItem{{Binding: item.Binding, Wrap: ws[0].Wrap}})
	if err != nil || us[0].Err != nil || !us[0].Secret.Equal(item.Secret) {
		t.Errorf("what was wrapped before does not open: %v %v", err, us)
	}
}

func TestCreateKeepsWhatIsThere(t *testing.T) {
	c := config(t)
	_ = create(t, c).Close()
	before, _ := os.ReadFile(c.Path)
	if _, err := embedded.Create(c); !errors.Is(err, vocab.ReasonResourceExists) {
		t.Errorf("second Create: %v, want RESOURCE_EXISTS", err)
	}
	if after, _ := os.ReadFile(c.Path); !bytes.Equal(before, after) {
		t.Error("second Create changed the key ring")
	}
}

func TestOpenRefuses(t *testing.T) {
	for name, spoil := range map[string]func(c embedded.Config) error{
		"no key ring":         func(c embedded.Config) error { return os.Remove(c.Path) },
		"no key file":         func(c embedded.Config) error { return os.Remove(c.KeyFile) },
		"readable by others":  func(c embedded.Config) error { return os.Chmod(c.Path, 0o640) },
		"key file readable":   func(c embedded.Config) error { return os.Chmod(c.KeyFile, 0o604) },
		"another key file":    func(c embedded.Config) error { return os.WriteFile(c.KeyFile, vocab.NewSecret().Reveal(), 0o600) },
		"short key file":      func(c embedded.Config) error { return os.WriteFile(c.KeyFile, make([]byte, 31), 0o600) },
		"empty key ring":      func(c embedded.Config) error { return os.WriteFile(c.Path, nil, 0o600) },
		"key ring cut short":  func(c embedded.Config) error { return os.Truncate(c.Path, 40) },
		"directory":           func(c embedded.Config) error { _ = os.Remove(c.Path); return os.Mkdir(c.Path, 0o700) },
		"larger than allowed": func(c embedded.Config) error { return os.Truncate(c.Path, 1<<20) },
	} {
		t.Run(name, func(t *testing.T) {
			c := config(t)
			_ = create(t, c).Close()
			if err := spoil(c); err != nil {
				t.Fatal(err)
			}
			if _, err := embedded.Open(c); !errors.Is(err, vocab.ReasonConfigurationInvalid) {
				t.Errorf("Open: %v, want CONFIGURATION_INVALID", err)
			}
		})
	}
}

func TestEveryByteOfTheFileCounts(t *testing.T) {
	c := config(t)
	_ = create(t, c).Close()
	good, _ := os.ReadFile(c.Path)
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1
		if err := os.WriteFile(c.Path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if k, err := embedded.Open(c); err == nil {
			_ = k.Close()
			t.Errorf("byte %d changed and the key ring opened", i)
		}
	}
}

func TestFailedWriteChangesNothing(t *testing.T) {
	c := config(t)
	k := create(t, c)
	c2 := c
	if err := os.RemoveAll(filepath.Dir(c2.Path)); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Rotate(t.Context(), embedded.Root); err == nil {
		t.Fatal("rotation without a place to write it succeeded")
	}
	f, err := k.Describe(t.Context())
	if err != nil || f.Root.Latest != 1 {
		t.Errorf("after a failed rotation: version %d, %v", f.Root.Latest, err)
	}
}

func TestCheckSeesAnotherFile(t *testing.T) {
	c := config(t)
	k := create(t, c)
	old, _ := os.ReadFile(c.Path)
	if _, err := k.Rotate(t.Context(), embedded.Root); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(c.Path, old, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := k.Check(t.Context()); !errors.Is(err, vocab.ReasonCustodianChanged) {
		t.Errorf("Check with an older file in place: %v, want CUSTODIAN_CHANGED", err)
	}
}
