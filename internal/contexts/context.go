package contexts

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/openrms/rms/internal/vocab"
)

// DefaultPort is the port of a server whose address names none.
const DefaultPort = "7443"

// MaxFile bounds a context file, in bytes: a trust bundle is at most 64 KiB,
// and so is a reasonable file of authorities.
const MaxFile = 256 << 10

// KeyID is the identity of a signing root: a SHA-256 hash. Its text form is
// "SHA256:" and unpadded base64, the form people know from SSH.
type KeyID [32]byte

const keyIDPrefix = "SHA256:"

// String returns the text form.
func (k KeyID) String() string {
	return keyIDPrefix + base64.RawStdEncoding.EncodeToString(k[:])
}

// ParseKeyID reads the text form.
func ParseKeyID(s string) (KeyID, error) {
	var k KeyID
	text, ok := strings.CutPrefix(s, keyIDPrefix)
	b, err := base64.RawStdEncoding.Strict().DecodeString(text)
	if !ok || err != nil || len(b) != len(k) {
		return k, invalid("%q is not a root key ID: want SHA256: and 43 characters of base64", clip(s))
	}
	return KeyID(b), nil
}

// MarshalText implements [encoding.TextMarshaler].
func (k KeyID) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (k *KeyID) UnmarshalText(b []byte) error {
	v, err := ParseKeyID(string(b))
	if err != nil {
		return err
	}
	*k = v
	return nil
}

// SignIn is how a person signs in to a context's server.
type SignIn struct {
	// Provider is the identity provider's name in the server's files, for
	// people to read.
	Provider string `yaml:"provider"`
	// Issuer is its OpenID issuer.
	Issuer string `yaml:"issuer"`
	// ClientID is the public client ID for command-line clients there.
	ClientID string `yaml:"client_id"`
	// Scopes are the scopes to ask for.
	Scopes []string `yaml:"scopes,omitempty"`
	// IDToken says that the server takes the provider's ID tokens rather
	// than its access tokens.
	IDToken bool `yaml:"id_token,omitempty"`
	// Account is who signed in last, for people to read.
	Account string `yaml:"account,omitempty"`
}

// Context is one tenant at one server, as one person uses it.
type Context struct {
	// Name is the context's own: the file's name without its suffix. It is
	// not in the file.
	Name string `yaml:"-"`
	// Server is HOST:PORT.
	Server string `yaml:"server"`
	// CA holds the authorities the server's certificate must chain to, in
	// PEM; empty: the system's.
	CA string `yaml:"ca,omitempty"`
	// Tenant is the tenant's name.
	Tenant string `yaml:"tenant"`
	// TenantID is the tenant's identity, as containers carry it.
	TenantID vocab.TenantID `yaml:"tenant_id"`
	// Roots are the pinned signing roots of the tenant.
	Roots []KeyID `yaml:"roots"`
	// Bundle is the newest trust bundle seen, as received, in base64. It
	// tells which roots have been replaced since Roots were pinned.
	Bundle string `yaml:"bundle,omitempty"`
	// BundleSeq is the bundle's sequence number; it never goes back.
	BundleSeq uint64 `yaml:"bundle_seq,omitempty"`
	// SignIn is how to sign in; nil where TokenFile is used.
	SignIn *SignIn `yaml:"sign_in,omitempty"`
	// TokenFile is a file with a bearer token, read anew for every
	// connection, in place of SignIn. Development daemons and automation
	// use it. A relative path is relative to the folder of the contexts.
	TokenFile string `yaml:"token_file,omitempty"`
	// Development says that the server is a development daemon, whose keys
	// protect nothing.
	Development bool `yaml:"development,omitempty"`

	folder string
}

// Parse reads one context, strictly: unknown and repeated keys, anchors, and
// values that do not make sense are refused. The error's reason is
// CONFIGURATION_INVALID.
func Parse(name string, b []byte) (*Context, error) {
	if len(b) > MaxFile {
		return nil, invalid("context %s is larger than %d bytes", clip(name), MaxFile)
	}
	var n yaml.Node
	if err := yaml.Unmarshal(b, &n); err != nil {
		return nil, invalid("context %s is not valid: %v", clip(name), err).Because(err)
	}
	if hasAlias(&n) {
		return nil, invalid("context %s is not valid: anchors and aliases are not supported", clip(name))
	}
	c := &Context{Name: name}
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	switch err := d.Decode(c); {
	case errors.Is(err, io.EOF):
		return nil, invalid("context %s is empty", clip(name))
	case err != nil:
		return nil, invalid("context %s is not valid: %v", clip(name), err).Because(err)
	}
	if err := d.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, invalid("context %s holds more than one document", clip(name))
	}
	if err := c.Validate(); err != nil {
		return nil, err
	}
	return c, nil
}

// Encode returns the context as its file holds it.
func (c *Context) Encode() ([]byte, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := errors.Join(e.Encode(c), e.Close()); err != nil {
		return nil, fmt.Errorf("encoding context %s: %w", c.Name, err)
	}
	return b.Bytes(), nil
}

// Validate says what is wrong with the context.
func (c *Context) Validate() error {
	switch {
	case !vocab.ValidSlug(c.Name):
		return invalid("%q cannot name a context: use 1 to 63 of a–z, 0–9 and hyphens", clip(c.Name))
	case !validServer(c.Server):
		return invalid("context %s: server %q is not HOST:PORT", c.Name, clip(c.Server))
	case !vocab.ValidSlug(c.Tenant):
		return invalid("context %s: %q is not a tenant's name", c.Name, clip(c.Tenant))
	case c.TenantID.IsZero():
		return invalid("context %s: tenant_id is missing", c.Name)
	case len(c.Roots) == 0 || len(c.Roots) > 16:
		return invalid("context %s: roots must pin 1 to 16 signing roots", c.Name)
	case c.SignIn != nil && c.TokenFile != "":
		return invalid("context %s: sign_in and token_file exclude each other", c.Name)
	case c.SignIn != nil && (c.SignIn.Issuer == "" || c.SignIn.ClientID == ""):
		return invalid("context %s: sign_in needs issuer and client_id", c.Name)
	}
	if _, err := c.TrustBundle(); err != nil {
		return err
	}
	_, err := c.Authorities()
	return err
}

// TrustBundle returns the newest trust bundle seen, nil if none was.
func (c *Context) TrustBundle() ([]byte, error) {
	if c.Bundle == "" {
		return nil, nil
	}
	b, err := base64.StdEncoding.Strict().DecodeString(c.Bundle)
	if err != nil {
		return nil, invalid("context %s: bundle is not base64", c.Name)
	}
	return b, nil
}

// SetTrustBundle keeps a verified trust bundle unless a newer one is there
// already.
func (c *Context) SetTrustBundle(b []byte, seq uint64) {
	if len(b) == 0 || c.Bundle != "" && seq < c.BundleSeq {
		return
	}
	c.Bundle, c.BundleSeq = base64.StdEncoding.EncodeToString(b), seq
}

// Authorities returns the pool of CA; nil means the system's.
func (c *Context) Authorities() (*x509.CertPool, error) {
	if c.CA == "" {
		return nil, nil
	}
	pool := x509.NewCertPool()
	rest := []byte(c.CA)
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if block.Type != "CERTIFICATE" || err != nil {
			return nil, invalid("context %s: ca holds something that is not a certificate", c.Name)
		}
		pool.AddCert(cert)
	}
	if len(bytes.TrimSpace(rest)) != 0 || pool.Equal(x509.NewCertPool()) {
		return nil, invalid("context %s: ca is not a list of certificates in PEM", c.Name)
	}
	return pool, nil
}

// TokenPath returns where TokenFile is, "" if there is none.
func (c *Context) TokenPath() string {
	if c.TokenFile == "" || filepath.IsAbs(c.TokenFile) {
		return c.TokenFile
	}
	return filepath.Join(c.folder, c.TokenFile)
}

// Address completes an address as a person writes it: the port may be left
// out.
func Address(s string) (string, error) {
	if validServer(s) {
		return s, nil
	}
	host := strings.TrimSuffix(strings.TrimPrefix(s, "["), "]")
	if full := net.JoinHostPort(host, DefaultPort); validServer(full) {
		return full, nil
	}
	return "", invalid("%q is not the address of a server: write HOST or HOST:PORT, without https://", clip(s))
}

func validServer(s string) bool {
	host, port, err := net.SplitHostPort(s)
	if err != nil || len(s) > 300 || host == "" || strings.ContainsAny(host, "/\\@?#% \t\r\n") {
		return false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return false
	}
	return !strings.Contains(host, ":") || net.ParseIP(host) != nil
}

func hasAlias(n *yaml.Node) bool {
	if n.Kind == yaml.AliasNode || n.Anchor != "" {
		return true
	}
	return slices.ContainsFunc(n.Content, hasAlias)
}

func invalid(format string, args ...any) *vocab.Error {
	return vocab.Errorf(vocab.ReasonConfigurationInvalid, format, args...)
}

func clip(s string) string {
	if len(s) > 64 {
		return s[:64] + "…"
	}
	return s
}
