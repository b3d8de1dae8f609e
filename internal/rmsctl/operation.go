package rmsctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/openrms/rms/internal/operation"
	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

func (a *app) operationCommand() *cobra.Command {
	return noun("operation", "What takes time or a second person: see it, approve it, watch it, end it",
		a.operationListCommand(), a.operationShowCommand(), a.operationWatchCommand(), a.operationApproveCommand(), a.operationRejectCommand(),
		a.operationPauseCommand(), a.operationResumeCommand(), a.operationCancelCommand())
}

func operationName(s *server, id string) (string, error) {
	if _, err := vocab.ParseOperationID(id); err != nil {
		return "", usagef("%q is not the ID of an operation", id).withNext("See: rmsctl operation list")
	}
	return s.parent() + "/operations/" + id, nil
}

// onOperation is run for work on the operation that the first argument names.
func (a *app) onOperation(fn func(ctx context.Context, s *server, name string) error) func(*cobra.Command, []string) error {
	return a.online(func(ctx context.Context, s *server, args []string) error {
		name, err := operationName(s, args[0])
		if err != nil {
			return err
		}
		return fn(ctx, s, name)
	})
}

// enumOf reads a word as a value of an enum: "role-grant" as KIND_ROLE_GRANT.
func enumOf(values map[string]int32, prefix, flag, word string) (int32, error) {
	if word == "" {
		return 0, nil
	}
	n, ok := values[prefix+strings.ToUpper(strings.ReplaceAll(word, "-", "_"))]
	if !ok || n == 0 {
		return 0, usagef("--%s: there is no %q", flag, word)
	}
	return n, nil
}

// words is what people call a value of an enum: KIND_ROLE_GRANT is role-grant.
func words(prefix, name string) string {
	return strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(name, prefix), "_", "-"))
}

func kindWord(o *rmsv1.Operation) string  { return words("KIND_", o.GetKind().String()) }
func stateWord(o *rmsv1.Operation) string { return words("STATE_", o.GetState().String()) }

func (a *app) operationListCommand() *cobra.Command {
	var state, kind string
	var limit int
	c := &cobra.Command{
		Use:   "list",
		Short: "List the operations that concern you, newest first",
		Args:  cobra.NoArgs,
		RunE: a.online(func(ctx context.Context, s *server, _ []string) error {
			st, err := enumOf(rmsv1.Operation_State_value, "STATE_", "state", state)
			if err != nil {
				return err
			}
			k, err := enumOf(rmsv1.Operation_Kind_value, "KIND_", "kind", kind)
			if err != nil {
				return err
			}
			list, more, err := collect(limit, func(size int32, token string) ([]*rmsv1.Operation, string, error) {
				page, err := s.Operations().ListOperations(ctx, &rmsv1.ListOperationsRequest{
					Parent: s.parent(), PageSize: size, PageToken: token, State: rmsv1.Operation_State(st), Kind: rmsv1.Operation_Kind(k),
				})
				return page.GetOperations(), page.GetNextPageToken(), err
			})
			if err != nil {
				return err
			}
			err = a.emit(messages(list), func() {
				t := newTable(a.stdout, "OPERATION", "KIND", "STATE", "ASKED", "BY", "WHAT", "PROGRESS")
				for _, o := range list {
					t.row(lastPart(o.GetName()), kindWord(o), stateWord(o), showStamp(o.GetCreateTime()), o.GetRequester(), operationWhat(o), progressWord(o))
				}
				t.flush()
			})
			if err == nil && more {
				a.sayf("there are more; --limit 0 lists all")
			}
			return err
		}),
	}
	c.Flags().StringVar(&state, "state", "", "only those that are awaiting-approval, running, paused, succeeded, failed, cancelled, expired or rejected")
	c.Flags().StringVar(&kind, "kind", "", "only role-grant, template-update, license-update, recovery, transfer, reseal, approvers-update, custody-lower, rewrap, key-destroy, tenant-export or release")
	c.Flags().IntVar(&limit, "limit", 100, "at most so many; 0: all")
	return a.formatFlag(c)
}

// operationWhat says in a few words what an operation is for.
func operationWhat(o *rmsv1.Operation) string {
	switch p := o.GetParams().(type) {
	case *rmsv1.Operation_RoleGrant_:
		return words("ROLE_", p.RoleGrant.GetRole().String()) + " for " + shortPrincipal(p.RoleGrant.GetPrincipal())
	case *rmsv1.Operation_TemplateUpdate_:
		return fmt.Sprintf("%s, revision %d", lastPart(p.TemplateUpdate.GetTemplate()), p.TemplateUpdate.GetBaseRevision()+1)
	case *rmsv1.Operation_LicenseUpdate_:
		return "license " + lastPart(p.LicenseUpdate.GetLicense())
	case *rmsv1.Operation_Recovery_:
		return recoveryWhat(p.Recovery)
	case *rmsv1.Operation_Transfer_:
		return "everything of " + shortPrincipal(p.Transfer.GetFrom()) + " to " + shortPrincipal(p.Transfer.GetTo())
	case *rmsv1.Operation_Reseal_:
		return resealWhat(p.Reseal)
	case *rmsv1.Operation_Rewrap_:
		return "everything to the newest version of the active key"
	case *rmsv1.Operation_KeyDestroy_:
		return targetWord(p.KeyDestroy.GetTarget()) + ", for ever"
	case *rmsv1.Operation_TenantExport_:
		return exportWhat(p.TenantExport)
	case *rmsv1.Operation_ApproversUpdate_:
		if c := p.ApproversUpdate.GetChanges(); len(c) > 0 {
			return c[0]
		}
	case *rmsv1.Operation_CustodyLower_:
		what := strings.Join(p.CustodyLower.GetChanges(), ", ")
		if p.CustodyLower.GetTemplate() != "" {
			what = "template " + lastPart(p.CustodyLower.GetTemplate()) + ": " + what
		}
		return what
	case *rmsv1.Operation_Release_:
		return "the tenant, held since restore " + p.Release.GetEvent()
	}
	return ""
}

func resealWhat(r *rmsv1.Operation_Reseal) string {
	switch {
	case r.GetGeneration() != "":
		return "away from g" + lastPart(r.GetGeneration())
	case r.GetKeyVersion() != "":
		return "away from " + keyVersionWord(r.GetKeyVersion())
	case r.GetEverything():
		return "every license, to strict"
	}
	return "template " + lastPart(r.GetTemplate())
}

func recoveryWhat(r *rmsv1.Operation_Recovery) string {
	until := " until " + showStamp(r.GetUntil())
	switch s := r.GetScope().(type) {
	case *rmsv1.Operation_Recovery_License:
		return "license " + lastPart(s.License) + until
	case *rmsv1.Operation_Recovery_Owner:
		return "everything of " + shortPrincipal(s.Owner) + until
	case *rmsv1.Operation_Recovery_Template:
		return "everything under template " + lastPart(s.Template) + until
	}
	return ""
}

// progressWord is how far an operation is.
func progressWord(o *rmsv1.Operation) string {
	p := o.GetProgress()
	if p == nil {
		return ""
	}
	s := group(p.GetDone()) + "/" + group(p.GetTotal())
	if p.GetFailed() > 0 {
		s += ", " + group(p.GetFailed()) + " failed"
	}
	return s
}

// approvers says who may approve an operation.
func approvers(o *rmsv1.Operation) string {
	var names []string
	for i, r := range o.GetApproverRoles() {
		article := "a "
		if i == 0 {
			article = "another "
		}
		names = append(names, article+words("ROLE_", r.String()))
	}
	return strings.Join(names, " or ")
}

func (a *app) operationShowCommand() *cobra.Command {
	var toSign string
	c := &cobra.Command{
		Use:   "show ID [--to-sign FILE]",
		Short: "Show an operation: what is asked for, by whom, who approved it, how far it is",
		Long: `Show an operation: what is asked for, by whom, who approved it, how far it is.

With --to-sign an approver gets exactly what they would sign, for ssh-keygen:

  rmsctl operation show ID --to-sign op
  ssh-keygen -Y sign -n ` + operation.ApprovalNamespace + ` -f ~/.ssh/id_ed25519_sk op
  rmsctl operation approve ID --signature op.sig`,
		Args: cobra.ExactArgs(1),
		RunE: a.onOperation(func(ctx context.Context, s *server, name string) error {
			o, err := s.Operations().GetOperation(ctx, &rmsv1.GetOperationRequest{Name: name})
			if err != nil {
				return err
			}
			diff, err := a.draftDiff(ctx, s, o)
			if err != nil {
				return err
			}
			if err := a.emit(o, func() { a.showOperation(a.stdout, o, diff, nil) }); err != nil || toSign == "" {
				return err
			}
			return a.writeToSign(ctx, s, o, toSign)
		}),
	}
	c.Flags().StringVar(&toSign, "to-sign", "", "write what an approver signs to this file")
	return a.formatFlag(c)
}

// draftDiff says what a template that waits would change.
func (a *app) draftDiff(ctx context.Context, s *server, o *rmsv1.Operation) ([]string, error) {
	u := o.GetTemplateUpdate()
	if u.GetDraft() == nil {
		return nil, nil
	}
	draft, err := templateFrom(u.GetDraft())
	if err != nil {
		return nil, err
	}
	before := &policy.Template{Slug: draft.Slug, Offline: policy.OfflineMax}
	if u.GetBaseRevision() > 0 {
		m, err := getTemplate(ctx, s, draft.Slug, u.GetBaseRevision())
		if e := explain(err); e != nil && e.Reason == vocab.ReasonRoleRequired {
			return nil, nil // whoever does not administer policy sees the bare facts
		}
		if err != nil {
			return nil, err
		}
		if before, err = templateFrom(m); err != nil {
			return nil, err
		}
	}
	return a.templateDiff(before, draft), nil
}

// showOperation prints an operation for people; d is what its approver would
// sign, nil if nothing is to be signed.
func (a *app) showOperation(w io.Writer, o *rmsv1.Operation, diff []string, d *dual) {
	t := newTable(w)
	t.row("operation", lastPart(o.GetName()))
	t.row("kind", kindWord(o))
	t.row("what", operationWhat(o))
	state := strings.ReplaceAll(stateWord(o), "-", " ")
	if o.GetWaiting() != "" {
		state += ", but waits: " + o.GetWaiting()
	}
	t.row("state", state)
	t.row("asked by", o.GetRequester()+" "+showStamp(o.GetCreateTime()))
	if o.GetReason() != "" {
		t.row("reason", o.GetReason())
	}
	if o.GetTicket() != "" {
		t.row("ticket", o.GetTicket())
	}
	showDual(t, o, d)
	for _, p := range o.GetApprovals() {
		t.row("approved by", approvalWord(p))
	}
	if o.GetState() == rmsv1.Operation_STATE_AWAITING_APPROVAL {
		t.row("needs", neededWord(o)+", until "+showStamp(o.GetExpireTime()))
	}
	if p := progressWord(o); p != "" {
		t.row("progress", p)
	}
	for _, l := range o.GetKeyDestroy().GetInventory() {
		t.row("destroys", l)
	}
	if o.GetRecovery().GetNotify() {
		t.row("notice", "the licenses it covers are told")
	}
	if o.GetEndTime() != nil {
		t.row("ended", showStamp(o.GetEndTime()))
	}
	if o.GetFailure() != "" {
		t.row("failed", o.GetFailure()+reasonSuffix(o.GetMessage()))
	} else if o.GetMessage() != "" {
		t.row("result", o.GetMessage())
	}
	for _, e := range o.GetErrors() {
		t.row("not done", "license "+lastPart(e.GetLicense())+": "+e.GetReason())
	}
	t.flush()
	for _, l := range diff {
		fmt.Fprintf(w, "  %s\n", clean(l))
	}
	if u := o.GetLicenseUpdate(); u != nil {
		showLicenseUpdate(w, u)
	}
}

// showLicenseUpdate prints what a license would be.
func showLicenseUpdate(w io.Writer, u *rmsv1.Operation_LicenseUpdate) {
	t := newTable(w)
	t.row("  owner", u.GetOwner())
	if u.GetContentExpireTime() != nil {
		t.row("  expires", showStamp(u.GetContentExpireTime()))
	}
	for _, g := range u.GetAdHoc().GetGrants() {
		until := ""
		if g.GetUntil() != nil {
			until = " until " + showStamp(g.GetUntil())
		}
		t.row("  "+g.GetTo(), policy.Describe(rightsOf(g.GetRights()))+until)
	}
	t.flush()
}

func (a *app) operationApproveCommand() *cobra.Command {
	var with, file string
	c := &cobra.Command{
		Use:   "approve ID [--sign KEYFILE|agent | --signature FILE]",
		Short: "Say yes to what somebody else asks for, after showing it",
		Long: `Say yes to what somebody else asks for. It is shown first, and exactly what was
shown is approved: if it is not what is there any more, nothing is. Whoever asked for
it cannot approve it, with no account of theirs.

What is under dual control is approved by the tenant's approvers, each with a signature
by a key of their own: that of a private key's file, the one of the ssh-agent's keys that
is an approver's (agent) or that a .pub file names, or one that ssh-keygen made: see
rmsctl operation show --to-sign. What is signed is made of what is shown, not taken from
the service.`,
		Example: `  rmsctl operation approve 019a8c1e-77f1-7a31-8c1e-0123456789ab
  rmsctl operation approve 019a8c1e-77f1-7a31-8c1e-0123456789ab --sign ~/.ssh/id_ed25519`,
		Args: cobra.ExactArgs(1),
		RunE: a.onOperation(func(ctx context.Context, s *server, name string) error {
			o, err := s.Operations().GetOperation(ctx, &rmsv1.GetOperationRequest{Name: name})
			if err != nil {
				return err
			}
			diff, err := a.draftDiff(ctx, s, o)
			if err != nil {
				return err
			}
			req := &rmsv1.ApproveOperationRequest{Name: name, ParamsSha256: o.GetParamsSha256()}
			var d *dual
			switch {
			case with != "" && file != "":
				return usagef("--sign makes a signature and --signature brings one: give one of them")
			case o.GetQuorum() == nil && with+file != "":
				return usagef("this takes no signature")
			case o.GetQuorum() != nil && with+file == "":
				return usagef("this is under dual control, and its approval is signed").withNext("Add --sign KEYFILE, --sign agent or --signature FILE")
			case o.GetQuorum() != nil:
				if d, err = a.dualOf(ctx, s, o); err != nil {
					return err
				}
			}
			if a.format == formatTable {
				a.showOperation(a.stderr, o, diff, d)
			}
			if o.GetState() == rmsv1.Operation_STATE_AWAITING_APPROVAL {
				if err := a.confirm("Approve this"); err != nil {
					return err
				}
			}
			if d != nil {
				if req.Signature, err = a.signature(ctx, s, d, with, file); err != nil {
					return err
				}
			}
			done, err := s.Operations().ApproveOperation(ctx, req)
			if err != nil {
				return err
			}
			return a.decided(done, "approved")
		}),
	}
	c.Flags().StringVar(&with, "sign", "", "sign with this private key, or with the ssh-agent (agent, or a .pub file)")
	c.Flags().StringVar(&file, "signature", "", "a signature that ssh-keygen -Y sign made")
	return a.formatFlag(c)
}

func (a *app) operationRejectCommand() *cobra.Command {
	var reason string
	c := &cobra.Command{
		Use:   "reject ID [--reason WHY]",
		Short: "Say no to what somebody else asks for",
		Args:  cobra.ExactArgs(1),
		RunE: a.onOperation(func(ctx context.Context, s *server, name string) error {
			o, err := s.Operations().RejectOperation(ctx, &rmsv1.RejectOperationRequest{Name: name, Reason: reason})
			if err != nil {
				return err
			}
			return a.emit(o, func() { a.outf("%s  rejected", lastPart(name)) })
		}),
	}
	c.Flags().StringVar(&reason, "reason", "", "why; recorded, and shown to whoever asked")
	return a.formatFlag(c)
}

func (a *app) operationCancelCommand() *cobra.Command {
	var reason string
	c := &cobra.Command{
		Use:   "cancel ID [--reason WHY]",
		Short: "End an operation before it is done; what is done stays",
		Args:  cobra.ExactArgs(1),
		RunE: a.onOperation(func(ctx context.Context, s *server, name string) error {
			o, err := s.Operations().CancelOperation(ctx, &rmsv1.CancelOperationRequest{Name: name, Reason: reason})
			if err != nil {
				return err
			}
			return a.emit(o, func() { a.outf("%s  cancelled %s", lastPart(name), progressWord(o)) })
		}),
	}
	c.Flags().StringVar(&reason, "reason", "", "why; recorded")
	return a.formatFlag(c)
}

func (a *app) operationPauseCommand() *cobra.Command {
	return a.formatFlag(&cobra.Command{
		Use:   "pause ID",
		Short: "Hold up work on many licenses",
		Args:  cobra.ExactArgs(1),
		RunE: a.onOperation(func(ctx context.Context, s *server, name string) error {
			o, err := s.Operations().PauseOperation(ctx, &rmsv1.PauseOperationRequest{Name: name})
			if err != nil {
				return err
			}
			if err := a.emit(o, func() { a.outf("%s  paused %s", lastPart(name), progressWord(o)) }); err != nil {
				return err
			}
			a.next("go on: rmsctl operation resume %s", lastPart(name))
			return nil
		}),
	})
}

func (a *app) operationResumeCommand() *cobra.Command {
	return a.formatFlag(&cobra.Command{
		Use:   "resume ID",
		Short: "Let work that was paused go on",
		Args:  cobra.ExactArgs(1),
		RunE: a.onOperation(func(ctx context.Context, s *server, name string) error {
			o, err := s.Operations().ResumeOperation(ctx, &rmsv1.ResumeOperationRequest{Name: name})
			if err != nil {
				return err
			}
			if err := a.emit(o, func() { a.outf("%s  goes on %s", lastPart(name), progressWord(o)) }); err != nil {
				return err
			}
			a.next("rmsctl operation watch %s", lastPart(name))
			return nil
		}),
	})
}

func (a *app) operationWatchCommand() *cobra.Command {
	return a.formatFlag(&cobra.Command{
		Use:   "watch ID",
		Short: "Show an operation whenever it changes, until it has ended; ^C leaves it running",
		Args:  cobra.ExactArgs(1),
		RunE:  a.onOperation(a.watch),
	})
}

// watch follows an operation to its end, whose exit code says how that was.
func (a *app) watch(ctx context.Context, s *server, name string) error {
	stream, err := s.Operations().WatchOperation(ctx, &rmsv1.WatchOperationRequest{Name: name})
	if err != nil {
		return err
	}
	var last *rmsv1.Operation
	var v speed
	for {
		r, err := stream.Recv()
		switch {
		case ctx.Err() != nil:
			a.sayf("it goes on without you")
			return nil //nolint:nilerr // how a watch ends early
		case errors.Is(err, io.EOF) && last != nil:
			return a.ended(last)
		case err != nil:
			return err
		}
		now := a.now()
		due := v.due(r.GetOperation(), last, now)
		last = r.GetOperation()
		rate := v.see(last, now)
		if !due {
			continue
		}
		if err := a.line(last, func() {
			state := strings.ReplaceAll(stateWord(last), "-", " ")
			if last.GetWaiting() != "" {
				state += ", but waits: " + last.GetWaiting()
			}
			a.outf("%s  %s  %s%s", showTime(now.UTC().Truncate(time.Second)), state, progressWord(last), rate)
		}); err != nil {
			return err
		}
	}
}

// decided prints an operation after somebody decided about it, and says by the
// exit code if it came to nothing.
func (a *app) decided(o *rmsv1.Operation, did string) error {
	id := lastPart(o.GetName())
	if err := a.emit(o, func() {
		a.outf("%s  %s: %s is %s", id, did, kindWord(o), strings.ReplaceAll(stateWord(o), "-", " "))
	}); err != nil {
		return err
	}
	if o.GetState() == rmsv1.Operation_STATE_RUNNING && o.GetRecovery() == nil {
		a.next("rmsctl operation watch %s", id)
	}
	return a.ended(o)
}

// ended is the error for an operation that did not do what it was for, nil for
// one that did or still may.
func (a *app) ended(o *rmsv1.Operation) error {
	state := strings.ReplaceAll(stateWord(o), "-", " ")
	switch o.GetState() {
	case rmsv1.Operation_STATE_FAILED:
		return &exitError{code: exitConflict, err: vocab.Errorf(vocab.Reason(o.GetFailure()), "the operation failed: %s", o.GetMessage())}
	case rmsv1.Operation_STATE_CANCELLED, rmsv1.Operation_STATE_EXPIRED, rmsv1.Operation_STATE_REJECTED:
		return &exitError{code: exitConflict, err: fmt.Errorf("the operation was not done: it is %s%s", state, reasonSuffix(o.GetMessage()))} //nolint:err113 // a sentence for people
	case rmsv1.Operation_STATE_UNSPECIFIED, rmsv1.Operation_STATE_AWAITING_APPROVAL, rmsv1.Operation_STATE_RUNNING,
		rmsv1.Operation_STATE_PAUSED, rmsv1.Operation_STATE_SUCCEEDED:
	}
	return nil
}

// waitsFor is the error for an operation that waits for somebody's approval.
func waitsFor(o *rmsv1.Operation) error {
	e := vocab.Errorf(vocab.ReasonApprovalRequired, "this needs %s", neededWord(o)).
		WithNext("They see it with rmsctl operation show %s, and approve it until %s", lastPart(o.GetName()), showStamp(o.GetExpireTime()))
	e.Operation, _ = vocab.ParseOperationID(lastPart(o.GetName()))
	e.Event, _ = vocab.ParseEventID(o.GetEvent())
	return e
}
