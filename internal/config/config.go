// Package config reads the operator's files: rmsd.yaml and one file for each
// tenant. The files hold connections, trust and where secrets lie; policy,
// settings and key states are in the store and changed through the API. No
// value lives in both.
//
// The structs are the manual: each field says what it means, its default and
// why. Unknown and repeated keys are refused, so that a misspelt key cannot
// silently fall back to a default.
package config

import (
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/openrms/rms/internal/identity"
	"github.com/openrms/rms/internal/vocab"
)

// File is rmsd.yaml.
type File struct {
	// Listen is the address and port of the gRPC service. Required.
	Listen string `yaml:"listen"`
	// PublicName is the host and port clients know the service by. It is
	// shown in licenses to people and must be in the certificate; clients
	// never dial it from a document. Default: Listen.
	PublicName string `yaml:"public_name,omitempty"`
	// DataDir holds the store, the log's exported checkpoints and the lock:
	// one rmsd each. Required.
	DataDir string `yaml:"data_dir"`
	// OperatorSocket is the path of the local socket for rmsd status and
	// reload. Whoever can open it may call it: keep it 0660. Default:
	// operator.sock in DataDir.
	OperatorSocket string `yaml:"operator_socket,omitempty"`
	// TLS is the server's certificate. Required.
	TLS TLS `yaml:"tls"`
	// IdentityProviders are the OpenID providers tenants may name. See
	// package identity.
	IdentityProviders map[string]identity.Provider `yaml:"identity_providers"`
	// TenantsDir holds one file NAME.yaml for each tenant. A file that
	// vanishes stops serving that tenant and deletes nothing. Required.
	TenantsDir string `yaml:"tenants_dir"`
	// Limits bounds what callers may ask for.
	Limits Limits `yaml:"limits,omitempty"`
}

// TLS names the files of the server's certificate. They are read again when
// they change; a pair that does not fit together is refused and the old one
// kept.
type TLS struct {
	// Certificate is the PEM certificate chain, leaf first.
	Certificate string `yaml:"certificate"`
	// Key is its PEM private key.
	Key string `yaml:"key"`
	// ClientCA is the PEM bundle that signs client certificates of services.
	// Default: none, and client certificates are not accepted.
	ClientCA string `yaml:"client_ca,omitempty"`
}

// Limits bounds what callers may ask for. Zero means the default.
type Limits struct {
	// PerCaller is how many decisions a second one caller may ask for, items
	// of batches counted one by one. Default 500.
	PerCaller float64 `yaml:"per_caller,omitempty"`
	// PerTenant is the same for all callers of a tenant. Default 20000.
	PerTenant float64 `yaml:"per_tenant,omitempty"`
	// Connections is how many connections one address, or one /64 of IPv6, may
	// hold. Default 256.
	Connections int `yaml:"connections,omitempty"`
}

// Default limits.
const (
	DefaultPerCaller   = 500
	DefaultPerTenant   = 20000
	DefaultConnections = 256
	maxPerSecond       = 1_000_000_000
)

// Tenant is a tenant's file. Its name is the file's, and ID must repeat it.
type Tenant struct {
	// ID is the tenant's name: 1 to 63 of a–z, 0–9 and hyphens. Required.
	ID string `yaml:"id"`
	// Domains are the e-mail domains of the tenant's people. A domain belongs
	// to one tenant. Required.
	Domains []string `yaml:"domains"`
	// Admins are the first tenant-admins: principals. They count while the
	// store knows no tenant-admin, and are ignored, and said to be, from then
	// on. Required.
	Admins []vocab.Principal `yaml:"admins"`
	// Roles are the first holders of the other roles, by role name
	// (policy-admin, key-custodian, auditor, recovery-officer). Like Admins
	// they count while the store knows no holder of that role.
	Roles map[vocab.Role][]vocab.Principal `yaml:"roles,omitempty"`
	// Providers are the identity providers of the tenant's own people.
	Providers []string `yaml:"providers"`
	// GuestProviders are identity providers whose people may be let in as
	// guests. Which of their domains may, is a setting of the tenant.
	GuestProviders []string `yaml:"guest_providers,omitempty"`
	// Services are callers that are programs, by name: a certificate name
	// (spiffe://contoso.com/dlp, or a DNS name), or {provider, subject}.
	Services map[string]identity.ServiceMatch `yaml:"services,omitempty"`
	// Groups maps groups of a provider to addresses: provider, then the
	// provider's own group ID, then the group's address.
	Groups map[string]map[string]string `yaml:"groups,omitempty"`
	// Custodians hold the tenant's keys, by a name of the operator's: 1 to 63
	// of a–z, 0–9 and hyphens. Which of them has which key is registered in the
	// store. At least one, at most 16, each another place.
	Custodians map[string]Custodian `yaml:"custodians"`
}

// MaxCustodians is how many custodians a tenant's file may name.
const MaxCustodians = 16

// Custodian says where root keys of the tenant are, and how to get there;
// exactly one kind.
type Custodian struct {
	// Vault is HashiCorp Vault's transit engine.
	Vault *Vault `yaml:"vault,omitempty"`
	// AppRole or TokenFile is how the daemon signs in to Vault.
	AppRole   *AppRole `yaml:"approle,omitempty"`
	TokenFile string   `yaml:"token_file,omitempty"`
	// Embedded is a keyring beside the daemon: for development and for
	// tenants that trust the daemon's host with their root key.
	Embedded *Embedded `yaml:"embedded,omitempty"`
}

// Vault is where a tenant's Vault is. One mount and one role for each tenant,
// so that no defect can cross tenants. The keys on the mount are named when they
// are registered.
type Vault struct {
	// Address is https://HOST:PORT. http is accepted on loopback only.
	Address string `yaml:"address"`
	// CA is the PEM bundle that signs Vault's certificate. Default: the
	// system's.
	CA string `yaml:"ca,omitempty"`
	// Namespace is for Vault Enterprise; the community edition ignores it in
	// silence, so it is refused there.
	Namespace string `yaml:"namespace,omitempty"`
	// Mount is the transit engine's mount. Required.
	Mount string `yaml:"mount"`
	// ClusterID is the cluster that must answer. Default: the one that
	// answered first is remembered.
	ClusterID string `yaml:"cluster_id,omitempty"`
	// Timeout bounds one call. Default 3s.
	Timeout time.Duration `yaml:"timeout,omitempty"`
}

// AppRole is a sign-in to Vault by role ID and secret ID, both read from
// files.
type AppRole struct {
	// Mount of the auth method. Default: approle.
	Mount string `yaml:"mount,omitempty"`
	// RoleIDFile holds the role ID.
	RoleIDFile string `yaml:"role_id_file"`
	// SecretIDFile holds the secret ID, or the wrapping token of one.
	SecretIDFile string `yaml:"secret_id_file"`
	// Wrapped says that SecretIDFile holds a wrapping token.
	Wrapped bool `yaml:"wrapped,omitempty"`
	// Role is the role's name, checked against where a wrapping token was
	// made. Required with Wrapped.
	Role string `yaml:"role,omitempty"`
}

// Embedded is a keyring file and the file with the key that encrypts it. Both
// are made when absent.
type Embedded struct {
	// Keyring is the keyring's path. Default: keyring-NAME in the data
	// directory, by the tenant's name; a second one must say where it is.
	Keyring string `yaml:"keyring,omitempty"`
	// KeyFile is the path of the key. Default: keyring-NAME.key beside it, or the
	// keyring's path with .key added; production keeps it on another medium.
	KeyFile string `yaml:"key_file,omitempty"`
}

// Config is everything the operator wrote, checked.
type Config struct {
	File
	// Path is where File was read from.
	Path string
	// Tenants by name.
	Tenants map[string]Tenant
}

// Identity returns the part package identity reads.
func (c *Config) Identity() identity.Config {
	return identity.Config{Providers: c.IdentityProviders}
}

// Load reads and checks rmsd.yaml at path and every tenant's file. Relative
// paths inside are relative to the file they stand in. Every error is
// CONFIGURATION_INVALID and names the file and, where it can, the line.
func Load(path string) (*Config, error) {
	c := &Config{Path: path}
	if err := decodeFile(path, &c.File); err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return nil, invalid("%w", err)
	}
	c.resolve(dir)
	if err := c.checkFile(); err != nil {
		return nil, inFile(path, err)
	}
	if c.Tenants, err = loadTenants(c); err != nil {
		return nil, err
	}
	return c, nil
}

// resolve makes paths absolute and fills defaults in.
func (c *Config) resolve(dir string) {
	abs := func(p *string) {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
	abs(&c.DataDir)
	abs(&c.TenantsDir)
	abs(&c.TLS.Certificate)
	abs(&c.TLS.Key)
	abs(&c.TLS.ClientCA)
	abs(&c.OperatorSocket)
	if c.OperatorSocket == "" && c.DataDir != "" {
		c.OperatorSocket = filepath.Join(c.DataDir, "operator.sock")
	}
	if c.PublicName == "" {
		c.PublicName = c.Listen
	}
	if c.Limits.PerCaller == 0 {
		c.Limits.PerCaller = DefaultPerCaller
	}
	if c.Limits.PerTenant == 0 {
		c.Limits.PerTenant = DefaultPerTenant
	}
	if c.Limits.Connections == 0 {
		c.Limits.Connections = DefaultConnections
	}
}

func (c *Config) checkFile() error {
	for _, required := range []struct{ name, value string }{
		{"listen", c.Listen}, {"data_dir", c.DataDir}, {"tenants_dir", c.TenantsDir},
		{"tls.certificate", c.TLS.Certificate}, {"tls.key", c.TLS.Key},
	} {
		if required.value == "" {
			return invalid("%s is required", required.name)
		}
	}
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		return invalid("listen: %q is not an address like 0.0.0.0:7443", c.Listen)
	}
	if _, _, err := net.SplitHostPort(c.PublicName); err != nil {
		return invalid("public_name: %q is not a host and port like rms.contoso.com:7443", c.PublicName)
	}
	for _, perSecond := range []float64{c.Limits.PerCaller, c.Limits.PerTenant} {
		if !(perSecond > 0 && perSecond <= maxPerSecond) { // written so that NaN is refused
			return invalid("limits: per_caller and per_tenant must be between 0 and %d a second", maxPerSecond)
		}
	}
	if c.Limits.Connections < 0 {
		return invalid("limits: connections must not be negative")
	}
	if len(c.IdentityProviders) == 0 {
		return invalid("identity_providers: name at least one, or nobody can sign in")
	}
	return c.Identity().Validate()
}

// SecretFile reads a file that holds one secret value, without its final line
// break. It refuses a file that others than its owner and group can read, so
// that a wrong mode is found at start and not in an audit.
func SecretFile(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", invalid("%w", err)
	}
	if info.Mode().Perm()&0o007 != 0 {
		return "", invalid("%s can be read by everyone; run chmod 0600 on it", path)
	}
	b, err := readBounded(path)
	if err != nil {
		return "", err
	}
	defer clear(b)
	end := len(b)
	for end > 0 && (b[end-1] == '\n' || b[end-1] == '\r') {
		end--
	}
	if end == 0 {
		return "", invalid("%s is empty", path)
	}
	return string(b[:end]), nil
}
