package rmsctl

import (
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/openrms/rms/internal/keys/vaultact"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

func (a *app) keyDestroyCommand() *cobra.Command {
	var flags vaultFlags
	var trim, done bool
	req := &rmsv1.DestroyKeyRequest{}
	c := &cobra.Command{
		Use:   "destroy KEY [vN] | gN",
		Short: "Destroy a key, one of its versions or a generation, for ever, when others have approved it",
		Long: `Destroy a key, one of its versions or a generation, for ever. It is refused while
anything depends on it; rmsctl key inventory says what. Others must approve it, and
what they approve is bound to what depends on it: if that changes, nothing is done.

After the last approval nothing under it opens in this service again. A generation
is gone then; a key in the service's own keyring is removed from it. A key in Vault
is destroyed there by you: run the same command with --trim, with the destroyer's
Vault token. Vault destroys versions from the oldest on only: a version in the
middle stays there, unused, until all older ones can go too.

Copies in files that were sealed under it never open again, and no backup brings it
back that does not hold the key itself.`,
		Example: `  rmsctl key destroy root v1 --reason "rotated out in spring" --ticket CASE-77
  rmsctl key destroy root v1 --trim --vault-token-file destroyer.token
  rmsctl key destroy g4 --despite-soak --reason "compromised, and resealed"`,
		Args: cobra.RangeArgs(1, 2),
		RunE: a.online(func(ctx context.Context, s *server, args []string) error {
			name, what, err := keyTarget(s, args)
			switch {
			case err != nil:
				return err
			case trim && done:
				return usagef("either --trim or --done")
			case trim || done:
				return a.destroyAtCustodian(ctx, s, &flags, name, what, trim)
			}
			if err := a.confirm("Ask to destroy %s, which cannot be undone", what); err != nil {
				return err
			}
			req.Name = name
			o, err := s.Custody().DestroyKey(ctx, req)
			if err != nil {
				return err
			}
			if err := a.emit(o, func() {
				a.outf("%s  %s, bound to inventory %s", lastPart(o.GetName()), operationWhat(o), hex.EncodeToString(o.GetKeyDestroy().GetInventorySha256()))
				for _, l := range o.GetKeyDestroy().GetInventory() {
					a.outf("  %s", l)
				}
			}); err != nil {
				return err
			}
			if o.GetState() == rmsv1.Operation_STATE_AWAITING_APPROVAL {
				return waitsFor(o)
			}
			return nil
		}),
	}
	f := c.Flags()
	f.StringVar(&req.Reason, "reason", "", "why; recorded for ever")
	f.StringVar(&req.Ticket, "ticket", "", "the case it belongs to; recorded for ever")
	f.BoolVar(&req.DespiteSoak, "despite-soak", false, "do not wait until it has been unused for 30 days; whoever approves it sees that")
	f.BoolVar(&req.DespiteBackups, "despite-backups", false, "although backups need it, which will not open; whoever approves it sees that")
	f.BoolVar(&trim, "trim", false, "after the approval: destroy it in Vault, with your own token, which needs the destroyer's policy")
	f.BoolVar(&done, "done", false, "after the approval: you destroyed it at its custodian by hand; have the service look")
	flags.on(c)
	return a.formatFlag(c)
}

// destroyAtCustodian does, or only reports, the destroyer's part of a destruction
// that was approved.
func (a *app) destroyAtCustodian(ctx context.Context, s *server, flags *vaultFlags, name, what string, act bool) error {
	o, err := runningDestruction(ctx, s, name, what)
	if err != nil {
		return err
	}
	key, version := targetKey(s, name)
	if key == "" {
		return usagef("a generation is destroyed by the approval alone: there is nothing to do at a custodian")
	}
	var ids []string
	if act {
		k, err := s.Custody().GetKey(ctx, &rmsv1.GetKeyRequest{Name: keyName(s, key)})
		if err != nil {
			return err
		}
		v, done, err := a.vault(ctx, s, flags, k.GetCustodianName(), k.GetClusterId())
		if err != nil {
			return err
		}
		defer done()
		if version > 0 {
			ids, err = a.trimVersion(ctx, s, v, k, version)
		} else {
			ids, err = a.deleteKey(ctx, s, v, k)
		}
		if err != nil {
			return err
		}
	}
	finished, err := s.Custody().FinishDestroyKey(ctx, &rmsv1.FinishDestroyKeyRequest{Name: o.GetName(), RequestIds: ids})
	if err != nil {
		return err
	}
	return a.decided(finished, "told")
}

// runningDestruction finds the approved operation that destroys something.
func runningDestruction(ctx context.Context, s *server, name, what string) (*rmsv1.Operation, error) {
	list, _, err := collect(0, func(size int32, token string) ([]*rmsv1.Operation, string, error) {
		page, err := s.Operations().ListOperations(ctx, &rmsv1.ListOperationsRequest{
			Parent: s.parent(), PageSize: size, PageToken: token, State: rmsv1.Operation_STATE_RUNNING, Kind: rmsv1.Operation_KIND_KEY_DESTROY,
		})
		return page.GetOperations(), page.GetNextPageToken(), err
	})
	if err != nil {
		return nil, err
	}
	for _, o := range list {
		if o.GetKeyDestroy().GetTarget() == name {
			return o, nil
		}
	}
	return nil, vocab.Errorf(vocab.ReasonOperationState, "no approved destruction of %s waits for its custodian", what).
		WithNext("See rmsctl operation list --kind key-destroy")
}

// targetKey takes the name of a key or version apart; "" of a generation.
func targetKey(s *server, name string) (key string, version uint32) {
	rest, ok := strings.CutPrefix(name, s.parent()+"/keys/")
	if !ok {
		return "", 0
	}
	key, number, _ := strings.Cut(rest, "/versions/")
	_, _ = fmt.Sscan(number, &version) // keyTarget wrote it
	return key, version
}

// trimVersion destroys a version in Vault, with the older ones that are destroyed
// here too, and refuses where one of those is not.
func (a *app) trimVersion(ctx context.Context, s *server, v *vaultact.Client, k *rmsv1.Key, version uint32) ([]string, error) {
	inv, err := s.Custody().GetInventory(ctx, &rmsv1.GetInventoryRequest{Parent: s.parent()})
	if err != nil {
		return nil, err
	}
	below, err := floorAbove(inv, k.GetName(), version)
	if err != nil {
		return nil, err
	}
	is, err := v.ReadKey(ctx, k.GetRootKey())
	if err != nil {
		return nil, err
	}
	if is.Key.MinAvailable >= below {
		a.sayf("vault: %s has no version below v%d any more", k.GetRootKey(), is.Key.MinAvailable)
		return nil, nil
	}
	if err := a.confirm("Destroy every version of %s below v%d in Vault, for ever", k.GetRootKey(), below); err != nil {
		return nil, err
	}
	d, err := v.Trim(ctx, k.GetRootKey(), below)
	if d != nil {
		a.did(d.Evidence)
	}
	if err != nil {
		return nil, err
	}
	return requestIDs(d.Evidence), nil
}

// floorAbove is the lowest version that stays when a version is trimmed: all
// below it are destroyed in the service's records.
func floorAbove(inv *rmsv1.Inventory, key string, version uint32) (uint32, error) {
	destroyed := map[uint32]bool{}
	var kept []string
	for _, v := range inv.GetVersions() {
		if v.GetKey() != key {
			continue
		}
		n := v.GetVersion().GetVersion()
		destroyed[n] = v.GetVersion().GetState() == rmsv1.Key_STATE_DESTROYED
		if n < version && !destroyed[n] && v.GetGoneTime() == nil {
			kept = append(kept, fmt.Sprintf("v%d", n))
		}
	}
	if len(kept) > 0 {
		return 0, vocab.Errorf(vocab.ReasonCustodianActs, "Vault destroys versions from the oldest on only, and %s is not destroyed: v%d stays there, unused", strings.Join(kept, ", "), version).
			WithNext("Nothing under v%d opens in this service any more; trim when the older ones are destroyed too", version)
	}
	below := version + 1
	for destroyed[below] {
		below++
	}
	return below, nil
}

// deleteKey deletes a key in Vault, and its signing key unless another key has
// the same.
func (a *app) deleteKey(ctx context.Context, s *server, v *vaultact.Client, k *rmsv1.Key) (ids []string, err error) {
	r, err := s.Custody().ListKeys(ctx, &rmsv1.ListKeysRequest{Parent: s.parent()})
	if err != nil {
		return nil, err
	}
	names := []string{k.GetRootKey(), k.GetSignKey()}
	for _, other := range r.GetKeys() {
		if other.GetName() != k.GetName() && other.GetCustodianName() == k.GetCustodianName() && other.GetSignKey() == k.GetSignKey() &&
			other.GetState() != rmsv1.Key_STATE_DESTROYED {
			a.sayf("the signing key %s stays: %s has it too", k.GetSignKey(), lastPart(other.GetName()))
			names = names[:1]
			break
		}
	}
	if err := a.confirm("Delete %s with all versions in Vault, for ever", strings.Join(names, " and ")); err != nil {
		return nil, err
	}
	// The signing key goes first: the service takes the key for gone when its root is.
	for _, name := range slices.Backward(names) {
		d, err := v.Delete(ctx, name)
		if d != nil {
			a.did(d.Evidence)
			ids = append(ids, requestIDs(d.Evidence)...)
		}
		gone := d != nil && d.Before == nil && vocab.ReasonOf(err) == vocab.ReasonKeyState // an earlier attempt was cut short
		if err != nil && !gone {
			return nil, err
		}
	}
	return ids[max(0, len(ids)-maxRequestIDs):], nil
}

// maxRequestIDs is how many the service takes.
const maxRequestIDs = 16

func requestIDs(e vaultact.Evidence) (ids []string) {
	for _, r := range e.Requests {
		if r.ID != "" {
			ids = append(ids, r.ID)
		}
	}
	return ids[max(0, len(ids)-maxRequestIDs):]
}
