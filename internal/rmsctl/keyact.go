package rmsctl

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// keyName is the name of a key in the API.
func keyName(s *server, key string) string { return s.parent() + "/keys/" + key }

// keyTarget reads what an act is about: KEY, KEY vN or gN. It returns the name
// in the API and how people say it.
func keyTarget(s *server, args []string) (name, said string, err error) {
	number := func(arg string, prefix byte) (uint64, bool) {
		if len(arg) < 2 || arg[0] != prefix {
			return 0, false
		}
		n, err := strconv.ParseUint(arg[1:], 10, 32)
		return n, err == nil && n > 0
	}
	if g, ok := number(args[0], 'g'); ok && len(args) == 1 {
		return fmt.Sprintf("%s/generations/%d", s.parent(), g), fmt.Sprintf("generation g%d", g), nil
	}
	if len(args) == 1 {
		return keyName(s, args[0]), "key " + args[0], nil
	}
	v, ok := number(args[1], 'v')
	if !ok {
		return "", "", usagef("%q is not a version of a key, such as v3", args[1])
	}
	return fmt.Sprintf("%s/versions/%d", keyName(s, args[0]), v), fmt.Sprintf("version v%d of key %s", v, args[0]), nil
}

func (a *app) keyCustodiansCommand() *cobra.Command {
	return a.formatFlag(&cobra.Command{
		Use:   "custodians",
		Short: "List where the tenant's keys can be, as the operator's file names them",
		Args:  cobra.NoArgs,
		RunE: a.online(func(ctx context.Context, s *server, _ []string) error {
			r, err := s.Custody().ListCustodians(ctx, &rmsv1.ListCustodiansRequest{Parent: s.parent()})
			if err != nil {
				return err
			}
			return a.emit(messages(r.GetCustodians()), func() {
				t := newTable(a.stdout, "CUSTODIAN", "KIND", "ADDRESS", "MOUNT", "CLUSTER")
				for _, c := range r.GetCustodians() {
					t.row(c.GetName(), enumWord(c.GetKind().String()), c.GetAddress(), c.GetMount(), c.GetClusterId())
				}
				t.flush()
			})
		}),
	})
}

func (a *app) keyShowCommand() *cobra.Command {
	return a.formatFlag(&cobra.Command{
		Use:   "show KEY",
		Short: "Show a key, its versions and where each comes from",
		Args:  cobra.ExactArgs(1),
		RunE: a.online(func(ctx context.Context, s *server, args []string) error {
			k, err := s.Custody().GetKey(ctx, &rmsv1.GetKeyRequest{Name: keyName(s, args[0])})
			if err != nil {
				return err
			}
			return a.emit(k, func() { a.printKey(k) })
		}),
	})
}

// printKey shows all of a key.
func (a *app) printKey(k *rmsv1.Key) {
	t := newTable(a.stdout)
	t.row("key", lastPart(k.GetName()))
	t.row("state", stateSince(k.GetState(), showStamp(k.GetStateTime()), k.GetStateReason()))
	t.row("custodian", k.GetCustodianName()+", "+enumWord(k.GetCustodian().String()))
	t.row("where", strings.TrimSpace(k.GetLocation()+" "+keysThere(k)))
	if k.GetType() != "" {
		t.row("type", keyType(k))
	}
	t.row("cluster", k.GetClusterId())
	if p := k.GetRotationPeriod(); p != nil {
		t.row("rotated", "every "+showDuration(p.AsDuration())+" by its custodian")
	}
	if k.GetFault() != "" {
		t.row("FAULT", k.GetFault()+": "+k.GetFaultMessage())
	}
	t.flush()
	versions := newTable(a.stdout, "VERSION", "STATE", "MADE", "ORIGIN", "MEANT BY")
	for _, v := range k.GetVersions() {
		meant := or(v.GetClaimedBy(), "nobody yet: rmsctl key sync "+lastPart(k.GetName()))
		if v.GetAlarmed() {
			meant = "NOBODY: see the alarm in the log"
		}
		versions.row(version(v.GetVersion()), stateSince(v.GetState(), showStamp(v.GetStateTime()), v.GetStateReason()), showStamp(v.GetCreateTime()),
			versionOrigin(v), meant)
	}
	versions.flush()
}

func stateSince(s rmsv1.Key_State, since, reason string) string {
	text := strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(s.String(), "STATE_")), "_", "-")
	if since != "" {
		text += " since " + since
	}
	return text + reasonSuffix(reason)
}

func keysThere(k *rmsv1.Key) string {
	if k.GetCustodian() != rmsv1.Key_CUSTODIAN_VAULT {
		return ""
	}
	return "(keys " + k.GetRootKey() + " and " + k.GetSignKey() + ")"
}

// versionOrigin says where a version of a key comes from.
func versionOrigin(v *rmsv1.KeyVersion) string {
	text := enumWord(v.GetOrigin().String())
	if v.GetOrigin() == rmsv1.KeyVersion_ORIGIN_UNSPECIFIED {
		text = "unknown"
	}
	p := v.GetProvenance()
	if p.GetForm() != "" && p.GetForm() != text {
		text += " from " + p.GetForm()
	}
	if p.GetKcv() != "" {
		text += ", KCV " + p.GetKcv()
	}
	if p.GetProven() {
		text += ", proven"
	}
	return text
}

func (a *app) keyRegisterCommand() *cobra.Command {
	req := &rmsv1.RegisterKeyRequest{}
	var stated string
	c := &cobra.Command{
		Use:   "register KEY --custodian NAME",
		Short: "Make a key at a custodian known, without using it yet",
		Long: `Make a key at a custodian known to the service: it is read, judged and tried, and
what it says is written down. Nothing is wrapped by it before it is activated.

The custodian is one that the operator's file of the tenant names (rmsctl key
custodians). In Vault the root key has the name KEY and the signing key the name
sign, unless you say otherwise; both must be there, made by a custody officer.`,
		Example: `  rmsctl key register rms-2027 --custodian contoso-vault`,
		Args:    cobra.ExactArgs(1),
		RunE: a.online(func(ctx context.Context, s *server, args []string) error {
			req.Parent, req.KeyId = s.parent(), args[0]
			if req.GetRootKey() == "" {
				req.RootKey = args[0]
			}
			var err error
			if req.Provenance, err = readProvenance(stated); err != nil {
				return err
			}
			k, err := s.Custody().RegisterKey(ctx, req)
			if err != nil {
				return err
			}
			if err := a.emit(k, func() {
				a.outf("%s is registered, pre-active: nothing is wrapped by it yet", args[0])
				a.printKey(k)
			}); err != nil {
				return err
			}
			a.next("rmsctl key activate %s", args[0])
			return nil
		}),
	}
	c.Flags().StringVar(&req.Custodian, "custodian", "", "what the operator's file calls its custodian")
	c.Flags().StringVar(&req.RootKey, "root-key", "", "name of the root key there (default: KEY)")
	c.Flags().StringVar(&req.SignKey, "sign-key", "", "name of the signing key there (default: sign)")
	c.Flags().StringVar(&stated, "provenance", "", "what key import wrote about it")
	_ = c.MarkFlagRequired("custodian")
	return a.formatFlag(c)
}

func (a *app) keyActivateCommand() *cobra.Command {
	var alone bool
	c := &cobra.Command{
		Use:   "activate KEY",
		Short: "Make a registered key the one that wraps and signs what is new",
		Long: `Make a registered key the one that wraps and signs what is new. The key before only
unwraps from then on, and stays needed until what it wraps has moved.

Clients follow by themselves: the key before signs the trust bundle that names the
next one. If its custodian cannot be reached, the activation is refused, unless
--without-previous says that every client shall sign in anew.`,
		Args: cobra.ExactArgs(1),
		RunE: a.online(func(ctx context.Context, s *server, args []string) error {
			k, err := s.Custody().ActivateKey(ctx, &rmsv1.ActivateKeyRequest{Name: keyName(s, args[0]), WithoutPrevious: alone})
			if err != nil {
				return err
			}
			if err := a.emit(k, func() { a.outf("%s is active: what is new is wrapped and signed by it", args[0]) }); err != nil {
				return err
			}
			a.sayRewrap(k)
			a.next("rmsctl key inventory")
			return nil
		}),
	}
	c.Flags().BoolVar(&alone, "without-previous", false, "even if the key before cannot sign the way; every client signs in anew")
	return a.formatFlag(c)
}

func (a *app) keySyncCommand() *cobra.Command {
	var stated string
	c := &cobra.Command{
		Use:   "sync KEY",
		Short: "Have the service look at a key now, because you acted on it",
		Long: `Have the service look at a key now, because you rotated or changed it at its
custodian. Versions that are new are taken for yours: if nobody says so within a
quarter of an hour, the log has an alarm. After a rotation of the active key, what
is new is under the new version when this returns.`,
		Args: cobra.ExactArgs(1),
		RunE: a.online(func(ctx context.Context, s *server, args []string) error {
			p, err := readProvenance(stated)
			if err != nil {
				return err
			}
			k, err := s.Custody().SyncKey(ctx, &rmsv1.SyncKeyRequest{Name: keyName(s, args[0]), Provenance: p})
			if err != nil {
				return err
			}
			if err := a.emit(k, func() { a.printKey(k) }); err != nil {
				return err
			}
			a.sayRewrap(k)
			return nil
		}),
	}
	c.Flags().StringVar(&stated, "provenance", "", "what key import or rotate wrote about the newest version")
	return a.formatFlag(c)
}

func (a *app) keySuspendCommand() *cobra.Command {
	return a.keyMoveCommand(&cobra.Command{
		Use:   "suspend KEY [vN] | gN",
		Short: "Stop the use of a key, of one of its versions or of a generation, at once",
		Long: `Stop the use of a key, of one of its versions or of a generation. Nothing under it
opens when this returns; what was unwrapped is gone from memory. It is undone by
resume, and no document is touched.

Use licenses that clients were allowed to keep open until they end: for content that
must stop at once there are strict custody and offline: 0.`,
		Example: `  rmsctl key suspend root v3 --reason "lost laptop of a custodian"`,
	}, func(ctx context.Context, s *server, name, reason string) (*rmsv1.KeyStateResponse, error) {
		return s.Custody().SuspendKey(ctx, &rmsv1.SuspendKeyRequest{Name: name, Reason: reason})
	}, "is suspended: nothing under it opens", "rmsctl key resume")
}

func (a *app) keyResumeCommand() *cobra.Command {
	return a.keyMoveCommand(&cobra.Command{
		Use:   "resume KEY [vN] | gN",
		Short: "End a suspension",
	}, func(ctx context.Context, s *server, name, reason string) (*rmsv1.KeyStateResponse, error) {
		return s.Custody().ResumeKey(ctx, &rmsv1.ResumeKeyRequest{Name: name, Reason: reason})
	}, "is in use again", "")
}

func (a *app) keyCompromiseCommand() *cobra.Command {
	return a.keyMoveCommand(&cobra.Command{
		Use:   "compromise KEY vN | KEY | gN",
		Short: "Mark a key, a version or a generation as compromised, for ever",
		Long: `Mark a key, one of its versions or a generation as compromised, for ever. Nothing
under it opens for anybody any more. A reseal moves its licenses to the active
generation; then they open again.`,
	}, func(ctx context.Context, s *server, name, reason string) (*rmsv1.KeyStateResponse, error) {
		_, what, _ := strings.Cut(name, s.parent()+"/")
		if err := a.confirm("Mark %s as compromised, which cannot be undone", what); err != nil {
			return nil, err
		}
		return s.Custody().CompromiseKey(ctx, &rmsv1.CompromiseKeyRequest{Name: name, Reason: reason})
	}, "is compromised: nothing under it opens", "")
}

// keyMoveCommand completes a command that changes the state of a key.
func (a *app) keyMoveCommand(
	c *cobra.Command, move func(ctx context.Context, s *server, name, reason string) (*rmsv1.KeyStateResponse, error), said, undo string,
) *cobra.Command {
	var reason string
	c.Args = cobra.RangeArgs(1, 2)
	c.RunE = a.online(func(ctx context.Context, s *server, args []string) error {
		name, what, err := keyTarget(s, args)
		if err != nil {
			return err
		}
		r, err := move(ctx, s, name, reason)
		if err != nil {
			return err
		}
		if err := a.emit(r, func() { a.outf("%s %s (event %s)", what, said, r.GetEvent()) }); err != nil {
			return err
		}
		if undo != "" {
			a.next("undo: %s %s", undo, strings.Join(args, " "))
		}
		return nil
	})
	c.Flags().StringVar(&reason, "reason", "", "why, for the log")
	return a.formatFlag(c)
}
