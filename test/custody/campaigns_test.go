package custody_test

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc"

	"github.com/openrms/rms/internal/vaulttest"
	"github.com/openrms/rms/internal/vaulttest/realvault"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
	"github.com/openrms/rms/test/rmsdtest"
)

// TestCampaigns moves a tenant from a keyring to a real Vault, rotates there, and
// reseals what was under a compromised generation and version; each time
// everything goes along, and what it leaves behind can go: the keyring is taken
// away, Vault is told to refuse the old versions. Vault's own audit file says how
// it was done: in batches, and for a rotation by rewrapping in Vault.
func TestCampaigns(t *testing.T) {
	const documents = 300
	v := vaulttest.Start(t)
	place := vaulttest.Tenant(t, v, rmsdtest.Tenant)
	const keyring = "{before: {embedded: {}}"
	both := keyring + ", " + strings.TrimPrefix(custodianOf(v, place, v.Address, v.CAFile, ""), "{")
	site := rmsdtest.New(t, keyring+"}")
	c := &moving{T: t, site: site}
	c.start(keyring + "}") // the first start takes the only one there is
	prepare(t, site)
	alice := site.Caller(t, "alice")
	for i := range documents {
		r := alice.Publish(t.Context(), []string{"", "strict"}[i%2])
		if r.Outcome != rmsdtest.Received {
			t.Fatal(r.Err)
		}
		c.docs = append(c.docs, r.Document)
	}
	c.stop()
	c.start(both)

	if _, err := c.custody().RegisterKey(t.Context(), &rmsv1.RegisterKeyRequest{Parent: rmsdtest.Parent, KeyId: "vault", Custodian: "contoso-vault"}, c.signed()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.custody().ActivateKey(t.Context(), &rmsv1.ActivateKeyRequest{Name: rmsdtest.Parent + "/keys/vault"}, c.signed()); err != nil {
		t.Fatal(err)
	}
	c.settled("1 generation and 150 licenses moved to version 1 of key vault")
	c.allOpen()

	before := calls(t, v, place)
	c.rotate(place)
	c.settled("2 generations and 150 licenses moved to version 2 of key vault")
	after := calls(t, v, place)
	if n := after["rewrap"] - before["rewrap"]; n < 2 || n > 12 {
		t.Errorf("Vault was asked to rewrap %d times for 2 generations and 150 licenses", n)
	}
	if n := after["decrypt"] - before["decrypt"]; n > 16 {
		t.Errorf("Vault was asked to decrypt %d times, to look at what it rewrapped", n)
	}
	if err := place.Configure(t.Context(), "root", map[string]any{"min_decryption_version": 2}); err != nil {
		t.Fatal(err)
	}
	c.allOpen()

	// The generation of all cached documents, and the version of all strict ones.
	first := rmsdtest.Parent + "/generations/1"
	if _, err := c.custody().CompromiseKey(t.Context(), &rmsv1.CompromiseKeyRequest{Name: first}, c.signed()); err != nil {
		t.Fatal(err)
	}
	c.reseal(first, documents/2)
	version := rmsdtest.Parent + "/keys/vault/versions/2"
	if _, err := c.custody().SuspendKey(t.Context(), &rmsv1.SuspendKeyRequest{Name: version}, c.signed()); err != nil {
		t.Fatal(err)
	}
	c.rotate(place) // nothing that is suspended is moved
	if _, err := c.custody().CompromiseKey(t.Context(), &rmsv1.CompromiseKeyRequest{Name: version}, c.signed()); err != nil {
		t.Fatal(err)
	}
	c.reseal(version, documents)
	if err := place.Configure(t.Context(), "root", map[string]any{"min_decryption_version": 3}); err != nil {
		t.Fatal(err)
	}
	c.allOpen()
	c.stop()
}

// calls counts what Vault was asked to do with the root key, by its audit file.
func calls(t *testing.T, v *realvault.Server, place *realvault.Tenant) map[string]int {
	t.Helper()
	entries, err := v.ReadAudit()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]int{}
	for _, e := range entries {
		if op, ok := strings.CutPrefix(e.Request.Path, place.Mount+"/"); ok && e.Type == "response" && strings.HasSuffix(op, "/root") {
			out[strings.TrimSuffix(op, "/root")]++
		}
	}
	return out
}

// moving is a site whose tenant moves.
type moving struct {
	*testing.T
	site  *rmsdtest.Site
	p     *rmsdtest.Process
	carla *rmsdtest.Caller
	docs  []*rmsdtest.Document
}

// start starts the daemon with custodians in the tenant's file.
func (c *moving) start(custodians string) {
	c.Helper()
	c.site.SetCustodians(custodians)
	c.p = c.site.Start(c.T, rmsdtest.Build(c, ""))
	c.p.AwaitServing(c)
	c.carla = c.site.Caller(c, "carla")
}

func (c *moving) stop() {
	c.Helper()
	if err := c.p.Stop(); err != nil {
		c.Fatalf("%v\n%s", err, c.p.LogEnd())
	}
}

func (c *moving) custody() rmsv1.CustodyServiceClient {
	conn, _ := c.carla.Conn()
	return rmsv1.NewCustodyServiceClient(conn)
}

func (c *moving) signed() grpc.CallOption {
	_, signed := c.carla.Conn()
	return signed
}

// rotate rotates the key in Vault and says that it was meant.
func (c *moving) rotate(place *realvault.Tenant) {
	c.Helper()
	if err := place.Rotate(c.Context(), "root"); err != nil {
		c.Fatal(err)
	}
	if _, err := c.custody().SyncKey(c.Context(), &rmsv1.SyncKeyRequest{Name: rmsdtest.Parent + "/keys/vault"}, c.signed()); err != nil {
		c.Fatal(err)
	}
}

// settled waits for the last operation and fails the test unless it says that.
func (c *moving) settled(want string) {
	c.Helper()
	conn, signed := c.carla.Conn()
	operations := rmsv1.NewOperationServiceClient(conn)
	list, err := operations.ListOperations(c.Context(), &rmsv1.ListOperationsRequest{Parent: rmsdtest.Parent, PageSize: 1}, signed)
	if err != nil || len(list.GetOperations()) == 0 {
		c.Fatalf("%v, %v", list, err)
	}
	o := list.GetOperations()[0]
	stream, err := operations.WatchOperation(c.Context(), &rmsv1.WatchOperationRequest{Name: o.GetName()}, signed)
	for err == nil {
		var r *rmsv1.WatchOperationResponse
		if r, err = stream.Recv(); err == nil {
			o = r.GetOperation()
		}
	}
	if o.GetState() != rmsv1.Operation_STATE_SUCCEEDED || !strings.HasPrefix(o.GetMessage(), want) {
		c.Fatalf("it is %s: %s %s, want: %s", o.GetState(), o.GetFailure(), o.GetMessage(), want)
	}
}

// reseal moves n licenses away from something.
func (c *moving) reseal(name string, n int64) {
	c.Helper()
	r, err := c.custody().Reseal(c.Context(), &rmsv1.ResealRequest{Name: name}, c.signed())
	if err != nil || r.GetLicenses() != n {
		c.Fatalf("%v, %v, want %d licenses", r, err, n)
	}
	c.settled(fmt.Sprintf("%d licenses sealed anew", n))
}

// allOpen opens every document; that the content key is the one it was published
// with, the caller checks.
func (c *moving) allOpen() {
	c.Helper()
	replies, err := c.site.Caller(c, "bob").AcquireAll(c.Context(), c.docs)
	if err != nil {
		c.Fatal(err)
	}
	for i, r := range replies {
		if r.Outcome != rmsdtest.Received {
			c.Fatalf("document %d does not open: %v", i, r.Err)
		}
	}
}
