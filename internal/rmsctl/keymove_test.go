package rmsctl_test

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	rmsv1 "github.com/openrms/rms/proto/rms/v1"
	"github.com/openrms/rms/rmstest"
)

// TestKeyMoves is a session about what moves when keys do: settled KIND waits
// until no such operation goes on.
func TestKeyMoves(t *testing.T) {
	s := rmstest.Start(t)
	client := s.Client("carla")
	parent := "tenants/" + s.Tenant()
	testscript.Run(t, testscript.Params{
		Files: []string{"testdata/keys/moves.txtar"},
		Setup: func(env *testscript.Env) error {
			env.Setenv("RMS_CONFIG_DIR", s.ContextsDir())
			env.Setenv("LANG", "C.UTF-8")
			env.Setenv("GORACE", os.Getenv("GORACE"))
			env.Setenv("XDG_RUNTIME_DIR", "")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "capture": capture,
			"settled": func(ts *testscript.TestScript, _ bool, args []string) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				list, err := client.Operations().ListOperations(ctx, &rmsv1.ListOperationsRequest{
					Parent: parent, Kind: map[string]rmsv1.Operation_Kind{"rewrap": rmsv1.Operation_KIND_REWRAP, "reseal": rmsv1.Operation_KIND_RESEAL}[args[0]],
				})
				ts.Check(err)
				for _, o := range list.GetOperations() {
					stream, err := client.Operations().WatchOperation(ctx, &rmsv1.WatchOperationRequest{Name: o.GetName()})
					for err == nil {
						_, err = stream.Recv()
					}
				}
				ts.Check(ctx.Err())
			},
		},
	})
}
