package config

import (
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/openrms/rms/internal/identity"
	"github.com/openrms/rms/internal/vocab"
)

const maxTenants = 10_000

// loadTenants reads every NAME.yaml of the tenants directory. Other names are
// passed over, so that an editor's left-overs do not stop a restart.
func loadTenants(c *Config) (map[string]Tenant, error) {
	entries, err := os.ReadDir(c.TenantsDir)
	if err != nil {
		return nil, invalid("tenants_dir: %w", err)
	}
	tenants := map[string]Tenant{}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".yaml")
		if !ok || strings.HasPrefix(name, ".") || e.IsDir() {
			continue
		}
		path := filepath.Join(c.TenantsDir, e.Name())
		var t Tenant
		if err := decodeFile(path, &t); err != nil {
			return nil, err
		}
		if t.ID != name {
			return nil, inFile(path, invalid("id is %q, but the file is named %s.yaml", t.ID, name))
		}
		t.resolve(filepath.Dir(path), c.DataDir)
		if err := t.check(c); err != nil {
			return nil, inFile(path, err)
		}
		tenants[t.ID] = t
		if len(tenants) > maxTenants {
			return nil, invalid("tenants_dir: more than %d tenants", maxTenants)
		}
	}
	return tenants, checkApart(tenants)
}

// checkApart refuses what two tenants must not share.
func checkApart(tenants map[string]Tenant) error {
	domains, mounts := map[string]string{}, map[string]string{}
	for _, name := range sortedNames(tenants) {
		t := tenants[name]
		for _, d := range t.Domains {
			if other, taken := domains[d]; taken {
				return invalid("tenants %s and %s both claim the domain %s", other, name, d)
			}
			domains[d] = name
		}
		if v := t.Custodian.Vault; v != nil {
			key := v.place()
			if other, taken := mounts[key]; taken {
				return invalid("tenants %s and %s share the Vault mount %s: give each its own, so that no defect can cross tenants", other, name, v.Mount)
			}
			mounts[key] = name
		}
		if e := t.Custodian.Embedded; e != nil {
			for _, path := range []string{e.Keyring, e.KeyFile} {
				if other, taken := mounts[path]; taken {
					return invalid("tenants %s and %s share %s: give each its own keyring and key file", other, name, path)
				}
			}
			mounts[e.Keyring], mounts[e.KeyFile] = name, name
		}
	}
	return nil
}

func (t *Tenant) resolve(dir, dataDir string) {
	abs := func(p *string) {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
	c := &t.Custodian
	abs(&c.TokenFile)
	if c.Vault != nil {
		abs(&c.Vault.CA)
	}
	if c.AppRole != nil {
		abs(&c.AppRole.RoleIDFile)
		abs(&c.AppRole.SecretIDFile)
	}
	if e := c.Embedded; e != nil {
		abs(&e.Keyring)
		abs(&e.KeyFile)
		if e.Keyring == "" {
			e.Keyring = filepath.Join(dataDir, "keyring-"+t.ID)
		}
		if e.KeyFile == "" {
			e.KeyFile = e.Keyring + ".key"
		}
		// The same file written in another way must not look like another.
		e.Keyring, e.KeyFile = filepath.Clean(e.Keyring), filepath.Clean(e.KeyFile)
	}
}

func (t *Tenant) check(c *Config) error {
	if len(t.Domains) == 0 || len(t.Providers) == 0 || len(t.Admins) == 0 {
		return invalid("domains, providers and admins are required")
	}
	view := t.Identity()
	if err := c.Identity().ValidateTenant(view); err != nil {
		return err
	}
	for role, holders := range t.Roles {
		if _, err := vocab.ParseRole(string(role)); err != nil || role == vocab.RoleTenantAdmin {
			return invalid("roles: %q is not one of policy-admin, key-custodian, auditor, recovery-officer (tenant-admins are named under admins)", role)
		}
		if err := checkHolders("roles."+string(role), holders); err != nil {
			return err
		}
	}
	if err := checkHolders("admins", t.Admins); err != nil {
		return err
	}
	for provider, groups := range t.Groups {
		if !slices.Contains(t.Providers, provider) && !slices.Contains(t.GuestProviders, provider) {
			return invalid("groups: %q is not a provider of this tenant", provider)
		}
		for id, address := range groups {
			if a, err := vocab.CanonicalAddress(address); err != nil || a != address {
				return invalid("groups.%s.%s: %q is not an address in lower case", provider, id, address)
			}
		}
	}
	return t.Custodian.check()
}

// checkHolders refuses principals that would hand a role to people the
// operator cannot name one by one.
func checkHolders(field string, holders []vocab.Principal) error {
	for _, p := range holders {
		switch p.Kind {
		case vocab.KindUser, vocab.KindGroup, vocab.KindService:
		default:
			return invalid("%s: %s is too wide for a role; name user:, group: or service:", field, p)
		}
	}
	return nil
}

func (c *Custodian) check() error {
	switch {
	case c.Vault != nil && c.Embedded != nil:
		return invalid("custodian: vault and embedded exclude each other")
	case c.Embedded != nil:
		if c.AppRole != nil || c.TokenFile != "" {
			return invalid("custodian: approle and token_file go with vault")
		}
		if c.Embedded.Keyring == c.Embedded.KeyFile {
			return invalid("custodian.embedded: keyring and key_file are the same file")
		}
		return nil
	case c.Vault == nil:
		return invalid("custodian: name vault or embedded")
	}
	if c.Vault.Address == "" || c.Vault.Mount == "" {
		return invalid("custodian.vault: address and mount are required")
	}
	if err := checkVaultAddress(c.Vault.Address); err != nil {
		return err
	}
	if c.Vault.Timeout < 0 {
		return invalid("custodian.vault.timeout: must not be negative")
	}
	if (c.AppRole == nil) == (c.TokenFile == "") {
		return invalid("custodian: name approle or token_file, and not both")
	}
	if a := c.AppRole; a != nil {
		if a.RoleIDFile == "" || a.SecretIDFile == "" {
			return invalid("custodian.approle: role_id_file and secret_id_file are required")
		}
		if a.Wrapped && a.Role == "" {
			return invalid("custodian.approle.role: required with wrapped, so that a secret ID made for another role is not taken")
		}
	}
	return nil
}

// checkVaultAddress accepts https, and http on loopback, where a Vault Agent
// may stand: whoever is in between would get the daemon's login.
func checkVaultAddress(address string) error {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return invalid("custodian.vault.address: %q is not of the form https://HOST:8200", address)
	}
	ip := net.ParseIP(u.Hostname())
	local := u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
	if u.Scheme != "https" && (u.Scheme != "http" || !local) {
		return invalid("custodian.vault.address: %q must begin with https://", address)
	}
	return nil
}

// place names a mount so that two ways of writing it are one.
func (v *Vault) place() string {
	return strings.ToLower(strings.TrimRight(v.Address, "/")) + "|" + strings.Trim(v.Namespace, "/") + "|" + strings.Trim(v.Mount, "/")
}

// Identity returns the view package identity verifies callers against, but
// for guest domains, which are a setting.
func (t *Tenant) Identity() identity.Tenant {
	return identity.Tenant{
		Name:           t.ID,
		Domains:        t.Domains,
		Providers:      t.Providers,
		GuestProviders: t.GuestProviders,
		Services:       t.Services,
		Group: func(provider, id string) (string, bool) {
			address, ok := t.Groups[provider][id]
			return address, ok
		},
	}
}
