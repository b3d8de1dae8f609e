package realvault

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
)

// Snapshot is a copy of everything a Vault had stored.
type Snapshot struct{ dir string }

// Snapshot stops the Vault, copies its storage, and has it serve again.
func (s *Server) Snapshot(ctx context.Context) (*Snapshot, error) {
	s.Stop()
	dir, err := os.MkdirTemp(s.dir, "snapshot-")
	if err != nil {
		return nil, err
	}
	if err := os.CopyFS(dir, os.DirFS(s.data())); err != nil {
		return nil, err
	}
	return &Snapshot{dir}, s.Again(ctx)
}

// Restore stops the Vault, puts a snapshot in place of its storage, and has it
// serve again: the same cluster, with what it knew then. Tokens and keys made
// since are gone.
func (s *Server) Restore(ctx context.Context, from *Snapshot) error {
	s.Stop()
	if err := os.RemoveAll(s.data()); err != nil {
		return err
	}
	if err := os.CopyFS(s.data(), os.DirFS(from.dir)); err != nil {
		return err
	}
	return s.Again(ctx)
}

// Again runs a Vault that was stopped or killed, and unseals it.
func (s *Server) Again(ctx context.Context) error {
	if err := s.Run(ctx); err != nil {
		return err
	}
	return s.Unseal(ctx)
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

type keyList struct {
	Data struct {
		Keys []string `json:"keys"`
	} `json:"data"`
}

// RevokeTokens revokes every token that has the tenant's policy, by accessor,
// as a custody officer may.
func (t *Tenant) RevokeTokens(ctx context.Context) error {
	var all keyList
	if err := t.s.Request(ctx, http.MethodGet, "auth/token/accessors?list=true", nil, &all); err != nil {
		return err
	}
	revoked := 0
	for _, accessor := range all.Data.Keys {
		var token struct {
			Data struct {
				Policies []string `json:"policies"`
			} `json:"data"`
		}
		if err := t.s.Request(ctx, http.MethodPost, "auth/token/lookup-accessor", map[string]string{"accessor": accessor}, &token); err != nil {
			continue // it ended meanwhile
		}
		if !slices.Contains(token.Data.Policies, t.Policy) {
			continue
		}
		if err := t.s.Request(ctx, http.MethodPost, "auth/token/revoke-accessor", map[string]string{"accessor": accessor}, nil); err != nil {
			return err
		}
		revoked++
	}
	if revoked == 0 {
		return fmt.Errorf("no token has the policy %s", t.Policy)
	}
	return nil
}

// DestroySecretIDs destroys every secret ID of the tenant's role.
func (t *Tenant) DestroySecretIDs(ctx context.Context) error {
	role := "auth/approle/role/" + t.Role
	var all keyList
	if err := t.s.Request(ctx, http.MethodGet, role+"/secret-id?list=true", nil, &all); err != nil {
		return err
	}
	for _, accessor := range all.Data.Keys {
		if err := t.s.Request(ctx, http.MethodPost, role+"/secret-id-accessor/destroy", map[string]string{"secret_id_accessor": accessor}, nil); err != nil {
			return err
		}
	}
	return nil
}

// DeleteKey allows a key to be deleted and deletes it: all of its versions, for
// ever.
func (t *Tenant) DeleteKey(ctx context.Context, key string) error {
	if err := t.Configure(ctx, key, map[string]any{"deletion_allowed": true}); err != nil {
		return err
	}
	return t.s.Request(ctx, http.MethodDelete, t.Mount+"/keys/"+key, nil, nil)
}
