package daemon_test

import (
	"context"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/openrms/rms/internal/daemon/daemontest"
)

// However a daemon is stopped, what a caller was told is in the store, and the
// log's streams end. The whole process is stopped in the same way in the tests
// of cmd/rmsd.
func TestCloseUnderLoad(t *testing.T) {
	for _, c := range []struct {
		name    string
		patient bool // calls under way may end
		allowed []codes.Code
	}{
		{"in order", true, []codes.Code{codes.Unavailable}},
		{"at once", false, []codes.Code{codes.Unavailable, codes.Canceled}},
	} {
		t.Run(c.name, func(t *testing.T) {
			site := daemontest.NewSite(t)
			d := start(t, site, nil)
			tail := daemontest.Tail(t, site, d.Addr())
			load := daemontest.StartLoad(t, site, d.Addr(), 64)
			<-load.Underway()
			ctx, cancel := context.WithCancel(t.Context())
			if !c.patient {
				cancel()
			}
			if err := d.Close(ctx); err != nil {
				t.Fatal(err)
			}
			cancel()
			load.Wait(t, c.allowed...)
			if err := <-tail; status.Code(err) != codes.Unavailable {
				t.Errorf("the tail ended with %v", err)
			}
			next := start(t, site, nil)
			load.Check(t, next.Addr())
		})
	}
}
