package vault

import (
	"context"
	"errors"
	"net/http"

	"github.com/openrms/rms/internal/keys"
)

var _ keys.Holder = (*Vault)(nil)

// HoldsRoot implements [keys.Holder]. Of a key that does not exist Vault says 404
// and nothing more; of a mount or a path that does not, it says so in words.
func (v *Vault) HoldsRoot(ctx context.Context) (holds bool, requestID string, err error) {
	if _, err := v.conn.expected(ctx); err != nil {
		return false, "", err
	}
	ans, err := v.call(ctx, http.MethodGet, v.cfg.Mount+"/keys/"+v.cfg.RootKey, nil)
	if r, ok := errors.AsType[*refused](err); ok && r.status == http.StatusNotFound && len(r.answer.Errors) == 0 {
		return false, r.answer.RequestID, nil
	}
	if err != nil {
		return false, "", unrefused(err)
	}
	return true, ans.RequestID, nil
}
