package rms

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// Bounds of calls.
const (
	// defaultDeadline is for unary calls whose context has none, attempts
	// and pauses together.
	defaultDeadline = 30 * time.Second
	// attempts of a call that is safe to repeat, and the longest pause before
	// the second; each further one may be twice as long.
	attempts   = 4
	firstPause = 100 * time.Millisecond
	// maxToken is the largest token that is sent, in bytes: more does not fit
	// a header.
	maxToken = 32 << 10
)

// publicMethod needs no sign-in, so none is sent.
const publicMethod = rmsv1.ProtectionService_GetTrust_FullMethodName

// caller is what authenticates calls and makes sense of their errors.
type caller struct {
	token func(context.Context) (string, error)
	pause func(context.Context, time.Duration) error
}

// tokenKey carries a call's token from the interceptor, where an error of
// getting one keeps its meaning, to the credentials, which send it over TLS
// only.
type tokenKey struct{}

// withToken fixes the token of the calls made with the context.
func withToken(ctx context.Context, token string) context.Context {
	return context.WithValue(ctx, tokenKey{}, token)
}

// bearer sends the token of the context.
type bearer struct{}

func (bearer) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	token, _ := ctx.Value(tokenKey{}).(string)
	if token == "" {
		return nil, nil
	}
	return map[string]string{"authorization": "Bearer " + token}, nil
}

func (bearer) RequireTransportSecurity() bool { return true }

// authorize puts a token into the context if the method takes one.
func (c *caller) authorize(ctx context.Context, method string) (context.Context, error) {
	if method == publicMethod {
		return withToken(ctx, ""), nil
	}
	if c.token == nil || ctx.Value(tokenKey{}) != nil {
		return ctx, nil
	}
	token, err := c.fetchToken(ctx)
	if err != nil {
		return nil, err
	}
	return withToken(ctx, token), nil
}

// fetchToken asks for a token. The error is the source's own if that has a
// reason.
func (c *caller) fetchToken(ctx context.Context) (string, error) {
	token, err := c.token(ctx)
	if err != nil {
		if e, ok := errors.AsType[*Error](err); ok {
			return "", e
		}
		return "", vocab.Errorf(vocab.ReasonTokenMissing, "there is no token to sign in with").
			WithNext("Sign in again").Because(err)
	}
	if token == "" || len(token) > maxToken || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", vocab.Errorf(vocab.ReasonTokenMissing, "what should be a token to sign in with is none").WithNext("Sign in again")
	}
	return token, nil
}

// unary is the interceptor of unary calls.
func (c *caller) unary(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, defaultDeadline)
		defer cancel()
	}
	ctx, err := c.authorize(ctx, method)
	if err != nil {
		return err
	}
	pause := firstPause
	for attempt := 1; ; attempt++ {
		var trailer metadata.MD
		err := invoke(ctx, method, req, reply, cc, append(opts, grpc.Trailer(&trailer))...)
		if err == nil {
			return nil
		}
		failed := callError(ctx, err, trailer)
		if attempt == attempts || !repeatable(method, req) || !passing(failed) {
			return failed
		}
		// Any part of the pause, so that callers that failed together do not
		// come back together.
		if c.pause(ctx, rand.N(pause)) != nil { //nolint:gosec // spreads load, guards nothing
			return failed
		}
		pause *= 2
	}
}

// stream is the interceptor of streams.
func (c *caller) stream(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	ctx, err := c.authorize(ctx, method)
	if err != nil {
		return nil, err
	}
	s, err := open(ctx, desc, cc, method, opts...)
	if err != nil {
		return nil, callError(ctx, err, nil)
	}
	return &callStream{s}, nil
}

// callStream turns the errors of a stream into [Error].
type callStream struct{ grpc.ClientStream }

func (s *callStream) SendMsg(m any) error { return s.translate(s.ClientStream.SendMsg(m)) }
func (s *callStream) RecvMsg(m any) error { return s.translate(s.ClientStream.RecvMsg(m)) }

// translate leaves io.EOF, which is no status, as it is.
func (s *callStream) translate(err error) error {
	if _, ok := statusOf(err); !ok {
		return err
	}
	return callError(s.Context(), err, s.Trailer())
}

// repeatable reports whether a call does no more when it arrives twice. The
// name of a method that only reads begins with Get, List or Preview; an acquire
// is safe by contract, a publish with its request ID.
func repeatable(method string, req any) bool {
	switch r := req.(type) {
	case *rmsv1.AcquireRequest, *rmsv1.BatchAcquireRequest:
		return true
	case *rmsv1.PublishRequest:
		return r.GetRequestId() != "" || r.GetValidateOnly()
	}
	name := method[strings.LastIndexByte(method, '/')+1:]
	return strings.HasPrefix(name, "Get") || strings.HasPrefix(name, "List") || strings.HasPrefix(name, "Preview")
}

// passing reports whether a failure may be over in a moment: the connection
// broke, or the server has too much to do. An unreachable or sealed custodian
// is not for the client to wait for.
func passing(err error) bool {
	if st, ok := statusOf(err); !ok || st.Code() != codes.Unavailable {
		return false
	}
	r := ReasonOf(err)
	return r == vocab.ReasonServerUnreachable || r == vocab.ReasonOverloaded
}

// sleep waits, or returns why the context ended.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
