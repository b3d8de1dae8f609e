package server

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"strings"
	"time"

	"buf.build/go/protovalidate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/identity"
	"github.com/openrms/rms/internal/tenant"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

const (
	// defaultDeadline is for calls that come without one.
	defaultDeadline = 10 * time.Second
	// explainMargin is kept back from a caller's deadline, so that there is
	// time to say which inner call was slow.
	explainMargin = 20 * time.Millisecond
	// maxRequest bounds one request, in bytes; gRPC's own default limit.
	maxRequest = 4 << 20
	// maxTemplateRequest bounds templates. It leaves room for what the answer
	// has more than the request, for clients take as much as servers.
	maxTemplateRequest = maxRequest - 8<<10
	// maxGroupRequest bounds groups. The answer also says what the edit changed.
	maxGroupRequest = 3 << 20
	// maxHeaders bounds the metadata of one call, in bytes: a token of the
	// largest size that is read, and room for what proxies add.
	maxHeaders = 64 << 10
	// maxPlainRequest bounds all other requests than batches, templates and groups.
	maxPlainRequest = 1 << 20
)

// door is what every call passes. See the package comment.
type door struct {
	access   map[string]*rmsv1.Access
	tenants  Tenants
	verifier Verifier
	validate protovalidate.Validator
	limits   *limiter
	log      *slog.Logger
	now      func() time.Time
	serving  context.Context // ends when the server stops
	operator bool            // this door is on the operator's socket
}

// Tenants finds the tenants that are served now.
type Tenants interface {
	// Tenant returns the tenant of a name; nil if none is served by it.
	Tenant(name string) *tenant.Tenant
	// Only returns the one tenant that is served; nil if there are more.
	Only() *tenant.Tenant
}

// Verifier turns what a caller presents into an identity.
type Verifier interface {
	BoundToken(ctx context.Context, t identity.Tenant, raw string, leaf *x509.Certificate) (*vocab.Identity, error)
	Certificate(t identity.Tenant, chain []*x509.Certificate) (*vocab.Identity, error)
	Provider(name string) (identity.Provider, bool)
}

// call is one call that is passing the door.
type call struct {
	method string
	access *rmsv1.Access
	tenant *tenant.Tenant
	caller *vocab.Identity
	peer   string
	// network is what limits take the peer for.
	network string
	chain   []*x509.Certificate // of the connection's client certificate, verified
	// authorized is set by the door for public calls, signed-in callers and
	// holders of a role, and by the method, through owns, for owners.
	authorized bool
	// byRole says a role let the caller in, one of roles.
	byRole bool
	roles  []vocab.Role
	// event is the durable event of the call.
	event vocab.EventID
}

type callKey struct{}

// callOf returns the call a method runs in.
func callOf(ctx context.Context) *call {
	c, _ := ctx.Value(callKey{}).(*call)
	if c == nil {
		panic("internal error: a method runs outside the door")
	}
	return c
}

// owns authorizes the caller of a method for owners: by role, or as owner of
// the license. The answer for anyone else is that of a license that is not
// there.
func (c *call) owns(owner vocab.Principal) error {
	if c.byRole || c.tenant.Owns(c.caller, owner) {
		c.authorized = true
		return nil
	}
	return tenant.NoSuchLicense()
}

// admitted returns the context for what the call does once it has entered.
func (c *call) admitted(ctx context.Context) context.Context {
	if c.caller == nil {
		return ctx
	}
	return tenant.WithAdmission(ctx, tenant.Admission{Caller: c.caller, Roles: c.roles})
}

// recorded notes the call's durable event.
func (c *call) recorded(e vocab.EventID) { c.event = e }

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

// enter does everything that comes before the method.
func (d *door) enter(ctx context.Context, c *call, fullMethod string, req proto.Message) error {
	c.access = d.access[fullMethod]
	if c.access == nil {
		return vocab.Errorf(vocab.ReasonInternal, "the method has no access rule")
	}
	if (c.access.Level == rmsv1.Access_LEVEL_OPERATOR) != d.operator {
		return vocab.Errorf(vocab.ReasonRoleRequired, "this method is not served here")
	}
	if d.operator {
		c.authorized = true
		return d.checkShape(req)
	}
	d.readPeer(ctx, c)
	if c.access.Level == rmsv1.Access_LEVEL_PUBLIC {
		c.authorized = true
		c.tenant = d.findTenant(req)
		if err := d.limits.allow(d.now(), nobodysTenant, c.network, 1); err != nil {
			return err
		}
		return d.checkShape(req)
	}
	var err error
	if c.tenant = d.findTenant(req); c.tenant == nil {
		// A tenant that is not here trusts nobody: the caller gets the answer
		// of one that is, but does not know them.
		if _, err = d.identify(ctx, c, identity.Tenant{Name: "none"}); err == nil {
			err = vocab.Errorf(vocab.ReasonIssuerNotTrusted, "this tenant does not accept your sign-in")
		}
		return err
	}
	if c.caller, err = d.authenticate(ctx, c); err != nil {
		return err
	}
	id := canon.PrincipalID(c.caller.Issuer, c.caller.Subject)
	if err := d.limits.allow(d.now(), c.tenant.Name(), string(id[:]), cost(req)); err != nil {
		return err
	}
	if err := c.tenant.Admit(c.caller); err != nil {
		return err
	}
	switch c.access.Level {
	case rmsv1.Access_LEVEL_SIGNED_IN:
		c.authorized = true
	case rmsv1.Access_LEVEL_ROLE, rmsv1.Access_LEVEL_OWNER:
		roles := rolesOf(c.access.Roles)
		if c.byRole = c.tenant.HoldsRole(c.caller, roles...); c.byRole {
			c.roles = roles
		}
		c.authorized = c.byRole
		if c.access.Level == rmsv1.Access_LEVEL_ROLE && !c.byRole {
			return vocab.Errorf(vocab.ReasonRoleRequired, "this needs the role %s", roleNames(c.access.Roles)).
				WithNext("Ask a tenant-admin")
		}
	default:
		return vocab.Errorf(vocab.ReasonInternal, "the method has no access rule")
	}
	return d.checkShape(req)
}

// leave withholds the answer of a method that did not do its duty, and records
// reads.
func (d *door) leave(ctx context.Context, c *call) error {
	if !c.authorized {
		d.log.ErrorContext(ctx, "a method answered without authorizing its caller", "method", c.method)
		return vocab.Errorf(vocab.ReasonInternal, "the service failed to authorize the call")
	}
	switch c.access.Level {
	case rmsv1.Access_LEVEL_PUBLIC, rmsv1.Access_LEVEL_OPERATOR:
		return nil
	case rmsv1.Access_LEVEL_SIGNED_IN:
		switch {
		case c.access.Acts:
		case c.caller == nil:
			return nil
		default: // whoever was disabled since gets nothing
			return c.tenant.Admit(c.caller)
		}
	case rmsv1.Access_LEVEL_OWNER, rmsv1.Access_LEVEL_ROLE, rmsv1.Access_LEVEL_UNSPECIFIED:
	}
	if !c.event.IsZero() {
		return nil
	}
	if c.access.Acts {
		d.log.ErrorContext(ctx, "a method acted without recording its event", "method", c.method)
		return vocab.Errorf(vocab.ReasonInternal, "the service failed to record the call")
	}
	e, err := c.tenant.RecordRead(ctx, c.caller, c.method)
	if err != nil {
		return err
	}
	c.event = e
	return nil
}

// refuse makes sure that a refusal of a caller who is known has its event.
// Callers who are not known are not in the tenant's log: anyone could fill it.
func (d *door) refuse(ctx context.Context, c *call, err error) error {
	e := toVocab(err)
	if c.caller == nil || !e.Event.IsZero() || !tenant.Recordable(e.Reason) {
		return err
	}
	event, recErr := c.tenant.RecordRefusal(context.WithoutCancel(ctx), c.caller, c.method, e.Reason)
	if recErr != nil {
		return recErr
	}
	with := *e
	with.Event = event
	return &with
}

func (d *door) readPeer(ctx context.Context, c *call) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return
	}
	if host, _, err := net.SplitHostPort(p.Addr.String()); err == nil {
		c.peer = host
	}
	c.network = networkOf(p.Addr)
	if info, ok := p.AuthInfo.(credentials.TLSInfo); ok && len(info.State.VerifiedChains) > 0 && len(info.State.VerifiedChains[0]) > 0 {
		c.chain = info.State.VerifiedChains[0]
	}
}

// findTenant returns the tenant a request names in its parent, its name, or
// the name of the resource it carries.
func (d *door) findTenant(req proto.Message) *tenant.Tenant {
	name := addressOf(req)
	if name == "" {
		return d.tenants.Only()
	}
	t, ok := tenantOf(name)
	if !ok {
		return nil
	}
	return d.tenants.Tenant(t)
}

// addressOf returns the name a request is addressed by.
func addressOf(req proto.Message) string {
	switch r := req.(type) {
	case interface{ GetParent() string }:
		return r.GetParent()
	case interface{ GetName() string }:
		return r.GetName()
	case *rmsv1.UpdateLicenseRequest:
		return r.GetLicense().GetName()
	case *rmsv1.UpdateTemplateRequest:
		return r.GetTemplate().GetName()
	case *rmsv1.UpdateSettingsRequest:
		return r.GetSettings().GetName()
	case *rmsv1.UpdateGroupRequest:
		return r.GetGroup().GetName()
	}
	return ""
}

// cost is how many decisions a request asks for.
func cost(req proto.Message) int {
	if b, ok := req.(*rmsv1.BatchAcquireRequest); ok {
		return max(1, min(len(b.GetItems()), maxBatch))
	}
	return 1
}

func (d *door) authenticate(ctx context.Context, c *call) (*vocab.Identity, error) {
	id, err := d.identify(ctx, c, c.tenant.IdentityView())
	if err != nil {
		return nil, err
	}
	if err := c.tenant.CheckTokenAge(id, d.now()); err != nil {
		return nil, err
	}
	id.Peer = c.peer
	return id, nil
}

// identify asks who the caller is to a tenant: by token, or else by the
// connection's certificate.
func (d *door) identify(ctx context.Context, c *call, view identity.Tenant) (*vocab.Identity, error) {
	raw, err := bearer(ctx)
	if err != nil {
		return nil, err
	}
	if raw == "" && c.chain != nil {
		return d.verifier.Certificate(view, c.chain)
	}
	return d.verifier.BoundToken(ctx, view, raw, c.leaf())
}

// bearer returns the one bearer token of the call, "" if it has none.
func bearer(ctx context.Context) (string, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	values := md.Get("authorization")
	switch len(values) {
	case 0:
		return "", nil
	case 1:
	default:
		return "", vocab.Errorf(vocab.ReasonTokenInvalid, "the call carries more than one token")
	}
	scheme, token, ok := strings.Cut(values[0], " ")
	if !ok || !strings.EqualFold(scheme, "bearer") || token == "" {
		return "", vocab.Errorf(vocab.ReasonTokenInvalid, "the authorization is not of the form Bearer TOKEN")
	}
	return token, nil
}

// checkShape bounds and validates a request.
func (d *door) checkShape(req proto.Message) error {
	limit := maxPlainRequest
	switch req.(type) {
	case *rmsv1.BatchAcquireRequest: // has a limit and a reason of its own
		limit = maxRequest
	case *rmsv1.CreateTemplateRequest, *rmsv1.UpdateTemplateRequest:
		limit = maxTemplateRequest
	case *rmsv1.CreateGroupRequest, *rmsv1.UpdateGroupRequest:
		limit = maxGroupRequest
	}
	if n := proto.Size(req); n > limit {
		return vocab.Errorf(vocab.ReasonRequestInvalid, "the request has %d bytes; %d are allowed", n, limit)
	}
	if hasUnknown(req.ProtoReflect()) {
		return vocab.Errorf(vocab.ReasonRequestInvalid, "the request has fields this server does not know").
			WithNext("Use a client of the server's version or an older one")
	}
	if err := d.validate.Validate(req); err != nil {
		return vocab.Errorf(vocab.ReasonRequestInvalid, "the request is not valid: %s", firstViolation(err))
	}
	return nil
}

// hasUnknown reports whether a message, or one inside it, has fields this
// server does not know. Passing over one could widen what the caller means: a
// condition of a grant, say, that only a newer server has.
func hasUnknown(m protoreflect.Message) (found bool) {
	if len(m.GetUnknown()) > 0 {
		return true
	}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.IsMap():
			if f.MapValue().Message() != nil {
				v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
					found = hasUnknown(v.Message())
					return !found
				})
			}
		case f.Message() == nil:
		case f.IsList():
			for i := 0; i < v.List().Len() && !found; i++ {
				found = hasUnknown(v.List().Get(i).Message())
			}
		default:
			found = hasUnknown(v.Message())
		}
		return !found
	})
	return found
}

// firstViolation names the first field that is wrong, without its value.
func firstViolation(err error) string {
	if v, ok := err.(*protovalidate.ValidationError); ok && len(v.Violations) > 0 { //nolint:errorlint // the library returns it unwrapped
		p := v.Violations[0].Proto
		return strings.TrimSpace(protovalidate.FieldPathString(p.GetField()) + " " + p.GetMessage())
	}
	return "its shape cannot be checked"
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

// withDeadline gives calls without a deadline one, and keeps a little of the
// others' back.
func withDeadline(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return context.WithTimeout(ctx, defaultDeadline)
	}
	return context.WithDeadline(ctx, deadline.Add(-explainMargin))
}

// passesFreely names the one foreign service that is served: health, for load
// balancers. It tells nothing of any tenant.
func passesFreely(method string) bool { return strings.HasPrefix(method, "/grpc.health.v1.Health/") }

// rolesOf translates roles: the contract's ROLE_POLICY_ADMIN is policy-admin.
func rolesOf(roles []rmsv1.Role) []vocab.Role {
	out := make([]vocab.Role, len(roles))
	for i, r := range roles {
		out[i] = vocab.Role(strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(r.String(), "ROLE_")), "_", "-"))
	}
	return out
}

func roleNames(roles []rmsv1.Role) string {
	var names []string
	for _, r := range rolesOf(roles) {
		names = append(names, string(r))
	}
	return strings.Join(names, " or ")
}

// leaf is the connection's client certificate, nil if it has none.
func (c *call) leaf() *x509.Certificate {
	if len(c.chain) == 0 {
		return nil
	}
	return c.chain[0]
}
