package server

import (
	"bufio"
	"context"
	"errors"

	"google.golang.org/grpc"

	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/operation"
	"github.com/openrms/rms/internal/tenant"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// exits serves ExitService.
type exits struct {
	rmsv1.UnimplementedExitServiceServer
	s *Server
}

func (x *exits) RequestExport(ctx context.Context, req *rmsv1.RequestExportRequest) (*rmsv1.Operation, error) {
	c := callOf(ctx)
	v, event, err := c.tenant.RequestExport(ctx, c.domain(nil), tenant.ExportRequest{
		KEM: license.KEM(req.GetRecipient().GetKem()), Recipient: req.GetRecipient().GetPublicKey(),
		WithoutLost: req.GetWithoutLost(), Reason: req.GetReason(), Ticket: req.GetTicket(),
	})
	return asked(ctx, c, v, event, err)
}

func (x *exits) RequestThaw(ctx context.Context, req *rmsv1.RequestThawRequest) (*rmsv1.Operation, error) {
	c := callOf(ctx)
	v, event, err := c.tenant.RequestThaw(ctx, c.domain(nil), req.GetReason(), req.GetTicket())
	return asked(ctx, c, v, event, err)
}

// asked answers with an operation that was asked for.
func asked(ctx context.Context, c *call, v *tenant.OperationView, event vocab.EventID, err error) (*rmsv1.Operation, error) {
	if err != nil {
		return nil, err
	}
	c.recorded(event)
	return protoOperation(ctx, c.tenant, v, false)
}

// residenceID is the last part of the name of a tenant's residence.
const residenceID = "residence"

func (x *exits) GetResidence(ctx context.Context, req *rmsv1.GetResidenceRequest) (*rmsv1.Residence, error) {
	c := callOf(ctx)
	name := "tenants/" + c.tenant.Name() + "/" + residenceID
	if req.GetName() != name {
		return nil, invalid("the name is not of the form %s", name)
	}
	r := c.tenant.Residence()
	out := &rmsv1.Residence{Name: name, FreezeTime: protoTime(r.Frozen.Time())}
	if r.Frozen != 0 {
		out.FreezeEvent, out.Operation = r.Event.String(), resourceName(c.tenant.Name(), "operations", r.Operation.String())
	}
	for i := range r.Archives {
		a := &r.Archives[i]
		m := &rmsv1.Residence_Archive{
			Archive: a.ID.String(), Operation: resourceName(c.tenant.Name(), "operations", a.Operation.String()),
			BeginTime: protoTime(a.Begun.Time()), RecipientFingerprint: a.Recipient[:], WholeTime: protoTime(a.Whole.Time()),
		}
		if a.Whole != 0 {
			m.Sha256, m.Bytes, m.LogSize = a.SHA256[:], int64(a.Bytes), int64(a.LogSize)
		}
		out.Archives = append(out.Archives, m)
	}
	for i := range r.Arrivals {
		a := &r.Arrivals[i]
		out.Arrivals = append(out.Arrivals, &rmsv1.Residence_Arrival{
			Archive: a.Archive.String(), Sha256: a.SHA256[:], Time: protoTime(a.At.Time()), RootKeyId: a.Root[:], Source: a.Source,
			LogSize: int64(a.LogSize),
		})
	}
	return out, nil
}

// archivePiece is how much of an archive goes into one message, in bytes.
const archivePiece = 256 << 10

func (x *exits) ExportTenant(req *rmsv1.ExportTenantRequest, stream grpc.ServerStreamingServer[rmsv1.ExportTenantResponse]) error {
	ctx := stream.Context()
	c := callOf(ctx)
	id, err := operationIDOf(c.tenant.Name(), req.GetName())
	if err != nil {
		return err
	}
	ctx, stop := x.s.whileServing(ctx)
	defer stop()
	out := &archiveStream{stream: stream}
	w := bufio.NewWriterSize(out, archivePiece)
	done, err := c.tenant.Export(ctx, c.domain(nil), id, x.s.version, w, func(began tenant.Takeout) {
		c.recorded(began.Event)
		out.begin = &rmsv1.ExportTenantResponse_Begin{Archive: began.Archive.String(), Event: began.Event.String()}
	})
	if err == nil {
		err = w.Flush()
	}
	if err != nil && x.s.serving.Err() != nil && errors.Is(err, context.Canceled) {
		return vocab.Errorf(vocab.ReasonOverloaded, "the service is stopping").WithNext("Take the archive again when it is back")
	}
	if err != nil {
		return err
	}
	return stream.Send(&rmsv1.ExportTenantResponse{Piece: &rmsv1.ExportTenantResponse_End_{End: &rmsv1.ExportTenantResponse_End{
		Sha256: done.SHA256[:], Bytes: done.Bytes, LogSize: int64(done.LogSize), LogRoot: done.LogRoot[:], Secrets: done.Secrets, Lost: done.Lost,
		Event: done.Event.String(), RootKeyId: done.Signer[:],
	}}})
}

// archiveStream sends what is written to it.
type archiveStream struct {
	stream grpc.ServerStreamingServer[rmsv1.ExportTenantResponse]
	begin  *rmsv1.ExportTenantResponse_Begin // until it was sent
}

// Write implements [io.Writer]. What was sent may still be on its way, so it is
// copied.
func (s *archiveStream) Write(p []byte) (int, error) {
	if s.begin != nil {
		if err := s.stream.Send(&rmsv1.ExportTenantResponse{Piece: &rmsv1.ExportTenantResponse_Begin_{Begin: s.begin}}); err != nil {
			return 0, err
		}
		s.begin = nil
	}
	for n := 0; n < len(p); n += archivePiece {
		piece := append([]byte{}, p[n:min(n+archivePiece, len(p))]...)
		if err := s.stream.Send(&rmsv1.ExportTenantResponse{Piece: &rmsv1.ExportTenantResponse_Data{Data: piece}}); err != nil {
			return n, err
		}
	}
	return len(p), nil
}

// protoExport shows what a move asks for.
func protoExport(t *tenant.Tenant, o *operation.Operation) (*rmsv1.Operation_TenantExport_, error) {
	p, err := operation.Params[operation.ExportParams](o)
	if err != nil {
		return nil, err
	}
	m := &rmsv1.Operation_TenantExport{Thaw: p.Thaw != 0, WithoutLost: p.WithoutLost != 0}
	if m.Thaw {
		m.WholeArchives = int32(t.Residence().Whole())
	} else {
		h := p.Fingerprint()
		m.Recipient, m.RecipientFingerprint = &rmsv1.HpkePublicKey{Kem: uint32(p.KEM), PublicKey: p.Recipient}, h[:]
	}
	return &rmsv1.Operation_TenantExport_{TenantExport: m}, nil
}
