package server

import (
	"google.golang.org/grpc"

	"github.com/openrms/rms/internal/tenant"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// evidencePiece is how much of a bundle goes into one message, in bytes: far
// below what clients take (4 MiB).
const evidencePiece = 256 << 10

func (k *custody) GetEvidence(req *rmsv1.GetEvidenceRequest, stream grpc.ServerStreamingServer[rmsv1.GetEvidenceResponse]) error {
	ctx := stream.Context()
	c := callOf(ctx)
	scope := tenant.EvidenceScope{From: uint64(req.GetFromSize())}
	var err error
	if req.GetKey() != "" {
		if scope.Key, err = idOf(c.tenant.Name(), "keys", req.GetKey()); err != nil {
			return err
		}
	}
	if scope.Since, err = timeOf(req.GetSince()); err != nil {
		return err
	}
	b, event, err := c.tenant.Evidence(ctx, c.domain(nil), scope)
	if err != nil {
		return err
	}
	c.recorded(event)
	for len(b) > 0 {
		n := min(len(b), evidencePiece)
		if err := stream.Send(&rmsv1.GetEvidenceResponse{Data: b[:n]}); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}
