package evidencetest

import (
	"context"
	"errors"
	"io"
	"testing"

	"google.golang.org/grpc"

	"github.com/openrms/rms/internal/daemon/daemontest"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// Person is a connection on which one person calls.
type Person struct {
	Conn grpc.ClientConnInterface
	As   grpc.CallOption
}

const parent = "tenants/" + daemontest.Tenant

// Live has people do to a tenant's keys what evidence tells of: alice and grace
// are administrators, carla keeps keys. rotate rotates the key root.
func Live(tb testing.TB, as func(name string) Person, rotate func()) {
	tb.Helper()
	ctx, carla := tb.Context(), as("carla")
	keys := rmsv1.NewCustodyServiceClient(carla.Conn)
	for _, name := range []string{parent + "/keys/root", parent + "/generations/1"} {
		_, err := keys.SuspendKey(ctx, &rmsv1.SuspendKeyRequest{Name: name, Reason: "a drill"}, carla.As)
		check(tb, err)
		_, err = keys.ResumeKey(ctx, &rmsv1.ResumeKeyRequest{Name: name}, carla.As)
		check(tb, err)
	}
	rotate()
	_, err := keys.SyncKey(ctx, &rmsv1.SyncKeyRequest{Name: parent + "/keys/root"}, carla.As)
	check(tb, err)
	_, err = keys.RehearseSuspension(ctx, &rmsv1.RehearseSuspensionRequest{Parent: parent}, carla.As)
	check(tb, err)

	alice, grace := as("alice"), as("grace")
	_, err = rmsv1.NewPeopleServiceClient(alice.Conn).GrantRole(ctx, &rmsv1.GrantRoleRequest{
		Name: parent + "/roles/key-custodian", Principal: "user:bob@contoso.test",
	}, alice.As)
	refusal := daemontest.Refusal(err)
	if vocab.Reason(refusal.GetReason()) != vocab.ReasonApprovalRequired {
		tb.Fatalf("granting a role: %v", err)
	}
	operations := rmsv1.NewOperationServiceClient(grace.Conn)
	o, err := operations.GetOperation(ctx, &rmsv1.GetOperationRequest{Name: parent + "/operations/" + refusal.GetMetadata()["operation"]}, grace.As)
	check(tb, err)
	_, err = operations.ApproveOperation(ctx, &rmsv1.ApproveOperationRequest{Name: o.GetName(), ParamsSha256: o.GetParamsSha256()}, grace.As)
	check(tb, err)
}

// Take receives evidence.
func Take(ctx context.Context, tb testing.TB, p Person, req *rmsv1.GetEvidenceRequest) (out []byte) {
	tb.Helper()
	req.Parent = parent
	s, err := rmsv1.NewCustodyServiceClient(p.Conn).GetEvidence(ctx, req, p.As)
	check(tb, err)
	for {
		r, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return out
		}
		check(tb, err)
		out = append(out, r.GetData()...)
	}
}
