package server

import (
	"context"
	"crypto/x509"
	"log/slog"
	"time"

	"buf.build/go/protovalidate"
	"google.golang.org/protobuf/proto"

	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/identity"
	"github.com/openrms/rms/internal/tenant"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
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
	// Find returns the tenant of a name, or that it is broken. "" is the name
	// of the only tenant there is. Both are nil if there is no such tenant.
	Find(name string) (*tenant.Tenant, *Broken)
}

// Broken is a tenant that is configured but could not be opened. Its callers
// are refused, and nothing of it is read or written.
type Broken struct {
	// Identity is whom the tenant trusts: its callers may know.
	Identity identity.Tenant
	// Err is what they are told.
	Err error
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
		var broken *Broken
		c.tenant, broken = d.findTenant(req)
		if err := d.limits.allow(d.now(), nobodysTenant, c.network, 1); err != nil {
			return err
		}
		if broken != nil {
			return broken.Err
		}
		return d.checkShape(req)
	}
	var err error
	var broken *Broken
	if c.tenant, broken = d.findTenant(req); c.tenant == nil {
		if broken == nil {
			// A tenant that is not here trusts nobody: the caller gets the
			// answer of one that is, but does not know them.
			broken = &Broken{
				Identity: identity.Tenant{Name: "none"},
				Err:      vocab.Errorf(vocab.ReasonIssuerNotTrusted, "this tenant does not accept your sign-in"),
			}
		}
		if _, err = d.identify(ctx, c, broken.Identity); err == nil {
			err = broken.Err
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

// findTenant returns the tenant a request names in its parent, its name, or
// the name of the resource it carries.
func (d *door) findTenant(req proto.Message) (*tenant.Tenant, *Broken) {
	name := addressOf(req)
	if name == "" {
		return d.tenants.Find("")
	}
	t, ok := tenantOf(name)
	if !ok {
		return nil, nil
	}
	return d.tenants.Find(t)
}
