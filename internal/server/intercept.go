package server

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/openrms/rms/internal/vocab"
)

const (
	// defaultDeadline is for calls that come without one.
	defaultDeadline = 10 * time.Second
	// explainMargin is kept back from a caller's deadline, so that there is
	// time to say which inner call was slow.
	explainMargin = 20 * time.Millisecond
)

// unary is the interceptor of unary calls.
func (d *door) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
	if passesFreely(info.FullMethod) {
		return handler(ctx, req)
	}
	start := d.now()
	c := &call{method: methodName(info.FullMethod)}
	defer func() {
		if p := recover(); p != nil {
			err = d.panicked(c, p)
		}
		d.logCall(ctx, c, start, err)
		if err != nil {
			resp, err = nil, answer(ctx, err)
		}
	}()
	ctx, cancel := withDeadline(ctx)
	defer cancel()
	m, ok := req.(proto.Message)
	if !ok {
		return nil, vocab.Errorf(vocab.ReasonInternal, "not a message")
	}
	if err := d.enter(ctx, c, info.FullMethod, m); err != nil {
		return nil, d.refuse(ctx, c, err)
	}
	if resp, err = handler(context.WithValue(ctx, callKey{}, c), req); err != nil {
		return nil, d.refuse(ctx, c, err)
	}
	if err := d.leave(ctx, c); err != nil {
		return nil, err
	}
	return resp, nil
}

// stream is the interceptor of server streams. Its event is made durable
// before the first message leaves.
func (d *door) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	if passesFreely(info.FullMethod) {
		// A watch of health goes on for ever; a stop must not wait for it.
		ctx, cancel := context.WithCancel(ss.Context())
		defer cancel()
		defer context.AfterFunc(d.serving, cancel)()
		return handler(srv, &endingStream{ServerStream: ss, ctx: ctx})
	}
	start := d.now()
	c := &call{method: methodName(info.FullMethod)}
	ctx := ss.Context()
	defer func() {
		if p := recover(); p != nil {
			err = d.panicked(c, p)
		}
		d.logCall(ctx, c, start, err)
		if err != nil {
			err = answer(ctx, err)
		}
	}()
	if err := handler(srv, &doorStream{ServerStream: ss, door: d, call: c, method: info.FullMethod, ctx: context.WithValue(ctx, callKey{}, c)}); err != nil {
		return d.refuse(ctx, c, err)
	}
	return nil
}

// endingStream is a stream with a context of its own.
type endingStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *endingStream) Context() context.Context { return s.ctx }

// doorStream lets the door see the request of a server stream, which arrives
// as its first and only message.
type doorStream struct {
	grpc.ServerStream
	door    *door
	call    *call
	method  string
	ctx     context.Context
	entered bool
}

func (s *doorStream) Context() context.Context { return s.ctx }

func (s *doorStream) RecvMsg(m any) error {
	if err := s.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	msg, ok := m.(proto.Message)
	if !ok || s.entered {
		return vocab.Errorf(vocab.ReasonInternal, "not a server stream")
	}
	if err := s.door.enter(s.ctx, s.call, s.method, msg); err != nil {
		return s.door.refuse(s.ctx, s.call, err)
	}
	if err := s.door.leave(s.ctx, s.call); err != nil {
		return err
	}
	s.entered = true
	return nil
}

func (s *doorStream) SendMsg(m any) error {
	if !s.entered {
		return vocab.Errorf(vocab.ReasonInternal, "a stream answered before it was let in")
	}
	return s.ServerStream.SendMsg(m)
}

// passesFreely names the one foreign service that is served: health, for load
// balancers. It tells nothing of any tenant.
func passesFreely(method string) bool { return strings.HasPrefix(method, "/grpc.health.v1.Health/") }

// withDeadline gives calls without a deadline one, and keeps a little of the
// others' back.
func withDeadline(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return context.WithTimeout(ctx, defaultDeadline)
	}
	return context.WithDeadline(ctx, deadline.Add(-explainMargin))
}

func (d *door) panicked(c *call, p any) error {
	d.log.Error("a method panicked", "method", c.method, "panic", fmt.Sprintf("%T", p), "stack", string(debug.Stack()))
	return vocab.Errorf(vocab.ReasonInternal, "the service failed").WithNext("Report the time of the call to the service's operator")
}

// logCall writes one line for each call: who called is in the tenant's log,
// not here.
func (d *door) logCall(ctx context.Context, c *call, start time.Time, err error) {
	attrs := []slog.Attr{slog.String("method", c.method), slog.Duration("took", d.now().Sub(start))}
	if c.tenant != nil {
		attrs = append(attrs, slog.String("tenant", c.tenant.Name()))
	}
	level := slog.LevelDebug
	if err != nil {
		e := toVocab(err)
		attrs = append(attrs, slog.String("reason", string(e.Reason)))
		if !e.Event.IsZero() {
			attrs = append(attrs, slog.String("event", e.Event.String()))
		}
		if cause := e.Unwrap(); cause != nil {
			attrs = append(attrs, slog.String("cause", cause.Error()))
		}
		level = slog.LevelInfo
		switch e.Reason {
		case vocab.ReasonInternal, vocab.ReasonStoreDamaged, vocab.ReasonLogDamaged, vocab.ReasonCustodyIntegrity:
			level = slog.LevelError
		}
	} else if !c.event.IsZero() {
		attrs = append(attrs, slog.String("event", c.event.String()))
	}
	d.log.LogAttrs(ctx, level, "call", attrs...)
}
