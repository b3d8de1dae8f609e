package evidence

import (
	"crypto/ed25519"
	"crypto/sha256"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/openrms/rms/internal/operation"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/sshsig"
	"github.com/openrms/rms/internal/vocab"
)

// signerOf is a person's SSH key, made of the name: a test value.
func signerOf(t *testing.T, name string) *sshsig.Signer {
	t.Helper()
	seed := sha256.Sum256([]byte("a test value: " + name))
	return must[*sshsig.Signer](t)(sshsig.NewSigner(must[ssh.Signer](t)(ssh.NewSignerFromKey(ed25519.NewKeyFromSeed(seed[:])))))
}

func personOf(name string) operation.Person {
	return operation.Person{Issuer: "https://idp.contoso.test", Subject: name, Name: name, Addresses: []string{name + "@contoso.test"}, Member: "contoso"}
}

// An operation that a quorum let run is believed for the approvers' signatures,
// not for the service's word.
func TestApprovalsAreTheApprovers(t *testing.T) {
	tenant, id, start := vocab.TenantID{1}, vocab.NewOperationID(), time.UnixMilli(1_790_000_000_000)
	set := &operation.ApproverSet{Threshold: 2}
	for _, name := range []string{"anna", "ben", "cleo"} {
		set.Approvers = append(set.Approvers, operation.Approver{Principal: "user:" + name + "@contoso.test", Keys: [][]byte{signerOf(t, name).Key().Wire()}})
	}
	set.Sort()
	approval := func(o *operation.Operation, by, key string) operation.Approval {
		sig := must[*sshsig.Signature](t)(signerOf(t, key).Sign(operation.ApprovalNamespace, o.Quorum.Signed))
		return operation.Approval{
			Person: personOf(by), At: operation.Millis(start), Event: vocab.EventID{3}, Params: o.ParamsHash(),
			Signature: sig.Bytes(), Approver: "user:" + by + "@contoso.test",
		}
	}
	for name, c := range map[string]struct {
		change func(*operation.Operation)
		want   string
	}{
		"as it was":                     {func(*operation.Operation) {}, ""},
		"one signature for two":         {func(o *operation.Operation) { o.Approvals = o.Approvals[:1] }, "without the approvals"},
		"one signature, not done":       {func(o *operation.Operation) { o.Approvals, o.State = o.Approvals[:1], operation.AwaitingApproval }, ""},
		"a key of somebody else's":      {func(o *operation.Operation) { o.Approvals[1] = approval(o, "ben", "mallory") }, "without the approvals"},
		"one person twice":              {func(o *operation.Operation) { o.Approvals[1] = approval(o, "anna", "anna") }, "without the approvals"},
		"the requester":                 {func(o *operation.Operation) { o.Approvals[0].Person = o.Requester }, "without the approvals"},
		"another reason than signed":    {func(o *operation.Operation) { o.Reason = "because" }, "is not what it is"},
		"another target than signed":    {func(o *operation.Operation) { o.Params = paramsOf(t, 8) }, "is not what it is"},
		"another basis than signed":     {func(o *operation.Operation) { o.Basis.Hash[0]++ }, "is not what it is"},
		"the signature of another text": {func(o *operation.Operation) { o.Quorum.Signed = append([]byte{}, o.Quorum.Signed[1:]...) }, "is not what it is"},
	} {
		o := &operation.Operation{
			Kind: operation.KeyDestroy, Params: paramsOf(t, 7), Requester: personOf("dora"), Reason: "a test", Created: operation.Millis(start),
			Expires: operation.Millis(start.Add(operation.RequestLife)), State: operation.Succeeded, Ended: operation.Millis(start),
			Basis: &operation.Basis{Hash: [32]byte{7}, Text: []string{"g7"}},
		}
		if err := o.Ask(tenant, id, set); err != nil {
			t.Fatal(err)
		}
		o.Approvals = []operation.Approval{approval(o, "anna", "anna"), approval(o, "ben", "ben")}
		c.change(o)
		body := must[[]byte](t)(o.Encode())
		v := &verification{out: &Verified{Tenant: tenant}}
		err := v.approvals(&record.Resource{Name: record.PrefixOperations + id.String(), Body: body})
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func paramsOf(t *testing.T, generation uint32) []byte {
	t.Helper()
	return must[[]byte](t)(operation.EncodeParams(&operation.KeyDestroyParams{Generation: generation, Shown: []string{"g"}}))
}
