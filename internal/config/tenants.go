package config

import (
	"maps"
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
	domains, places := map[string]string{}, map[string]string{}
	for _, name := range sortedNames(tenants) {
		t := tenants[name]
		for _, d := range t.Domains {
			if other, taken := domains[d]; taken {
				return invalid("tenants %s and %s both claim the domain %s", other, name, d)
			}
			domains[d] = name
		}
		for _, custodian := range t.CustodianNames() {
			c := t.Custodians[custodian]
			for _, p := range c.places() {
				if other, taken := places[p.at]; taken && other != name {
					return invalid("tenants %s and %s share the %s: give each its own, so that no defect can cross tenants", other, name, p.what)
				}
				places[p.at] = name
			}
		}
	}
	return nil
}

// CustodianNames returns the names of the custodians, sorted.
func (t *Tenant) CustodianNames() []string { return slices.Sorted(maps.Keys(t.Custodians)) }

func (t *Tenant) resolve(dir, dataDir string) {
	abs := func(p *string) {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
	for name, c := range t.Custodians {
		c.resolve(abs, filepath.Join(dataDir, "keyring-"+t.ID))
		t.Custodians[name] = c
	}
}

// resolve makes paths absolute and fills in where a keyring is by default. What
// it changes is the custodian's own.
func (c *Custodian) resolve(abs func(*string), keyring string) {
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
			e.Keyring = keyring
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
	return t.checkCustodians()
}

func (t *Tenant) checkCustodians() error {
	if n := len(t.Custodians); n == 0 || n > MaxCustodians {
		return invalid("custodians: name between 1 and %d, not %d, as custodians: {NAME: {vault: …}} or {NAME: {embedded: {}}}", MaxCustodians, n)
	}
	places := map[string]string{}
	for _, name := range t.CustodianNames() {
		c := t.Custodians[name]
		if !vocab.ValidSlug(name) {
			return invalid("custodians: %q is not a name: want 1 to 63 of a–z, 0–9 and hyphens", name)
		}
		if err := c.check("custodians." + name); err != nil {
			return err
		}
		for _, p := range c.places() {
			if other, taken := places[p.at]; taken && other != name {
				return invalid("custodians: %s and %s share the %s: several keys of one place need one custodian alone", other, name, p.what)
			}
			places[p.at] = name
		}
	}
	return nil
}

// place is something that only one custodian may have: at, written so that two
// ways of naming it are one, and what it is for people.
type place struct{ at, what string }

// places returns what must be the custodian's alone: a mount; a keyring and its
// key file; a wrapped secret ID, which only one login can take.
func (c *Custodian) places() (out []place) {
	if v := c.Vault; v != nil {
		out = append(out, place{v.site() + "|" + strings.Trim(v.Mount, "/"), "Vault mount " + v.Mount})
	}
	if e := c.Embedded; e != nil {
		out = append(out, place{e.Keyring, "keyring or key file " + e.Keyring}, place{e.KeyFile, "keyring or key file " + e.KeyFile})
	}
	if a := c.AppRole; a != nil && a.Wrapped {
		out = append(out, place{a.SecretIDFile, "wrapped secret ID in " + a.SecretIDFile})
	}
	return out
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

// check says what is wrong with the custodian that stands at field.
func (c *Custodian) check(field string) error {
	switch {
	case c.Vault != nil && c.Embedded != nil:
		return invalid("%s: vault and embedded exclude each other", field)
	case c.Embedded != nil:
		if c.AppRole != nil || c.TokenFile != "" {
			return invalid("%s: approle and token_file go with vault", field)
		}
		if c.Embedded.Keyring == c.Embedded.KeyFile {
			return invalid("%s.embedded: keyring and key_file are the same file", field)
		}
		return nil
	case c.Vault == nil:
		return invalid("%s: name vault or embedded", field)
	}
	if c.Vault.Address == "" || c.Vault.Mount == "" {
		return invalid("%s.vault: address and mount are required", field)
	}
	if err := checkVaultAddress(field, c.Vault.Address); err != nil {
		return err
	}
	if c.Vault.Timeout < 0 {
		return invalid("%s.vault.timeout: must not be negative", field)
	}
	if (c.AppRole == nil) == (c.TokenFile == "") {
		return invalid("%s: name approle or token_file, and not both", field)
	}
	if a := c.AppRole; a != nil {
		if a.RoleIDFile == "" || a.SecretIDFile == "" {
			return invalid("%s.approle: role_id_file and secret_id_file are required", field)
		}
		if a.Wrapped && a.Role == "" {
			return invalid("%s.approle.role: required with wrapped, so that a secret ID made for another role is not taken", field)
		}
	}
	return nil
}

// checkVaultAddress accepts https, and http on loopback, where a Vault Agent
// may stand: whoever is in between would get the daemon's login.
func checkVaultAddress(field, address string) error {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return invalid("%s.vault.address: %q is not of the form https://HOST:8200", field, address)
	}
	ip := net.ParseIP(u.Hostname())
	local := u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
	if u.Scheme != "https" && (u.Scheme != "http" || !local) {
		return invalid("%s.vault.address: %q must begin with https://", field, address)
	}
	return nil
}

// site names a Vault and a namespace of it so that two ways of writing them are
// one.
func (v *Vault) site() string {
	return strings.ToLower(strings.TrimRight(v.Address, "/")) + "|" + strings.Trim(v.Namespace, "/")
}

// Beside reports whether two mounts are of the same Vault and namespace: then
// the login of one could reach the other.
func (v *Vault) Beside(o *Vault) bool { return v.site() == o.site() }

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
