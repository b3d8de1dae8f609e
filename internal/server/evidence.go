package server

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/openrms/rms/internal/tenant"
	"github.com/openrms/rms/internal/vocab"
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

// defaultRehearsal is how long a refusal is waited for if the caller does not
// say.
const defaultRehearsal = 15 * time.Minute

func (k *custody) RehearseSuspension(ctx context.Context, _ *rmsv1.RehearseSuspensionRequest) (*rmsv1.SuspensionRehearsal, error) {
	c := callOf(ctx)
	r, event, err := c.tenant.RehearseSuspension(ctx, c.domain(nil))
	if err != nil {
		return nil, err
	}
	c.recorded(event)
	return &rmsv1.SuspensionRehearsal{
		Event: event.String(), Generation: r.Generation, SuspendEvent: r.Suspend.String(), ResumeEvent: r.Resume.String(),
		StoppedAfter: durationpb.New(r.StoppedAfter), OpenedAfter: durationpb.New(r.OpenedAfter), CustodianRequestId: r.Request,
	}, nil
}

func (k *custody) RehearseRefusal(req *rmsv1.RehearseRefusalRequest, stream grpc.ServerStreamingServer[rmsv1.RehearseRefusalResponse]) error {
	ctx := stream.Context()
	c := callOf(ctx)
	name, err := idOf(c.tenant.Name(), "keys", req.GetName())
	if err != nil {
		return err
	}
	wait := defaultRehearsal
	if req.GetWait() != nil {
		wait = req.GetWait().AsDuration()
	}
	ctx, stop := k.s.whileServing(ctx)
	defer stop()
	var last *rmsv1.RehearseRefusalResponse
	r, event, err := c.tenant.RehearseRefusal(ctx, c.domain(nil), name, wait, c.recorded, func(l tenant.Look) error {
		last = &rmsv1.RehearseRefusalResponse{
			Time: protoTime(l.Time), Strict: string(reasonOf(l.Strict)), Cached: string(reasonOf(l.Cached)), CustodianRequestId: l.Request,
		}
		return stream.Send(last)
	})
	switch {
	case err != nil && k.s.serving.Err() != nil:
		return vocab.Errorf(vocab.ReasonOverloaded, "the service is stopping").WithNext("Rehearse again when it is back")
	case err != nil:
		return err
	}
	end := proto.CloneOf(last)
	end.Event, end.PromisedDelay = event.String(), durationpb.New(r.Promised)
	if r.Stopped {
		end.CachedDelay = durationpb.New(r.CachedDelay)
	}
	return stream.Send(end)
}

func reasonOf(err error) vocab.Reason {
	if err == nil {
		return ""
	}
	return vocab.ReasonOf(err)
}
