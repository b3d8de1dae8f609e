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
	ctx = c.admitted(ctx)
	if resp, err = handler(context.WithValue(ctx, callKey{}, c), req); err != nil {
		return nil, d.refuse(ctx, c, err)
	}
	if err := d.leave(ctx, c); err != nil {
		return nil, d.refuse(ctx, c, err)
	}
	return resp, nil
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
