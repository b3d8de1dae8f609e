package vault

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/vocab"
)

// needed are the exact capabilities on exact paths: no less, and no more.
func (v *Vault) needed() map[string]string {
	m, root, sign := v.cfg.Mount, v.cfg.RootKey, v.cfg.SignKey
	n := map[string]string{
		m + "/encrypt/" + root: "update", // update alone cannot make a key of a mistyped name
		m + "/decrypt/" + root: "update",
		m + "/rewrap/" + root:  "update",
		m + "/sign/" + sign:    "update",
		m + "/keys/" + root:    "read",
		m + "/keys/" + sign:    "read",
	}
	if v.cfg.AppRole != nil {
		n["auth/token/renew-self"] = "update"
		n["auth/token/revoke-self"] = "update"
	}
	return n
}

// forbidden are the paths a service that only uses keys must not be able to
// touch: what makes, changes, copies or destroys keys, other uses of these
// keys, other keys, Vault's own administration, and other tenants.
func (v *Vault) forbidden() []string {
	m := v.cfg.Mount
	var paths []string
	for _, key := range []string{v.cfg.RootKey, v.cfg.SignKey} {
		for _, act := range []string{"rotate", "config", "trim", "import", "import_version", "set-certificate", "csr"} {
			paths = append(paths, m+"/keys/"+key+"/"+act)
		}
		for _, path := range []string{"export/encryption-key/", "export/signing-key/", "export/hmac-key/", "backup/", "restore/",
			"datakey/plaintext/", "datakey/wrapped/", "hmac/"} {
			paths = append(paths, m+"/"+path+key)
		}
	}
	const other = "rms-self-check-of-a-key-that-does-not-exist"
	paths = append(paths,
		m+"/sign/"+v.cfg.RootKey, m+"/encrypt/"+v.cfg.SignKey, m+"/decrypt/"+v.cfg.SignKey,
		m+"/keys/"+other, m+"/encrypt/"+other, m+"/decrypt/"+other, m+"/sign/"+other,
		m+"/byok-export/"+other+"/"+v.cfg.RootKey, m+"/config/keys", m+"/cache-config",
		"sys/mounts/"+m, "sys/policies/acl/"+other, "sys/auth/"+other, "sys/audit/"+other, "sys/seal", "sys/raw/"+other,
		"auth/token/create", "identity/entity")
	if a := v.cfg.AppRole; a != nil {
		paths = append(paths, "auth/"+a.Mount+"/role/"+other, "auth/"+a.Mount+"/role/"+other+"/secret-id")
	}
	for _, o := range v.cfg.OtherMounts {
		paths = append(paths, o+"/encrypt/"+v.cfg.RootKey, o+"/decrypt/"+v.cfg.RootKey, o+"/rewrap/"+v.cfg.RootKey, o+"/sign/"+v.cfg.SignKey,
			o+"/keys/"+v.cfg.RootKey, o+"/keys/"+v.cfg.SignKey)
	}
	return paths
}

// Check implements [keys.Custodian]: the cluster is the pinned one, both keys
// are safe, the login may do exactly what it must (a missing and an excessive
// capability are named), and a test key goes through Vault and back, signed and
// unwrapped.
func (v *Vault) Check(ctx context.Context) error {
	f, err := v.Describe(ctx)
	if err != nil {
		return err
	}
	if err := f.Safe(); err != nil {
		return err
	}
	if err := v.checkPower(ctx); err != nil {
		return err
	}
	return v.checkUse(ctx, f)
}

func (v *Vault) checkPower(ctx context.Context) error {
	needed, forbidden := v.needed(), v.forbidden()
	paths := slices.Clone(forbidden)
	for p := range needed {
		paths = append(paths, p)
	}
	caps, err := v.capabilities(ctx, paths)
	if err != nil {
		return err
	}
	var lacks, exceeds []string
	for p, want := range needed {
		if !slices.Contains(caps[p], want) && !slices.Contains(caps[p], "root") {
			lacks = append(lacks, want+" on "+p)
		}
		for _, c := range caps[p] {
			if c != want && c != "deny" {
				exceeds = append(exceeds, c+" on "+p)
			}
		}
	}
	for _, p := range forbidden {
		if !slices.Equal(caps[p], []string{"deny"}) {
			exceeds = append(exceeds, strings.Join(caps[p], ", ")+" on "+p)
		}
	}
	slices.Sort(lacks)
	slices.Sort(exceeds)
	switch {
	case len(lacks) > 0:
		return vocab.Errorf(vocab.ReasonConfigurationInvalid, "the service's login to Vault lacks %s", list(lacks)).
			WithNext("Give its role the policy deploy/vault/rmsd.hcl")
	case len(exceeds) > 0:
		return vocab.Errorf(vocab.ReasonConfigurationInvalid, "the service's login to Vault may do too much: %s", list(exceeds)).
			WithNext("Give its role the policy deploy/vault/rmsd.hcl and no other, with token_no_default_policy")
	}
	return nil
}

func list(items []string) string {
	if len(items) > 3 {
		return strings.Join(items[:3], "; ") + fmt.Sprintf("; and %d more", len(items)-3)
	}
	return strings.Join(items, "; ")
}

// checkUse proves that both keys work, and that a wrap is bound: the same wrap
// under another binding must not open. Vault's IDs of its requests are logged, so
// that every use of the root key in Vault's audit file is accounted for.
func (v *Vault) checkUse(ctx context.Context, f *keys.Facts) error {
	message := []byte("rms/v1/self-check " + vocab.NewCertID().String())
	s, err := v.Sign(ctx, 0, message)
	if err != nil {
		return err
	}
	if public, ok := f.Sign.PublicKey(s.Version); !ok || !ed25519.Verify(public, message, s.Bytes) {
		return keys.Integrity(errors.New("test signature does not verify under the published key"))
	}
	secret := vocab.NewSecret()
	defer secret.Zero()
	tenant := vocab.NewTenantID() // of nobody
	b := keys.TenantBinding(tenant, vocab.NewGenerationID())
	commitment := b.Commitment(secret)
	ws, err := v.Wrap(ctx, []keys.WrapItem{{Binding: b, Secret: secret}})
	if err != nil {
		return err
	}
	if ws[0].Err != nil {
		return ws[0].Err
	}
	got, right, err := keys.Unwrap(ctx, v, keys.UnwrapItem{Binding: b, Wrap: ws[0].Wrap}, &commitment)
	if err != nil {
		return err
	}
	got.Zero()
	other := keys.TenantBinding(tenant, vocab.NewGenerationID())
	got, wrong, err := keys.Unwrap(ctx, v, keys.UnwrapItem{Binding: other, Wrap: ws[0].Wrap}, &commitment)
	v.cfg.Log.Debug("Vault self-check", "mount", v.cfg.Mount, "unwraps", []string{right, wrong})
	if err == nil {
		got.Zero()
		return keys.Integrity(errors.New("a wrap opened under another binding"))
	} else if vocab.ReasonOf(err) != vocab.ReasonCustodyIntegrity {
		return err
	}
	return nil
}
