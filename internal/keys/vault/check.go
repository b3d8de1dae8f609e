package vault

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/vocab"
)

// power is what a login must be able to do, may do, and must not.
type power struct {
	// needed are the exact capabilities on exact paths: no less, and no more.
	needed map[string]string
	// permitted are those of the other registered keys: no more.
	permitted map[string]string
	// forbidden are the paths a service that only uses keys must not be able to
	// touch: what makes, changes, copies or destroys keys, other uses of these
	// keys, other keys, Vault's own administration, and other tenants.
	forbidden []string
}

// noKey is the name of a key that nobody has: a login that can use it can use
// more than it was given by name.
const noKey = "rms-self-check-of-a-key-that-does-not-exist"

// ofKey are what is more than the use of a key.
func ofKey(mount, key string) (paths []string) {
	for _, act := range []string{"rotate", "config", "trim", "import", "import_version", "set-certificate", "csr"} {
		paths = append(paths, mount+"/keys/"+key+"/"+act)
	}
	for _, path := range []string{
		"export/encryption-key/", "export/signing-key/", "export/hmac-key/", "backup/", "restore/",
		"datakey/plaintext/", "datakey/wrapped/", "hmac/", "byok-export/" + noKey + "/",
	} {
		paths = append(paths, mount+"/"+path+key)
	}
	return paths
}

// uses are the paths of a key's uses with their capabilities, whichever kind of
// key it is.
func uses(mount, key string) map[string]string {
	return map[string]string{
		mount + "/encrypt/" + key: "update", // update alone cannot make a key of a mistyped name
		mount + "/decrypt/" + key: "update",
		mount + "/rewrap/" + key:  "update",
		mount + "/sign/" + key:    "update",
		mount + "/keys/" + key:    "read",
	}
}

func (k *Key) power() power {
	m := k.c.cfg.Mount
	allowed, foreign := k.c.bounds()
	p := power{needed: uses(m, k.root), permitted: map[string]string{}}
	// The root key does not sign, the signing key does nothing else.
	delete(p.needed, m+"/sign/"+k.root)
	p.needed[m+"/sign/"+k.sign], p.needed[m+"/keys/"+k.sign] = "update", "read"
	if k.c.cfg.AppRole != nil {
		p.needed["auth/token/renew-self"] = "update"
		p.needed["auth/token/revoke-self"] = "update"
	}
	p.forbidden = append(p.forbidden, m+"/sign/"+k.root, m+"/encrypt/"+k.sign, m+"/decrypt/"+k.sign, m+"/rewrap/"+k.sign)
	p.forbidden = append(p.forbidden, ofKey(m, k.root)...)
	p.forbidden = append(p.forbidden, ofKey(m, k.sign)...)
	// Keys that are not registered: of any name, and of one that a glob after
	// a registered name would take in.
	nobodys := []string{noKey, k.root + "-" + noKey, k.sign + "-" + noKey}
	for _, key := range allowed {
		if key == k.root || key == k.sign {
			continue
		}
		maps.Copy(p.permitted, uses(m, key))
		p.forbidden = append(p.forbidden, ofKey(m, key)...)
		nobodys = append(nobodys, key+"-"+noKey)
	}
	for _, key := range nobodys {
		p.forbidden = append(p.forbidden, slices.Sorted(maps.Keys(uses(m, key)))...)
	}
	p.forbidden = append(p.forbidden, m+"/config/keys", m+"/cache-config",
		"sys/mounts/"+m, "sys/policies/acl/"+noKey, "sys/auth/"+noKey, "sys/audit/"+noKey, "sys/seal", "sys/raw/"+noKey,
		"auth/token/create", "identity/entity")
	if a := k.c.cfg.AppRole; a != nil {
		p.forbidden = append(p.forbidden, "auth/"+a.Mount+"/role/"+noKey, "auth/"+a.Mount+"/role/"+noKey+"/secret-id")
	}
	theirs := []string{k.root, k.sign, "root", "sign"} // as far as that can be known
	slices.Sort(theirs)
	theirs = slices.Compact(theirs)
	for _, mount := range foreign {
		for _, key := range theirs {
			p.forbidden = append(p.forbidden, slices.Sorted(maps.Keys(uses(mount, key)))...)
		}
	}
	return p
}

// Check implements [keys.Custodian]: the cluster is the pinned one, both keys
// are safe, the login may do exactly what it must (a missing and an excessive
// capability are named), a test key goes through Vault and back, signed and
// unwrapped, and what was last delivered as a wrapped secret ID was one.
func (k *Key) Check(ctx context.Context) error {
	f, err := k.Describe(ctx)
	if err != nil {
		return err
	}
	if err := f.Safe(); err != nil {
		return err
	}
	if err := k.checkPower(ctx); err != nil {
		return err
	}
	if err := k.checkUse(ctx, f); err != nil {
		return err
	}
	return k.c.session.delivered(ctx)
}

// checkPower compares what the login may do with what it must. Too much of it
// is [keys.ErrTooMuchPower].
func (k *Key) checkPower(ctx context.Context) error {
	p := k.power()
	paths := slices.Concat(p.forbidden, slices.Collect(maps.Keys(p.needed)), slices.Collect(maps.Keys(p.permitted)))
	caps, err := k.capabilities(ctx, paths)
	if err != nil {
		return err
	}
	var lacks, exceeds []string
	for path, want := range p.needed {
		if !slices.Contains(caps[path], want) && !slices.Contains(caps[path], "root") {
			lacks = append(lacks, want+" on "+path)
		}
	}
	for _, bounded := range []map[string]string{p.needed, p.permitted} {
		for path, most := range bounded {
			for _, c := range caps[path] {
				if c != most && c != "deny" {
					exceeds = append(exceeds, c+" on "+path)
				}
			}
		}
	}
	for _, path := range p.forbidden {
		if !slices.Equal(caps[path], []string{"deny"}) {
			exceeds = append(exceeds, strings.Join(caps[path], ", ")+" on "+path)
		}
	}
	slices.Sort(lacks)
	slices.Sort(exceeds)
	// Too much comes first: what is missing hurts only the tenant's own service.
	switch {
	case len(exceeds) > 0:
		return vocab.Errorf(vocab.ReasonConfigurationInvalid, "the service's login to Vault may do too much: %s", list(exceeds)).
			WithNext("Give its role the policy deploy/vault/rmsd.hcl with rmsd-key.hcl for each key and no other, with token_no_default_policy").
			Because(keys.ErrTooMuchPower)
	case len(lacks) > 0:
		return vocab.Errorf(vocab.ReasonConfigurationInvalid, "the service's login to Vault lacks %s", list(lacks)).
			WithNext("Give its role the policy deploy/vault/rmsd.hcl with rmsd-key.hcl for this key")
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
func (k *Key) checkUse(ctx context.Context, f *keys.Facts) error {
	message := []byte("rms/v1/self-check " + vocab.NewCertID().String())
	s, err := k.Sign(ctx, 0, message)
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
	ws, err := k.Wrap(ctx, []keys.WrapItem{{Binding: b, Secret: secret}})
	if err != nil {
		return err
	}
	if ws[0].Err != nil {
		return ws[0].Err
	}
	got, right, err := keys.Unwrap(ctx, k, keys.UnwrapItem{Binding: b, Wrap: ws[0].Wrap}, &commitment)
	if err != nil {
		return err
	}
	got.Zero()
	other := keys.TenantBinding(tenant, vocab.NewGenerationID())
	got, wrong, err := keys.Unwrap(ctx, k, keys.UnwrapItem{Binding: other, Wrap: ws[0].Wrap}, &commitment)
	k.c.cfg.Log.Debug("Vault self-check", "mount", k.c.cfg.Mount, "unwraps", []string{right, wrong})
	if err == nil {
		got.Zero()
		return keys.Integrity(errors.New("a wrap opened under another binding"))
	} else if vocab.ReasonOf(err) != vocab.ReasonCustodyIntegrity {
		return err
	}
	return nil
}

// capabilities asks what the login may do on each path.
func (k *Key) capabilities(ctx context.Context, paths []string) (map[string][]string, error) {
	ans, err := k.call(ctx, http.MethodPost, "sys/capabilities-self", map[string][]string{"paths": paths})
	if err != nil {
		return nil, unrefused(err)
	}
	if err := ans.unwarned(); err != nil {
		return nil, err
	}
	return parseCapabilities(ans.Data, paths)
}

func parseCapabilities(data json.RawMessage, paths []string) (map[string][]string, error) {
	var all map[string]json.RawMessage
	if err := decodeOne(data, &all); err != nil {
		return nil, keys.Integrity(err)
	}
	out := make(map[string][]string)
	for _, p := range paths {
		var caps []string
		if err := json.Unmarshal(all[p], &caps); err != nil || len(caps) == 0 {
			return nil, keys.Integrity(fmt.Errorf("no capabilities for %q", p))
		}
		out[p] = caps
	}
	return out, nil
}
