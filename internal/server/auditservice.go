package server

import (
	"context"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// auditing serves AuditService.
type auditing struct {
	rmsv1.UnimplementedAuditServiceServer
	s *Server
}

func (a *auditing) GetEvent(ctx context.Context, req *rmsv1.GetEventRequest) (*rmsv1.Event, error) {
	c := callOf(ctx)
	id, err := eventIDOf(c, req.GetName())
	if err != nil {
		return nil, err
	}
	entry, err := c.tenant.Audit().Get(ctx, c.tenant.ID(), id)
	if err != nil {
		return nil, err
	}
	return a.s.protoEvent(ctx, c, entry), nil
}

func eventIDOf(c *call, name string) (vocab.EventID, error) {
	s, err := idOf(c.tenant.Name(), "events", name)
	if err != nil {
		return vocab.EventID{}, err
	}
	id, err := vocab.ParseEventID(s)
	if err != nil {
		return vocab.EventID{}, invalid("%s", err)
	}
	return id, nil
}

func (a *auditing) ListEvents(ctx context.Context, req *rmsv1.ListEventsRequest) (*rmsv1.ListEventsResponse, error) {
	c := callOf(ctx)
	f, err := filterOf(c, req.GetFilter())
	if err != nil {
		return nil, err
	}
	events, next, err := a.s.listEvents(ctx, c, req, f, req.GetPageSize())
	if err != nil {
		return nil, err
	}
	return &rmsv1.ListEventsResponse{Events: events, NextPageToken: next}, nil
}

func filterOf(c *call, in *rmsv1.EventFilter) (f audit.Filter, err error) {
	f = audit.Filter{Principal: in.GetPrincipal(), Refused: in.GetRefused(), Alarm: in.GetAlarm()}
	if in.GetLicense() != "" {
		if f.Content, err = contentIDOf(c.tenant.Name(), in.GetLicense()); err != nil {
			return f, err
		}
	}
	for _, name := range in.GetKinds() {
		k, ok := audit.ParseKind(name)
		if !ok {
			return f, invalid("%q is not a kind of event", name)
		}
		f.Kinds = append(f.Kinds, k)
	}
	if in.GetOperation() != "" {
		if f.Operation, err = operationIDOf(c.tenant.Name(), in.GetOperation()); err != nil {
			return f, err
		}
	}
	if f.Since, err = timeOf(in.GetSince()); err != nil {
		return f, err
	}
	f.Until, err = timeOf(in.GetUntil())
	return f, err
}

// listEvents serves one page of a listing of events.
func (s *Server) listEvents(ctx context.Context, c *call, req interface {
	proto.Message
	GetPageToken() string
}, f audit.Filter, size int32,
) ([]*rmsv1.Event, string, error) {
	raw, err := s.pages.cursor(c, req)
	if err != nil {
		return nil, "", err
	}
	from, err := audit.ParseCursor(raw)
	if err != nil {
		return nil, "", err
	}
	page, next, err := c.tenant.Audit().List(ctx, c.tenant.ID(), f, from, pageSize(size))
	if err != nil {
		return nil, "", err
	}
	var out []*rmsv1.Event
	for _, e := range page {
		out = append(out, s.protoEvent(ctx, c, e))
	}
	cursor, err := next.AppendBinary(nil)
	if err != nil {
		return nil, "", err
	}
	return out, s.pages.next(c, req, cursor), nil
}

func (a *auditing) TailEvents(req *rmsv1.TailEventsRequest, stream grpc.ServerStreamingServer[rmsv1.TailEventsResponse]) error {
	ctx := stream.Context()
	c := callOf(ctx)
	from := uint64(max(req.GetFromIndex(), 0))
	if req.GetFromIndex() < 0 {
		n, err := c.tenant.Audit().Size(ctx, c.tenant.ID())
		if err != nil {
			return err
		}
		from = n
	}
	ctx, stop := a.s.whileServing(ctx)
	defer stop()
	for entry, err := range c.tenant.Audit().Tail(ctx, c.tenant.ID(), from) {
		if err != nil && a.s.serving.Err() != nil {
			return vocab.Errorf(vocab.ReasonOverloaded, "the service is stopping").WithNext("Connect again and go on from the last event")
		}
		if err != nil {
			return err
		}
		if err := stream.Send(&rmsv1.TailEventsResponse{Event: a.s.protoEvent(ctx, c, entry)}); err != nil {
			return err
		}
	}
	return nil
}

func (a *auditing) ExportEvents(req *rmsv1.ExportEventsRequest, stream grpc.ServerStreamingServer[rmsv1.ExportEventsResponse]) error {
	ctx := stream.Context()
	c := callOf(ctx)
	from, to := uint64(req.GetFromIndex()), uint64(req.GetToIndex())
	if to == 0 {
		n, err := c.tenant.Audit().Size(ctx, c.tenant.ID())
		if err != nil {
			return err
		}
		to = n
	}
	for entry, err := range c.tenant.Audit().Range(ctx, c.tenant.ID(), from, to) {
		if err != nil {
			return err
		}
		if err := stream.Send(&rmsv1.ExportEventsResponse{
			Index: int64(entry.Index), Leaf: entry.Leaf, Event: a.s.protoEvent(ctx, c, entry),
		}); err != nil {
			return err
		}
	}
	return nil
}

func (a *auditing) GetCheckpoint(ctx context.Context, _ *rmsv1.GetCheckpointRequest) (*rmsv1.Checkpoint, error) {
	c := callOf(ctx)
	signer, cert, err := c.tenant.CheckpointSigner()
	if err != nil {
		return nil, err
	}
	cp, err := c.tenant.Audit().Checkpoint(ctx, c.tenant.ID(), a.s.now())
	if err != nil {
		return nil, err
	}
	note, err := cp.Sign(ctx, signer)
	if err != nil {
		return nil, err
	}
	return &rmsv1.Checkpoint{Note: string(note), Size: int64(cp.Size), RootHash: cp.Root[:], Certificate: cert}, nil
}

func (a *auditing) GetProof(ctx context.Context, req *rmsv1.GetProofRequest) (*rmsv1.GetProofResponse, error) {
	c := callOf(ctx)
	size := uint64(req.GetSize())
	if req.GetEvent() == "" {
		p, err := c.tenant.Audit().ProveConsistency(ctx, c.tenant.ID(), uint64(req.GetFromSize()), size)
		if err != nil {
			return nil, err
		}
		return &rmsv1.GetProofResponse{Size: int64(p.Size), RootHash: p.Root[:], Hashes: slicesOf(p.Hashes)}, nil
	}
	id, err := eventIDOf(c, req.GetEvent())
	if err != nil {
		return nil, err
	}
	p, err := c.tenant.Audit().ProveInclusion(ctx, c.tenant.ID(), id, size)
	if err != nil {
		return nil, err
	}
	return &rmsv1.GetProofResponse{
		Index: int64(p.Index), LeafHash: p.LeafHash[:], Size: int64(p.Size), RootHash: p.Root[:], Hashes: slicesOf(p.Hashes),
	}, nil
}

func slicesOf(in [][32]byte) (out [][]byte) {
	for _, h := range in {
		out = append(out, h[:])
	}
	return out
}

// protoEvent shows an event.
func (s *Server) protoEvent(ctx context.Context, c *call, entry audit.Entry) *rmsv1.Event {
	e, leaf := entry.Event, entry.LeafHash()
	t := c.tenant.Name()
	out := &rmsv1.Event{
		Name: resourceName(t, "events", e.ID.String()), Index: int64(entry.Index), Time: protoTime(e.Time), Kind: e.Kind.String(),
		Method: e.Method, Outcome: "OK", Principal: e.Principal.Name, Actor: e.Actor.Name, Peer: e.Peer, Client: e.Client,
		LicenseRevision: e.LicenseRevision, TemplateRevision: e.TemplateRevision, Rights: protoRights(e.Granted),
		ExpireTime: protoTime(e.NotAfter), Cached: e.Cached, KeyVersion: e.KeyVersion, CustodyMode: protoCustody(e.Custody),
		CustodianRequestId: e.CustodianRequest, Alarm: e.Alarm, LeafHash: leaf[:], BreakGlass: e.BreakGlass,
	}
	if !e.Operation.IsZero() {
		out.Operation = resourceName(t, "operations", e.Operation.String())
	}
	if e.Reason != "" {
		out.Outcome = string(e.Reason)
	}
	if !e.Principal.IsZero() {
		out.Identity = &rmsv1.Issuer{Issuer: e.Principal.Issuer, Subject: e.Principal.Subject, Address: e.Principal.Name}
	}
	if !e.Content.IsZero() {
		out.License = resourceName(t, "licenses", e.Content.String())
	}
	if !e.Template.IsZero() {
		out.Template = resourceName(t, "templates", c.tenant.TemplateName(ctx, e.Template))
	}
	if r := e.Asked.List(); len(r) == 1 {
		out.Right = protoRight(r[0])
	}
	if !e.Parent.IsZero() {
		out.Parent = resourceName(t, "events", e.Parent.String())
	}
	if !e.Generation.IsZero() {
		out.Generation = e.Generation.String()
	}
	if e.RecipientKey != [32]byte{} {
		out.RecipientKeyHash = e.RecipientKey[:]
	}
	out.Detail = strings.TrimSpace(strings.Join([]string{e.Target, e.Detail}, " "))
	return out
}
