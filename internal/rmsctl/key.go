package rmsctl

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

func (a *app) keyCommand() *cobra.Command {
	return noun("key", "The tenant's keys and what depends on them",
		a.keyListCommand(), a.keyShowCommand(), a.keyCustodiansCommand(), a.keyInventoryCommand(),
		a.keyCreateCommand(), a.keyImportCommand(), a.keyRegisterCommand(), a.keyProveCommand(), a.keyActivateCommand(),
		a.keyRotateCommand(), a.keyScheduleCommand(), a.keySyncCommand(),
		a.keySuspendCommand(), a.keyResumeCommand(), a.keyCompromiseCommand(), a.keyDestroyCommand(),
		a.keyRewrapCommand(), a.keyResealCommand(),
		a.keyEvidenceCommand(), a.keyRehearseCommand())
}

func (a *app) keyListCommand() *cobra.Command {
	return a.formatFlag(&cobra.Command{
		Use:   "list",
		Short: "List the tenant's keys as their custodians describe them now",
		Args:  cobra.NoArgs,
		RunE: a.online(func(ctx context.Context, s *server, _ []string) error {
			r, err := s.Custody().ListKeys(ctx, &rmsv1.ListKeysRequest{Parent: s.parent()})
			if err != nil {
				return err
			}
			return a.emit(messages(r.GetKeys()), func() {
				t := newTable(a.stdout, "KEY", "STATE", "CUSTODIAN", "TYPE", "VERSION", "UNWRAPS FROM", "ORIGIN", "WHERE")
				for _, k := range r.GetKeys() {
					t.row(lastPart(k.GetName()), stateSince(k.GetState(), "", ""), or(k.GetCustodianName(), enumWord(k.GetCustodian().String())), keyType(k),
						version(k.GetLatestVersion()), version(k.GetMinDecryptionVersion()), origin(k), k.GetLocation())
				}
				t.flush()
				for _, k := range r.GetKeys() {
					if k.GetFault() != "" {
						a.outf("%s: %s (%s)", lastPart(k.GetName()), k.GetFaultMessage(), k.GetFault())
					}
				}
			})
		}),
	})
}

// enumWord is the last word of an enum value: STATE_ACTIVE is "active".
func enumWord(s string) string { return strings.ToLower(s[strings.LastIndexByte(s, '_')+1:]) }

func version(n uint32) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("v%d", n)
}

// keyType shows what must hold of a tenant key, and shouts where it does not.
func keyType(k *rmsv1.Key) string {
	s := k.GetType()
	if s == "" {
		return "" // its custodian does not say
	}
	if k.GetDerived() {
		s += ", derived"
	} else {
		s += ", NOT DERIVED"
	}
	if k.GetExportable() {
		s += ", EXPORTABLE"
	}
	return s
}

// origin is where the newest version of a key comes from.
func origin(k *rmsv1.Key) string {
	for _, v := range k.GetVersions() {
		if v.GetVersion() == k.GetLatestVersion() && v.GetCreateTime() != nil {
			return versionOrigin(v) + " " + showDay(v.GetCreateTime())
		}
	}
	return ""
}

// ago is how long ago something was, roughly.
func (a *app) ago(ts *timestamppb.Timestamp) string {
	if ts == nil {
		return ""
	}
	d := a.now().Sub(ts.AsTime())
	switch {
	case d < 2*time.Second:
		return "now"
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s ago", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h ago", int(d.Hours()))
	}
	return fmt.Sprintf("%d d ago", int(d.Hours()/24))
}
