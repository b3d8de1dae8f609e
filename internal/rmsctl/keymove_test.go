package rmsctl_test

import (
	"context"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	rmsv1 "github.com/openrms/rms/proto/rms/v1"
	"github.com/openrms/rms/rmstest"
)

// TestKeyMoves is a session about keys that move, at a service where more can be
// done to keys than the script is about: custody VERB NAME does it, and settled
// KIND waits until no such operation goes on.
func TestKeyMoves(t *testing.T) {
	s := rmstest.Start(t)
	client := s.Client("carla")
	parent := "tenants/" + s.Tenant()
	testscript.Run(t, testscript.Params{
		Files: []string{"testdata/keys/moves.txtar"},
		Setup: func(env *testscript.Env) error {
			env.Setenv("RMS_CONFIG_DIR", s.ContextsDir())
			env.Setenv("LANG", "C.UTF-8")
			env.Setenv("XDG_RUNTIME_DIR", "")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "capture": capture,
			"custody": func(ts *testscript.TestScript, _ bool, args []string) {
				c, name := client.Custody(), parent+"/"+args[1]
				var err error
				switch args[0] {
				case "rotate":
					_, err = c.RotateKey(t.Context(), &rmsv1.RotateKeyRequest{Name: parent + "/keys/" + args[1]})
				case "suspend":
					_, err = c.SuspendKey(t.Context(), &rmsv1.SuspendKeyRequest{Name: name})
				case "resume":
					_, err = c.ResumeKey(t.Context(), &rmsv1.ResumeKeyRequest{Name: name})
				case "compromise":
					_, err = c.CompromiseKey(t.Context(), &rmsv1.CompromiseKeyRequest{Name: name})
				}
				ts.Check(err)
			},
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
