package realvault

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"

	vaultpolicy "github.com/openrms/rms/deploy/vault"
	"github.com/openrms/rms/internal/keys/vault"
)

// Tenant is a tenant's part of a Vault: a transit mount with both keys, the
// shipped policy and an AppRole that has it and nothing else.
type Tenant struct {
	Name, Mount, Role, Policy string
	RoleIDFile, SecretIDFile  string

	s *Server
}

// AddTenant sets a tenant up as the custody guide says: a mount of its own,
// keys "root" (aes256-gcm96, derived) and "sign" (ed25519), upsert off, the
// shipped policy, token_no_default_policy.
func (s *Server) AddTenant(ctx context.Context, name string) (*Tenant, error) {
	t, err := s.AddMount(ctx, name)
	if err != nil {
		return nil, err
	}
	if err := t.CreateKey(ctx, "root", map[string]any{"type": "aes256-gcm96", "derived": true}); err != nil {
		return nil, err
	}
	if err := t.CreateKey(ctx, "sign", map[string]any{"type": "ed25519"}); err != nil {
		return nil, err
	}
	return t, s.Request(ctx, http.MethodPost, t.Mount+"/config/keys", map[string]any{"disable_upsert": true}, nil)
}

// AddMount is [Server.AddTenant] without keys, for a test that makes its own.
func (s *Server) AddMount(ctx context.Context, name string) (*Tenant, error) {
	t := &Tenant{
		Name: name, Mount: "transit-rms-" + name, Role: "rms-" + name, Policy: "rms-" + name, s: s,
		RoleIDFile: filepath.Join(s.dir, name+".role-id"), SecretIDFile: filepath.Join(s.dir, name+".secret-id"),
	}
	if err := s.Request(ctx, http.MethodPost, "sys/mounts/"+t.Mount, map[string]string{"type": "transit"}, nil); err != nil {
		return nil, err
	}
	if err := t.SetPolicy(ctx, vaultpolicy.Daemon(t.Mount, "root")); err != nil {
		return nil, err
	}
	if err := t.MakeRole(ctx); err != nil {
		return nil, err
	}
	return t, t.Deliver(ctx)
}

// MakeRole makes the service's role, which has the tenant's policy and nothing
// else, and writes its ID to RoleIDFile.
func (t *Tenant) MakeRole(ctx context.Context) error {
	role := map[string]any{
		"token_policies": []string{t.Policy}, "token_no_default_policy": true, "token_period": "20m", "secret_id_num_uses": 0,
		"secret_id_bound_cidrs": []string{"127.0.0.1/32"}, "token_bound_cidrs": []string{"127.0.0.1/32"},
	}
	if err := t.s.Request(ctx, http.MethodPost, "auth/approle/role/"+t.Role, role, nil); err != nil {
		return err
	}
	var id struct {
		Data struct {
			RoleID string `json:"role_id"`
		}
	}
	if err := t.s.Request(ctx, http.MethodGet, "auth/approle/role/"+t.Role+"/role-id", nil, &id); err != nil {
		return err
	}
	return os.WriteFile(t.RoleIDFile, []byte(id.Data.RoleID), 0o600)
}

// CreateKey makes a key on the tenant's mount.
func (t *Tenant) CreateKey(ctx context.Context, name string, params map[string]any) error {
	return t.s.Request(ctx, http.MethodPost, t.Mount+"/keys/"+name, params, nil)
}

// AddRoot makes another root key on the tenant's mount, and gives the service
// the use of it beside the root keys named.
func (t *Tenant) AddRoot(ctx context.Context, name string, beside ...string) error {
	if err := t.CreateKey(ctx, name, map[string]any{"type": "aes256-gcm96", "derived": true}); err != nil {
		return err
	}
	return t.SetPolicy(ctx, vaultpolicy.Daemon(t.Mount, append([]string{name}, beside...)...))
}

// SetPolicy replaces the policy of the tenant's role, which acts on tokens that
// exist. An empty policy is the
// customer's switch.
func (t *Tenant) SetPolicy(ctx context.Context, text string) error {
	if text == "" {
		text = "# nothing" // Vault accepts no empty text
	}
	return t.s.Request(ctx, http.MethodPut, "sys/policies/acl/"+t.Policy, map[string]string{"policy": text}, nil)
}

// Deliver writes a new wrapped secret ID to SecretIDFile.
func (t *Tenant) Deliver(ctx context.Context) error {
	var w struct {
		WrapInfo struct {
			Token string `json:"token"`
		} `json:"wrap_info"`
	}
	if err := t.s.do(ctx, t.s.rootToken, "10m", http.MethodPost, "auth/approle/role/"+t.Role+"/secret-id", struct{}{}, &w); err != nil {
		return err
	}
	return os.WriteFile(t.SecretIDFile, []byte(w.WrapInfo.Token+"\n"), 0o600)
}

// Rotate rotates "root" or "sign".
func (t *Tenant) Rotate(ctx context.Context, key string) error {
	return t.s.Request(ctx, http.MethodPost, t.Mount+"/keys/"+key+"/rotate", nil, nil)
}

// Configure changes a key's configuration.
func (t *Tenant) Configure(ctx context.Context, key string, params map[string]any) error {
	return t.s.Request(ctx, http.MethodPost, t.Mount+"/keys/"+key+"/config", params, nil)
}

// Config is how the service reaches the tenant's mount.
func (t *Tenant) Config() vault.Config {
	return vault.Config{
		Address: t.s.Address, CAFile: t.s.CAFile, Mount: t.Mount, ClusterID: t.s.ClusterID,
		AppRole: &vault.AppRole{Role: t.Role, RoleIDFile: t.RoleIDFile, SecretIDFile: t.SecretIDFile, Wrapped: true},
	}
}

// AuditEntry is a line of Vault's audit file.
type AuditEntry struct {
	Type string `json:"type"` // request or response
	Auth struct {
		DisplayName string   `json:"display_name"`
		Policies    []string `json:"policies"`
	} `json:"auth"`
	Request struct {
		ID        string `json:"id"`
		Operation string `json:"operation"`
		Path      string `json:"path"`
	} `json:"request"`
	Error string `json:"error"`
}

// ReadAudit reads Vault's audit file: its own record of who asked for what.
func (s *Server) ReadAudit() ([]AuditEntry, error) {
	b, err := os.ReadFile(s.AuditFile)
	if err != nil {
		return nil, err
	}
	var entries []AuditEntry
	lines := bufio.NewScanner(bytes.NewReader(b))
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		var e AuditEntry
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return nil, fmt.Errorf("audit file: %w", err)
		}
		entries = append(entries, e)
	}
	return entries, lines.Err()
}
