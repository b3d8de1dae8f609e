package rms

import (
	"context"
	"crypto/tls"
	"net"
	"runtime"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// Config says which server a client speaks to, as whom, and what it believes.
type Config struct {
	// Address of the server, HOST:PORT. Required. It comes from whoever
	// configures the program, never from a document.
	Address string
	// Tenant is the tenant's name. Required.
	Tenant string
	// TLS is for the connection: authorities of the server's certificate, and
	// the client certificate of a service. Nil: the system's authorities.
	// TLS 1.3 is the minimum whatever it says, and it cannot switch the
	// verification of the server's certificate off.
	TLS *tls.Config
	// Token returns the bearer token calls are made with: a JWT of one of the
	// tenant's identity providers. It is asked for every call, by several at
	// once, and should keep and renew the token by itself. Nil: the
	// client certificate in TLS is the identity. An *Error of Token is what
	// the call returns.
	Token func(context.Context) (string, error)
	// Trust is what was pinned when the tenant was first signed in to.
	// Required.
	Trust Trust
	// Product is the program's name and version, at most 64 bytes. It is
	// recorded with each open, as said, and decides nothing.
	Product string
	// Now is the clock; nil: time.Now.
	Now func() time.Time
}

// Client is a connection to one tenant of one server, as one identity. It is
// safe for concurrent use.
type Client struct {
	config    Config
	conn      *grpc.ClientConn
	calls     *caller
	presenter *presenter // of the client certificate
	trust     *keeper
}

// Limits of the connection.
const (
	keepAliveAfter   = 30 * time.Second // of silence while a call is under way
	keepAliveTimeout = 15 * time.Second
	connectTimeout   = 10 * time.Second
)

// Dial makes a client. It speaks to the server only if the trust does not hold
// a bundle that is in force: then it fetches one, and fails with
// TRUST_ROOT_MISMATCH unless a pinned root vouches for it. Otherwise the
// connection is made at the first call. ctx bounds Dial alone.
//
// A configuration that cannot be meant is CONFIGURATION_INVALID, one without an
// identity TOKEN_MISSING.
func Dial(ctx context.Context, config Config) (*Client, error) {
	if config.Now == nil {
		config.Now = time.Now
	}
	switch {
	case !vocab.ValidSlug(config.Tenant):
		return nil, vocab.Errorf(vocab.ReasonConfigurationInvalid, "%q is not a tenant's name", clip(config.Tenant))
	case len(config.Product) > 64:
		return nil, vocab.Errorf(vocab.ReasonConfigurationInvalid, "the product's name is longer than 64 bytes")
	case config.Token == nil && !hasCertificate(config.TLS):
		return nil, vocab.Errorf(vocab.ReasonTokenMissing, "the client has neither a token nor a client certificate").
			WithNext("Set Token, or a certificate in TLS")
	}
	c := &Client{config: config, calls: &caller{token: config.Token, pause: sleep}, presenter: new(presenter)}
	var err error
	if c.conn, err = connect(config.Address, config.TLS, c.presenter, c.calls); err != nil {
		return nil, err
	}
	if c.trust, err = newKeeper(config.Trust, config.Now, c.getTrust); err != nil {
		_ = c.conn.Close()
		return nil, err
	}
	if _, err := c.trust.verifier(ctx); err != nil {
		_ = c.conn.Close()
		return nil, err
	}
	return c, nil
}

// Close ends the connection and the calls under way. Documents that are open
// stay open.
func (c *Client) Close() error { return c.conn.Close() }

// Tenant returns the tenant's resource name, tenants/NAME: the parent of
// requests.
func (c *Client) Tenant() string { return "tenants/" + c.config.Tenant }

// TenantID returns the pinned identity of the tenant.
func (c *Client) TenantID() TenantID { return c.config.Trust.TenantID }

// Protection is for whoever signed in. Like Licenses, Policy, People, Custody, Audit,
// Operations and Recovery it is a client of the service whose calls carry the client's identity, are
// repeated where that is safe, and have an [Error] for every error. What it
// returns has not been verified: signed objects are checked by [Client.Protect]
// and [Client.Open] alone.
func (c *Client) Protection() rmsv1.ProtectionServiceClient {
	return rmsv1.NewProtectionServiceClient(c.conn)
}

// Licenses is for owners of licenses and policy-admins. See [Client.Protection].
func (c *Client) Licenses() rmsv1.LicenseServiceClient { return rmsv1.NewLicenseServiceClient(c.conn) }

// Policy is for policy-admins and tenant-admins. See [Client.Protection].
func (c *Client) Policy() rmsv1.PolicyServiceClient { return rmsv1.NewPolicyServiceClient(c.conn) }

// People is for tenant-admins and policy-admins. See [Client.Protection].
func (c *Client) People() rmsv1.PeopleServiceClient { return rmsv1.NewPeopleServiceClient(c.conn) }

// Custody is for key-custodians. See [Client.Protection].
func (c *Client) Custody() rmsv1.CustodyServiceClient { return rmsv1.NewCustodyServiceClient(c.conn) }

// Audit is for auditors. See [Client.Protection].
func (c *Client) Audit() rmsv1.AuditServiceClient { return rmsv1.NewAuditServiceClient(c.conn) }

// Operations is for whatever takes time or a second person: for who asked for it,
// may approve it, or audits. See [Client.Protection].
func (c *Client) Operations() rmsv1.OperationServiceClient {
	return rmsv1.NewOperationServiceClient(c.conn)
}

// Recovery is for recovery-officers. See [Client.Protection].
func (c *Client) Recovery() rmsv1.RecoveryServiceClient {
	return rmsv1.NewRecoveryServiceClient(c.conn)
}

// Exit is for key-custodians of a tenant that leaves. See [Client.Protection].
func (c *Client) Exit() rmsv1.ExitServiceClient { return rmsv1.NewExitServiceClient(c.conn) }

// Holds is for tenant-admins of a tenant that was restored from a backup. See
// [Client.Protection].
func (c *Client) Holds() rmsv1.HoldServiceClient { return rmsv1.NewHoldServiceClient(c.conn) }

// getTrust asks the server for the tenant's trust material, without signing in.
func (c *Client) getTrust(ctx context.Context) (*rmsv1.GetTrustResponse, error) {
	return c.Protection().GetTrust(ctx, &rmsv1.GetTrustRequest{Parent: c.Tenant()})
}

// info is what the client says of itself.
func (c *Client) info() *rmsv1.ClientInfo {
	return &rmsv1.ClientInfo{Product: c.config.Product, Platform: runtime.GOOS}
}

// connect makes a connection that is opened at the first call.
func connect(address string, config *tls.Config, p *presenter, calls *caller) (*grpc.ClientConn, error) {
	if err := checkAddress(address); err != nil {
		return nil, err
	}
	secured, err := secure(config, p)
	if err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient("dns:///"+address,
		grpc.WithTransportCredentials(credentials.NewTLS(secured)),
		grpc.WithPerRPCCredentials(bearer{}),
		grpc.WithChainUnaryInterceptor(calls.unary),
		grpc.WithChainStreamInterceptor(calls.stream),
		// What the DNS says of the service must not change how calls are made.
		grpc.WithDisableServiceConfig(),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepAliveAfter, Timeout: keepAliveTimeout}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: firstPause, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 10 * time.Second},
			MinConnectTimeout: connectTimeout,
		}),
	)
	if err != nil {
		return nil, vocab.Errorf(vocab.ReasonConfigurationInvalid, "the server's address cannot be used: %w", err)
	}
	return conn, nil
}

func checkAddress(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err == nil && host != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err == nil && n > 0 {
			return nil
		}
	}
	return vocab.Errorf(vocab.ReasonConfigurationInvalid, "%q is not the address of a server: want HOST:PORT", clip(address))
}

// secure returns a copy of a TLS configuration that holds to the client's
// rules.
func secure(config *tls.Config, p *presenter) (*tls.Config, error) {
	if config == nil {
		config = &tls.Config{MinVersion: tls.VersionTLS13}
	}
	if config.InsecureSkipVerify {
		return nil, vocab.Errorf(vocab.ReasonConfigurationInvalid, "the verification of the server's certificate cannot be switched off").
			WithNext("Put the authority of the server's certificate into RootCAs")
	}
	next := config.Clone()
	if hasCertificate(config) {
		next = p.install(config)
	}
	next.MinVersion = tls.VersionTLS13
	if next.MaxVersion != 0 && next.MaxVersion < tls.VersionTLS13 {
		return nil, vocab.Errorf(vocab.ReasonConfigurationInvalid, "TLS 1.3 is required")
	}
	return next, nil
}

func hasCertificate(config *tls.Config) bool {
	return config != nil && (len(config.Certificates) > 0 || config.GetClientCertificate != nil)
}
