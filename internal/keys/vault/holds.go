package vault

import (
	"context"
	"errors"
	"net/http"

	"github.com/openrms/rms/internal/keys"
)

var _ keys.Holder = (*Key)(nil)

// HoldsRoot implements [keys.Holder]. Of a key that does not exist Vault says 404
// and nothing more; of a mount or a path that does not, it says so in words.
func (k *Key) HoldsRoot(ctx context.Context) (holds bool, requestID string, err error) {
	if _, err := k.expected(ctx); err != nil {
		return false, "", err
	}
	ans, err := k.call(ctx, http.MethodGet, k.c.cfg.Mount+"/keys/"+k.root, nil)
	if r, ok := errors.AsType[*refused](err); ok && r.status == http.StatusNotFound && len(r.answer.Errors) == 0 {
		return false, r.answer.RequestID, nil
	}
	if err != nil {
		return false, "", unrefused(err)
	}
	return true, ans.RequestID, nil
}
