package rmsctl

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/openrms/rms/internal/archive"
	"github.com/openrms/rms/internal/contexts"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// exportWhat says in a few words what a move asks for.
func exportWhat(e *rmsv1.Operation_TenantExport) string {
	if e.GetThaw() {
		if n := e.GetWholeArchives(); n > 0 {
			return "thaw the tenant, of which " + plural(int(n), "archive is", "archives are") + " whole: another service may answer for it"
		}
		return "thaw the tenant"
	}
	what := fmt.Sprintf("freeze the tenant, archives to key %x", e.GetRecipientFingerprint())
	if e.GetWithoutLost() {
		what += ", without generations that are lost"
	}
	return what
}

func (a *app) tenantExportCommand() *cobra.Command {
	var to, reason, ticket, operation, output string
	var withoutLost bool
	c := &cobra.Command{
		Use:   "export (--to FILE --reason WHY | --operation ID -o FILE)",
		Short: "Leave for another service: ask for the tenant to be frozen, then take an archive of it",
		Long: `Leave for another service, in two steps. First, with --to: ask that the tenant
be frozen, and that archives of it may be sealed to the key that whoever imports
it has made there (rmsd import-key). A tenant-admin approves that, after comparing
the key's fingerprint with its holder. From then on nothing is protected, opened
or edited here. Second, with --operation: take the archive. Each time another one
is made; the log has the hash of each.

A frozen tenant can be thawed: rmsctl tenant thaw.`,
		Example: `  rmsctl tenant export --to new-service.pub --reason "we run our own from August on" --ticket CASE-77
  rmsctl tenant export --operation 019a8c1e-77f1-7a31-8c1e-0123456789ab -o contoso.rmx`,
		Args: cobra.NoArgs,
	}
	flags := c.Flags()
	flags.StringVar(&to, "to", "", "the public half of the key that the archive is sealed to")
	flags.StringVar(&reason, "reason", "", "why; recorded for ever")
	flags.StringVar(&ticket, "ticket", "", "the case it belongs to; recorded for ever")
	flags.BoolVar(&withoutLost, "without-lost", false, "leave out generations that no custodian gives back any more")
	flags.StringVar(&operation, "operation", "", "the approved operation: take the archive")
	flags.StringVarP(&output, "output", "o", "", "the file for the archive; it must not exist")
	c.RunE = a.online(func(ctx context.Context, s *server, _ []string) error {
		switch {
		case (to == "") == (operation == ""):
			return usagef("say --to, to ask for an export, or --operation, to take the archive").withNext("See: rmsctl tenant export --help")
		case operation != "":
			return a.takeArchive(ctx, s, operation, output)
		}
		return a.requestExport(ctx, s, to, &rmsv1.RequestExportRequest{Parent: s.parent(), Reason: reason, Ticket: ticket, WithoutLost: withoutLost})
	})
	return c
}

func (a *app) requestExport(ctx context.Context, s *server, to string, req *rmsv1.RequestExportRequest) error {
	if req.GetReason() == "" {
		return usagef("--reason is missing: why the tenant leaves")
	}
	f, err := os.Open(to)
	if err != nil {
		return err
	}
	defer f.Close()
	key, public, err := archive.ReadRecipient(f)
	if err != nil {
		return err
	}
	req.Recipient = &rmsv1.HpkePublicKey{Kem: uint32(key.KEM()), PublicKey: public}
	o, err := s.Exit().RequestExport(ctx, req)
	if err != nil {
		return err
	}
	return a.askedToMove(o, "once it is approved: rmsctl tenant export --operation %s -o FILE", lastPart(o.GetName()))
}

// askedToMove shows what was asked for and ends with that it waits.
func (a *app) askedToMove(o *rmsv1.Operation, next string, args ...any) error {
	if err := a.emit(o, func() { a.outf("%s  %s", lastPart(o.GetName()), operationWhat(o)) }); err != nil {
		return err
	}
	a.next(next, args...)
	if o.GetState() == rmsv1.Operation_STATE_AWAITING_APPROVAL {
		return waitsFor(o)
	}
	return nil
}

func (a *app) takeArchive(ctx context.Context, s *server, operation, path string) error {
	name, err := operationName(s, operation)
	if err != nil {
		return err
	}
	if path == "" {
		return usagef("-o is missing: the file for the archive")
	}
	out, err := createOutput(path)
	if err != nil {
		return err
	}
	defer out.discard()
	end, err := receiveArchive(ctx, s, name, out)
	if err != nil {
		return err
	}
	if err := out.keep(); err != nil {
		return err
	}
	err = a.emit(end, func() {
		a.outf("%s  %s bytes, SHA-256 %x", path, group(end.GetBytes()), end.GetSha256())
		a.outf("log of %s events; %s of generations, sealed; signed by root %s", group(end.GetLogSize()), plural(int(end.GetSecrets()), "key", "keys"), rootText(end.GetRootKeyId()))
		if end.GetLost() > 0 {
			a.outf("WARNING %s of generations not in it: what is under them opens nowhere", plural(int(end.GetLost()), "key is", "keys are"))
		}
	})
	a.next("at the new service: rmsd import FILE --tenant %s --key FILE --root %s", s.Context.Tenant, rootText(end.GetRootKeyId()))
	return err
}

// rootText is a root's key ID as login shows it.
func rootText(id []byte) string {
	if len(id) != len(contexts.KeyID{}) {
		return "unknown"
	}
	return contexts.KeyID(id).String()
}

// receiveArchive writes an archive and checks that it is what the server says.
func receiveArchive(ctx context.Context, s *server, name string, w io.Writer) (*rmsv1.ExportTenantResponse_End, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // of whoever stops taking it
	stream, err := s.Exit().ExportTenant(ctx, &rmsv1.ExportTenantRequest{Name: name})
	if err != nil {
		return nil, err
	}
	sum := &summed{Hash: sha256.New()}
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil, vocab.Errorf(vocab.ReasonServerUnreachable, "the server ended the archive before its end").WithNext("Take it again")
		}
		if err != nil {
			return nil, err
		}
		switch p := r.GetPiece().(type) {
		case *rmsv1.ExportTenantResponse_Data:
			if _, err := io.MultiWriter(w, sum).Write(p.Data); err != nil {
				return nil, err
			}
		case *rmsv1.ExportTenantResponse_End_:
			if p.End.GetBytes() != sum.n || !bytes.Equal(p.End.GetSha256(), sum.Sum(nil)) {
				return nil, vocab.Errorf(vocab.ReasonStoreDamaged, "the archive that came is not the one that was sent").WithNext("Take it again")
			}
			return p.End, nil
		}
	}
}

// summed hashes and counts.
type summed struct {
	hash.Hash
	n int64
}

func (s *summed) Write(p []byte) (int, error) {
	s.n += int64(len(p))
	return s.Hash.Write(p)
}

func (a *app) tenantThawCommand() *cobra.Command {
	var reason, ticket string
	c := &cobra.Command{
		Use:   "thaw --reason WHY",
		Short: "Ask that a frozen tenant protect and open here again",
		Long: `Ask that a frozen tenant protect and open here again; a tenant-admin approves it.
If an archive of it is whole, somebody may have imported it: then two services
answer for one tenant, revocations at one are unknown to the other, and the log
says so as an alarm. See rmsctl tenant residence.`,
		Args: cobra.NoArgs,
		RunE: a.online(func(ctx context.Context, s *server, _ []string) error {
			if reason == "" {
				return usagef("--reason is missing: why the tenant stays")
			}
			o, err := s.Exit().RequestThaw(ctx, &rmsv1.RequestThawRequest{Parent: s.parent(), Reason: reason, Ticket: ticket})
			if err != nil {
				return err
			}
			return a.askedToMove(o, "it is thawed as soon as it is approved")
		}),
	}
	c.Flags().StringVar(&reason, "reason", "", "why; recorded for ever (needed)")
	c.Flags().StringVar(&ticket, "ticket", "", "the case it belongs to; recorded for ever")
	return a.formatFlag(c)
}

func (a *app) tenantResidenceCommand() *cobra.Command {
	return a.formatFlag(&cobra.Command{
		Use:   "residence",
		Short: "Show whether the tenant is frozen, which archives of it were made, and from where it came",
		Args:  cobra.NoArgs,
		RunE: a.online(func(ctx context.Context, s *server, _ []string) error {
			r, err := s.Exit().GetResidence(ctx, &rmsv1.GetResidenceRequest{Name: s.parent() + "/residence"})
			if err != nil {
				return err
			}
			return a.emit(r, func() { a.showResidence(r) })
		}),
	})
}

func (a *app) showResidence(r *rmsv1.Residence) {
	if r.GetFreezeTime() != nil {
		a.outf("frozen since %s by operation %s (event %s)", showStamp(r.GetFreezeTime()), lastPart(r.GetOperation()), r.GetFreezeEvent())
	} else {
		a.outf("not frozen")
	}
	if len(r.GetArrivals()) > 0 {
		t := newTable(a.stdout, "ARRIVED", "FROM", "ARCHIVE", "LOG", "ROOT", "SHA-256")
		for _, v := range r.GetArrivals() {
			t.row(showStamp(v.GetTime()), v.GetSource(), v.GetArchive(), group(v.GetLogSize()), rootText(v.GetRootKeyId()), fmt.Sprintf("%x", v.GetSha256()))
		}
		t.flush()
	}
	if len(r.GetArchives()) == 0 {
		return
	}
	t := newTable(a.stdout, "ARCHIVE", "BEGUN", "WHOLE", "LOG", "TO KEY", "SHA-256")
	for _, v := range r.GetArchives() {
		whole, sum, size := "no", "-", "-"
		if v.GetWholeTime() != nil {
			whole, sum, size = showStamp(v.GetWholeTime()), fmt.Sprintf("%x", v.GetSha256()), group(v.GetLogSize())
		}
		t.row(v.GetArchive(), showStamp(v.GetBeginTime()), whole, size, fmt.Sprintf("%x", v.GetRecipientFingerprint()), sum)
	}
	t.flush()
}
