package custody_test

import (
	"errors"
	"io"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	vaultpolicy "github.com/openrms/rms/deploy/vault"
	"github.com/openrms/rms/internal/vaulttest"
	"github.com/openrms/rms/internal/vaulttest/realvault"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
	"github.com/openrms/rms/test/rmsdtest"
)

// TestRefusalRehearsed has a daemon watch a canary key in a real Vault while its
// part of the policy there is withdrawn: the next use is refused, what is held in
// memory ends within the promise, Vault's audit file has the looks under the IDs
// that the daemon told, and everybody else's documents go on opening.
func TestRefusalRehearsed(t *testing.T) {
	server := vaulttest.Start(t)
	place := vaulttest.Tenant(t, server, rmsdtest.Tenant)
	site := rmsdtest.New(t, custodianOf(server, place, server.Address, server.CAFile, ""))
	site.Start(t, rmsdtest.Build(t, "")).AwaitServing(t)
	prepare(t, site)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	doc := site.Caller(t, "alice").Publish(t.Context(), "strict")
	must(doc.Err)
	bob := site.Caller(t, "bob")

	must(place.AddRoot(t.Context(), "canary", "root"))
	conn, carla := site.Caller(t, "carla").Conn()
	custody := rmsv1.NewCustodyServiceClient(conn)
	_, err := custody.RegisterKey(t.Context(), &rmsv1.RegisterKeyRequest{
		Parent: site.Parent(), KeyId: "canary", Custodian: "contoso-vault", RootKey: "canary",
	}, carla)
	must(err)
	rehearse := func(wait time.Duration, at func(look int)) (looks []*rmsv1.RehearseRefusalResponse, end *rmsv1.RehearseRefusalResponse) {
		s, err := custody.RehearseRefusal(t.Context(), &rmsv1.RehearseRefusalRequest{
			Name: site.Parent() + "/keys/canary", Wait: durationpb.New(wait),
		}, carla)
		must(err)
		for {
			r, err := s.Recv()
			if errors.Is(err, io.EOF) {
				return looks, looks[len(looks)-1]
			}
			must(err)
			looks = append(looks, r)
			at(len(looks))
		}
	}
	const withdrawnAt = 3
	looks, end := rehearse(time.Minute, func(look int) {
		if look == withdrawnAt {
			must(place.SetPolicy(t.Context(), vaultpolicy.Daemon(place.Mount, "root")))
		}
		if r := bob.Acquire(t.Context(), doc.Document); r.Outcome != rmsdtest.Received {
			t.Errorf("look %d: a document under another key: %v", look, r.Err)
		}
	})
	for i, l := range looks {
		if got := vocab.Reason(l.GetStrict()); i >= withdrawnAt && got != vocab.ReasonCustodianRefused || i < withdrawnAt && got != "" {
			t.Errorf("look %d at the custodian: %q", i+1, got)
		}
	}
	if end.GetEvent() == "" || end.GetCachedDelay() == nil || end.GetPromisedDelay().AsDuration() != ttl || end.GetCachedDelay().AsDuration() > ttl {
		t.Errorf("the end is %v", end)
	}
	entries, err := server.ReadAudit()
	must(err)
	if !slices.ContainsFunc(entries, func(a realvault.AuditEntry) bool {
		return a.Request.ID == looks[0].GetCustodianRequestId() && a.Request.Path == place.Mount+"/decrypt/canary" && a.Error == ""
	}) {
		t.Errorf("Vault's audit file has no decryption %s", looks[0].GetCustodianRequestId())
	}
	// Given back, it opens.
	must(place.SetPolicy(t.Context(), vaultpolicy.Daemon(place.Mount, "canary", "root")))
	if again, _ := rehearse(0, func(int) {}); again[0].GetStrict() != "" || again[0].GetCached() != "" {
		t.Errorf("given back, it is %v", again[0])
	}
}
