package rmsctl

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"

	"golang.org/x/term"

	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/operation"
	"github.com/openrms/rms/internal/sshsig"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// An approval under dual control is signed with the approver's own key. What is
// signed is made here, of what is shown here: the service's word for it is only
// compared.

// dual is what an approver is shown of an operation, and what they sign if they
// agree.
type dual struct {
	signed []byte
	// words say what would be done, read out of the parameters themselves.
	words []string
}

// dualOf makes it of an operation with a quorum.
func (a *app) dualOf(ctx context.Context, s *server, o *rmsv1.Operation) (*dual, error) {
	params := sha256.Sum256(o.GetParameters())
	id, err := vocab.ParseOperationID(lastPart(o.GetName()))
	if err != nil {
		return nil, contradicted("its ID")
	}
	if !bytes.Equal(params[:], o.GetParamsSha256()) {
		return nil, contradicted("its parameters")
	}
	if len(o.GetBasisSha256()) != 32 {
		return nil, contradicted("what it rests on")
	}
	set, err := operation.DecodeApprovers(o.GetQuorum().GetApproverSet())
	if err != nil || int32(set.Threshold) != o.GetNeededApprovals() {
		return nil, contradicted("its approvers")
	}
	own := &operation.Operation{
		Kind: operation.Kind(o.GetKind()), Params: o.GetParameters(), Reason: o.GetReason(), Ticket: o.GetTicket(), Needed: set.Threshold,
		Requester: operation.Person{
			Issuer: o.GetRequesterIdentity().GetIssuer(), Subject: o.GetRequesterIdentity().GetSubject(), Name: o.GetRequester(),
		},
		Created: operation.Millis(o.GetCreateTime().AsTime()), Expires: operation.Millis(o.GetExpireTime().AsTime()),
		Basis: &operation.Basis{Hash: [32]byte(o.GetBasisSha256()), Text: o.GetBasis()},
	}
	// The tenant is the one that this context was made for, not what a server says.
	st, err := operation.StatementOf(s.Context.TenantID, id, own, o.GetQuorum().GetApproverSet())
	if err != nil {
		return nil, err
	}
	d := &dual{signed: st.Bytes()}
	if !bytes.Equal(d.signed, o.GetQuorum().GetSigned()) || o.GetQuorum().GetNamespace() != operation.ApprovalNamespace {
		return nil, contradicted("what is to be signed")
	}
	d.words, err = a.dualWords(ctx, s, own)
	return d, err
}

func contradicted(what string) error {
	return vocab.Errorf(vocab.ReasonTrustRootMismatch, "the service contradicts itself about this operation: %s; sign nothing", what).
		WithNext("Tell whoever runs the service, and compare rmsctl version with theirs")
}

// dualWords says what an operation would do. What this program does not know
// how to say, nobody signs with it.
func (a *app) dualWords(ctx context.Context, s *server, o *operation.Operation) ([]string, error) {
	switch o.Kind { //nolint:exhaustive // the others are not under dual control
	case operation.ApproversUpdate:
		p, err := operation.Params[operation.ApproversParams](o)
		if err != nil {
			return nil, contradicted("its parameters")
		}
		from, to, err := p.Sets()
		if err != nil {
			return nil, contradicted("its parameters")
		}
		return to.Changes(from), nil
	case operation.CustodyLower:
		p, err := operation.Params[operation.CustodyParams](o)
		switch {
		case err != nil:
			return nil, contradicted("its parameters")
		case p.Settings != nil:
			return p.Settings.Changes(), nil
		case p.Template != nil:
			return a.floorWords(ctx, s, p.Template)
		}
		return nil, contradicted("its parameters")
	case operation.KeyDestroy:
		p, err := operation.Params[operation.KeyDestroyParams](o)
		if err != nil || (p.Key == "") == (p.Generation == 0) || p.Generation > 0 && p.Version > 0 {
			return nil, contradicted("its parameters")
		}
		return p.Words(), nil
	case operation.TenantExport:
		p, err := operation.Params[operation.ExportParams](o)
		if err != nil {
			return nil, contradicted("its parameters")
		}
		return []string{p.Words()}, nil
	}
	return nil, vocab.Errorf(vocab.ReasonSuiteUnsupported, "this rmsctl cannot say what a %s does, so it signs none", o.Kind).
		WithNext("Use an rmsctl of the service's version")
}

// floorWords says what a template's revision with a lower floor changes, as far
// as the caller may see the template.
func (a *app) floorWords(ctx context.Context, s *server, p *operation.TemplateParams) ([]string, error) {
	draft, err := license.DecodeTemplate(p.Draft)
	if err != nil || draft.Slug != p.Slug || draft.Revision != p.Base+1 {
		return nil, contradicted("its parameters")
	}
	out := []string{fmt.Sprintf("template %s, revision %d: %s", draft.Slug, draft.Revision, operation.FloorChange(draft.Custody))}
	m, err := getTemplate(ctx, s, draft.Slug, p.Base)
	if e := explain(err); e != nil && e.Reason == vocab.ReasonRoleRequired {
		return append(out, "(a policy-admin or an auditor sees the template itself)"), nil
	}
	if err != nil {
		return nil, err
	}
	before, err := templateFrom(m)
	if err != nil {
		return nil, err
	}
	same := *draft
	same.Custody = before.Custody
	if more := a.templateDiff(before, &same); len(more) > 0 {
		return append(append(out, "and beside that:"), more...), nil
	}
	return append(out, "nothing else of it"), nil
}

// signature signs what was shown, or reads what somebody signed with
// ssh-keygen.
func (a *app) signature(ctx context.Context, s *server, d *dual, with, file string) ([]byte, error) {
	if file != "" {
		b, err := readSmall(file)
		if err != nil {
			return nil, err
		}
		sig, err := sshsig.Parse(b)
		if err == nil {
			err = sig.Verify(operation.ApprovalNamespace, d.signed)
		}
		return b, err
	}
	signer, done, err := a.signer(ctx, s, with)
	if err != nil {
		return nil, err
	}
	defer done()
	sig, err := signer.Sign(operation.ApprovalNamespace, d.signed)
	if err != nil {
		return nil, err
	}
	a.sayf("signed with %s %s", signer.Key().Type(), signer.Key().Fingerprint())
	return sig.Bytes(), nil
}

// signer opens the key that --sign names: a private key's file, "agent" for the
// one of the agent's keys that is an approver's, or a .pub file for that one.
func (a *app) signer(ctx context.Context, s *server, with string) (_ *sshsig.Signer, done func(), err error) {
	if with != "agent" && !strings.HasSuffix(with, ".pub") {
		b, err := readSmall(with)
		if err != nil {
			return nil, nil, err
		}
		defer clear(b)
		signer, err := sshsig.ParsePrivateKey(b, func() ([]byte, error) { return a.passphrase(with) })
		return signer, func() {}, err
	}
	var wanted func(*sshsig.Key) bool
	if with == "agent" {
		m, err := getApprovers(ctx, s)
		if err != nil {
			return nil, nil, err
		}
		keys := map[string]bool{}
		for _, p := range m.GetApprovers() {
			for _, line := range p.GetKeys() {
				keys[line] = true
			}
		}
		wanted = func(k *sshsig.Key) bool { return keys[k.String()] }
	} else {
		b, err := readSmall(with)
		if err != nil {
			return nil, nil, err
		}
		own, err := sshsig.ParseAuthorizedKey(string(b))
		if err != nil {
			return nil, nil, err
		}
		wanted = own.Equal
	}
	path := os.Getenv("SSH_AUTH_SOCK")
	if path == "" {
		return nil, nil, usagef("there is no ssh-agent here: SSH_AUTH_SOCK is not set").withNext("Name a key's file, or sign with ssh-keygen: rmsctl operation show ID --to-sign FILE")
	}
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if err != nil {
		return nil, nil, usagef("the ssh-agent does not answer: %v", err)
	}
	all, err := sshsig.Agent(conn)
	if err != nil {
		return nil, nil, errors.Join(err, conn.Close())
	}
	var found []*sshsig.Signer
	for _, signer := range all {
		if wanted(signer.Key()) {
			found = append(found, signer)
		}
	}
	if len(found) != 1 {
		_ = conn.Close()
		return nil, nil, usagef("the ssh-agent has %d keys that are an approver's, of %d", len(found), len(all)).
			withNext("See: ssh-add -l and rmsctl approver list; with --sign KEY.pub you name one of several")
	}
	return found[0], func() { _ = conn.Close() }, nil
}

// passphrase asks for a key's passphrase, without showing it.
func (a *app) passphrase(file string) ([]byte, error) {
	f, ok := a.stdin.(*os.File)
	if !ok || !isTerminal(f) {
		return nil, usagef("%s is locked, and there is nobody to ask for its passphrase", file).withNext("Use the agent: ssh-add, then --sign agent")
	}
	fmt.Fprintf(a.stderr, "passphrase of %s: ", clean(file))
	word, err := term.ReadPassword(int(f.Fd()))
	fmt.Fprintln(a.stderr)
	return word, err
}

// writeToSign writes what an approver signs with ssh-keygen.
func (a *app) writeToSign(ctx context.Context, s *server, o *rmsv1.Operation, path string) error {
	if o.GetQuorum() == nil {
		return usagef("this takes no signatures")
	}
	d, err := a.dualOf(ctx, s, o)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return vocab.Errorf(vocab.ReasonOutputExists, "%s exists and is not overwritten", path).WithNext("Remove it, or choose another name")
	}
	if err != nil {
		return err
	}
	_, err = f.Write(d.signed)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	a.next("ssh-keygen -Y sign -n %s -f KEY %s; rmsctl operation approve %s --signature %s.sig", operation.ApprovalNamespace, shellWord(path), lastPart(o.GetName()), shellWord(path))
	return nil
}

// neededWord says whose approval an operation needs.
func neededWord(o *rmsv1.Operation) string {
	if q := o.GetQuorum(); q != nil {
		s := fmt.Sprintf("%d signed approvals by the tenant's approvers", max(o.GetNeededApprovals(), q.GetNeededNow()))
		if q.GetNeededNow() != o.GetNeededApprovals() {
			s += fmt.Sprintf(" (%d were needed when it was asked for, %d are now: it takes both)", o.GetNeededApprovals(), q.GetNeededNow())
		}
		return s
	}
	return "approval by " + approvers(o)
}

// showDual adds to a table what is under dual control.
func showDual(t *table, o *rmsv1.Operation, d *dual) {
	words := append(o.GetApproversUpdate().GetChanges(), o.GetCustodyLower().GetChanges()...)
	if d != nil {
		words = d.words
	}
	for i, w := range words {
		t.row(map[bool]string{true: "would do", false: "  and"}[i == 0], w)
	}
	for i, b := range o.GetBasis() {
		t.row(map[bool]string{true: "rests on", false: "  and"}[i == 0], b)
	}
	q := o.GetQuorum()
	if q == nil {
		return
	}
	signed := fmt.Sprintf("%d of %d", q.GetCountingNow(), q.GetNeededNow())
	if q.GetNeededNow() != o.GetNeededApprovals() || q.GetCounting() != q.GetCountingNow() {
		signed += fmt.Sprintf(" by the approvers now, %d of %d by those when it was asked for", q.GetCounting(), o.GetNeededApprovals())
	}
	t.row("signatures", signed)
	if o.GetState() == rmsv1.Operation_STATE_AWAITING_APPROVAL {
		var left []string
		for _, p := range q.GetLeft() {
			left = append(left, shortPrincipal(p))
		}
		t.row("can sign", or(strings.Join(left, ", "), "nobody who has not"))
	}
}

// approvalWord is how an approval is shown.
func approvalWord(p *rmsv1.Operation_Approval) string {
	s := p.GetApprover() + " " + showStamp(p.GetApproveTime()) + ", event " + p.GetEvent()
	if p.GetKeyFingerprint() != "" {
		s += ", " + p.GetKeyFingerprint()
	}
	if p.GetVoid() != "" {
		s += "; does not count: " + p.GetVoid()
	}
	return s
}
