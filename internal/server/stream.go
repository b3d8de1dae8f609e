package server

import (
	"context"
	"errors"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/openrms/rms/internal/vocab"
)

// stream is the interceptor of server streams. Its event is durable before the
// first message leaves: that of a read before the method begins, that of an act
// when the method has acted.
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
	s := &doorStream{ServerStream: ss, door: d, call: c, method: info.FullMethod, ctx: context.WithValue(ctx, callKey{}, c), stop: func() {}}
	defer func() { s.stop() }()
	err = handler(srv, s)
	if err == nil && !s.left { // an act that said nothing must have its event too
		err = s.leave()
	}
	if ended := s.ended(); err != nil && ended != nil {
		err = ended
	}
	if err != nil {
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
// as its first and only message, and ends the stream of a caller who may not
// call any more.
type doorStream struct {
	grpc.ServerStream
	door    *door
	call    *call
	method  string
	ctx     context.Context // ends when the caller is no longer admitted
	stop    func()
	entered bool
	left    bool // what the method did is recorded
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
	s.ctx = s.call.admitted(s.ctx)
	if !s.call.access.GetActs() {
		if err := s.leave(); err != nil {
			return s.door.refuse(s.ctx, s.call, err)
		}
	}
	if s.call.caller != nil {
		s.ctx, s.stop = s.call.tenant.WhileAdmitted(s.ctx)
	}
	s.entered = true
	return nil
}

func (s *doorStream) SendMsg(m any) error {
	if !s.entered {
		return vocab.Errorf(vocab.ReasonInternal, "a stream answered before it was let in")
	}
	if err := s.ended(); err != nil {
		return err
	}
	if !s.left {
		if err := s.leave(); err != nil {
			return err
		}
	}
	return s.ServerStream.SendMsg(m)
}

// leave makes sure of the event of what the method did or is about to do.
func (s *doorStream) leave() error {
	if err := s.door.leave(s.ctx, s.call); err != nil {
		return err
	}
	s.left = true
	return nil
}

// ended is why the caller may not call any more, nil if they may.
func (s *doorStream) ended() error {
	if e, ok := errors.AsType[*vocab.Error](context.Cause(s.ctx)); ok {
		return e
	}
	return nil
}
