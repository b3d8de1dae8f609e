package rmsctl

import (
	"fmt"
	"os"

	"github.com/openrms/rms/internal/container"
	"github.com/openrms/rms/internal/vocab"
)

// identify reads from a file which document of which tenant it says it is. It
// is only good for finding the context: nothing of it is authenticated.
func identify(path string) (vocab.TenantID, vocab.ContentID, error) {
	f, err := os.Open(path) //nolint:gosec // a file that the user named
	if err != nil {
		return vocab.TenantID{}, vocab.ContentID{}, err
	}
	defer f.Close()
	h, err := container.ReadHeader(f)
	if err != nil {
		if explain(err) == nil {
			err = fmt.Errorf("reading %s: %w", path, err)
		}
		return vocab.TenantID{}, vocab.ContentID{}, err
	}
	return h.Prefix().Tenant, h.Prefix().Content, nil
}
