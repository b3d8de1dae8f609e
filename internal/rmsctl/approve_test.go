package rmsctl

import (
	"crypto/sha256"
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/openrms/rms/internal/contexts"
	"github.com/openrms/rms/internal/operation"
	"github.com/openrms/rms/internal/sshsig"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// keysOf are SSH public keys made for this test alone, in wire form.
func keysOf(t *testing.T, lines ...string) (out [][]byte) {
	t.Helper()
	for _, l := range lines {
		k, err := sshsig.ParseAuthorizedKey(l)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, k.Wire())
	}
	return out
}

// offered is an operation under dual control as an honest service shows it.
func offered(t *testing.T, tenant vocab.TenantID, kind operation.Kind, params any) *rmsv1.Operation {
	t.Helper()
	b, err := operation.EncodeParams(params)
	if err != nil {
		t.Fatal(err)
	}
	set := &operation.ApproverSet{Threshold: 2, Approvers: []operation.Approver{
		{Principal: "user:anna@contoso.test", Keys: keysOf(t, "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAICERnv2bPnuIRF48UqwlGOVuMB/1pC8K7uwN9I4Xud4N")},
		{Principal: "user:ben@contoso.test", Keys: keysOf(t, "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f")},
	}}
	now := time.Now().Truncate(time.Millisecond)
	o := &operation.Operation{
		Kind: kind, Params: b, Reason: "why", Ticket: "T-1", Needed: 1, State: operation.AwaitingApproval,
		Requester: operation.Person{Issuer: "https://idp.test", Subject: "7", Name: "dan@contoso.test"},
		Created:   operation.Millis(now), Expires: operation.Millis(now.Add(time.Hour)), Basis: &operation.Basis{Hash: [32]byte{7}, Text: []string{"revision 3 of the settings"}},
	}
	id := vocab.NewOperationID()
	if err := o.Ask(tenant, id, set); err != nil {
		t.Fatal(err)
	}
	hash := sha256.Sum256(b)
	return &rmsv1.Operation{
		Name: "tenants/contoso/operations/" + id.String(), Kind: rmsv1.Operation_Kind(kind), NeededApprovals: 2, Parameters: b, ParamsSha256: hash[:],
		Requester: o.Requester.Name, RequesterIdentity: &rmsv1.Issuer{Issuer: o.Requester.Issuer, Subject: o.Requester.Subject}, Reason: o.Reason, Ticket: o.Ticket,
		CreateTime: timestamppb.New(now), ExpireTime: timestamppb.New(now.Add(time.Hour)), BasisSha256: o.Basis.Hash[:], Basis: o.Basis.Text,
		Quorum: &rmsv1.Operation_Quorum{Signed: o.Quorum.Signed, Namespace: operation.ApprovalNamespace, ApproverSet: o.Quorum.Set, NeededNow: 2},
	}
}

// Whatever is under dual control can be signed with this program: it has words
// for it.
func TestEveryDualControlHasWords(t *testing.T) {
	tenant := vocab.NewTenantID()
	s, a := &server{Context: &contexts.Context{TenantID: tenant}}, &app{}
	set := &operation.ApproverSet{Threshold: 2, Approvers: []operation.Approver{
		{Principal: "user:anna@contoso.test", Keys: keysOf(t, "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAICERnv2bPnuIRF48UqwlGOVuMB/1pC8K7uwN9I4Xud4N")},
		{Principal: "user:ben@contoso.test", Keys: keysOf(t, "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f")},
	}}
	to, err := set.Encode()
	if err != nil {
		t.Fatal(err)
	}
	destroyed := [32]byte{0xfe}
	samples := map[operation.Kind][]struct {
		params any
		says   string
	}{
		operation.ApproversUpdate: {{&operation.ApproversParams{To: to}, "adds anna@contoso.test"}},
		operation.CustodyLower:    {{&operation.CustodyParams{Settings: &operation.CustodySettings{To: operation.CustodyTimes{CacheTTL: 60_000}}}, "cache_ttl from 0s to 1m0s"}},
		operation.KeyDestroy: {
			{&operation.KeyDestroyParams{Generation: 7, DespiteSoak: 1, Inventory: destroyed, Shown: []string{"1 license"}}, "destroy generation g7, for ever; do not wait for its soak period to end; bound to inventory fe"},
			{&operation.KeyDestroyParams{Key: "root", Version: 2, DespiteBackups: 1, Shown: []string{"1 license"}}, "destroy version v2 of key root, for ever; although backups may need it; bound"},
			{&operation.KeyDestroyParams{Key: "root"}, "destroy key root with all its versions, for ever; bound"},
		},
		operation.TenantExport: {
			{&operation.ExportParams{KEM: 1, Recipient: []byte("key")}, "freeze the tenant, and give archives of it to key "},
			{&operation.ExportParams{KEM: 1, Recipient: []byte("key"), WithoutLost: 1}, "without what cannot be taken along"},
			{&operation.ExportParams{Thaw: 1}, "thaw the tenant"},
		},
	}
	for number := range rmsv1.Operation_Kind_name {
		kind := operation.Kind(number)
		if kind.DualControl() != (samples[kind] != nil) {
			t.Errorf("%s: under dual control: %t, but it has %d cases here", kind, kind.DualControl(), len(samples[kind]))
		}
		for _, c := range samples[kind] {
			d, err := a.dualOf(t.Context(), s, offered(t, tenant, kind, c.params))
			if err != nil || !strings.Contains(strings.Join(d.words, "; "), c.says) {
				t.Errorf("%s: %v, %+v, want %q", kind, err, d, c.says)
			}
		}
	}
	if _, err := a.dualOf(t.Context(), s, offered(t, tenant, operation.KeyDestroy, &operation.KeyDestroyParams{Key: "root", Generation: 3})); !errors.Is(err, vocab.ReasonTrustRootMismatch) {
		t.Errorf("a destruction of two things: %v", err)
	}
}

// What is signed is made of what is shown: a service that shows one thing and has
// another signed gets no signature.
func TestALyingServiceGetsNoSignature(t *testing.T) {
	tenant := vocab.NewTenantID()
	s := &server{Context: &contexts.Context{TenantID: tenant}}
	a := &app{}
	lower := func(ttl uint64) *operation.CustodyParams {
		from := operation.CustodyTimes{Custody: vocab.CustodyCached, CacheTTL: 300_000}
		to := from
		to.CacheTTL = ttl
		return &operation.CustodyParams{Settings: &operation.CustodySettings{Base: 3, From: from, To: to}}
	}
	honest := offered(t, tenant, operation.CustodyLower, lower(360_000))
	other := offered(t, tenant, operation.CustodyLower, lower(3_600_000))
	d, err := a.dualOf(t.Context(), s, honest)
	if err != nil || len(d.words) != 1 || d.words[0] != "cache_ttl from 5m0s to 6m0s" || string(d.signed) != string(honest.GetQuorum().GetSigned()) {
		t.Fatalf("an honest one: %v, %+v", err, d)
	}
	// What the service says in words of its own does not count.
	honest.Params = &rmsv1.Operation_CustodyLower_{CustodyLower: &rmsv1.Operation_CustodyLower{Changes: []string{"nothing at all"}}}
	if d, err := a.dualOf(t.Context(), s, honest); err != nil || strings.Contains(strings.Join(d.words, " "), "nothing") {
		t.Errorf("the service's words are shown: %v, %+v", err, d)
	}
	for name, lie := range map[string]func(*rmsv1.Operation){
		"other parameters shown": func(o *rmsv1.Operation) { o.Parameters = other.GetParameters() },
		"other parameters, with hash": func(o *rmsv1.Operation) {
			o.Parameters, o.ParamsSha256 = other.GetParameters(), other.GetParamsSha256()
		},
		"other bytes to sign":    func(o *rmsv1.Operation) { o.Quorum.Signed = other.GetQuorum().GetSigned() },
		"another ID":             func(o *rmsv1.Operation) { o.Name = other.GetName() },
		"no ID":                  func(o *rmsv1.Operation) { o.Name = "" },
		"another kind":           func(o *rmsv1.Operation) { o.Kind = rmsv1.Operation_KIND_APPROVERS_UPDATE },
		"another requester":      func(o *rmsv1.Operation) { o.Requester = "anna@contoso.test" },
		"another requester's ID": func(o *rmsv1.Operation) { o.RequesterIdentity.Subject = "8" },
		"another reason":         func(o *rmsv1.Operation) { o.Reason = "because" },
		"another ticket":         func(o *rmsv1.Operation) { o.Ticket = "T-2" },
		"another basis":          func(o *rmsv1.Operation) { o.Basis = []string{"revision 4 of the settings"} },
		"no basis":               func(o *rmsv1.Operation) { o.BasisSha256 = nil },
		"a lower quorum":         func(o *rmsv1.Operation) { o.NeededApprovals = 1 },
		"other approvers":        func(o *rmsv1.Operation) { o.Quorum.ApproverSet = []byte{0xa0} },
		"a later end":            func(o *rmsv1.Operation) { o.ExpireTime = timestamppb.New(time.Now().Add(48 * time.Hour)) },
		"another namespace":      func(o *rmsv1.Operation) { o.Quorum.Namespace = "git" },
	} {
		o := proto.Clone(honest).(*rmsv1.Operation)
		lie(o)
		if _, err := a.dualOf(t.Context(), s, o); !errors.Is(err, vocab.ReasonTrustRootMismatch) {
			t.Errorf("%s: %v, want TRUST_ROOT_MISMATCH", name, err)
		}
	}
	if _, err := a.dualOf(t.Context(), s, offered(t, vocab.NewTenantID(), operation.CustodyLower, lower(360_000))); !errors.Is(err, vocab.ReasonTrustRootMismatch) {
		t.Errorf("another tenant's: %v, want TRUST_ROOT_MISMATCH", err)
	}
	// What this program cannot say in words it does not sign.
	if _, err := a.dualOf(t.Context(), s, offered(t, tenant, 99, lower(1))); !errors.Is(err, vocab.ReasonSuiteUnsupported) {
		t.Errorf("a kind that is not known: %v", err)
	}
	if _, err := a.dualOf(t.Context(), s, offered(t, tenant, operation.CustodyLower, &operation.CustodyParams{})); !errors.Is(err, vocab.ReasonTrustRootMismatch) {
		t.Errorf("parameters that say nothing: %v", err)
	}
}
