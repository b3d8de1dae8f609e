package rmsctl

import (
	"context"
	"fmt"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

func (a *app) keyInventoryCommand() *cobra.Command {
	var verify bool
	var limit int
	c := &cobra.Command{
		Use:   "inventory [[KEY] [vN] | gN]",
		Short: "What depends on each key version and generation, and whether it can be destroyed",
		Long: `Without an argument: every version of every key and every generation, with what
depends on it, when it was last used, and whether it is safe to destroy, or exactly
why not. Last uses are noted every few minutes and when the service ends: after a
crash those of the last minutes are not known.

With a key, a version or a generation: the documents that only it opens, oldest
first, with their owners. A version alone, such as v2, is one of the active key.

--verify also reads every license and compares what is counted by with it; if they
do not agree, it says how and exits with 9.`,
		Example: `  rmsctl key inventory
  rmsctl key inventory root v2 --limit 0
  rmsctl key inventory --verify`,
		Args: cobra.MaximumNArgs(2),
		RunE: a.online(func(ctx context.Context, s *server, args []string) error {
			if len(args) > 0 {
				if verify {
					return usagef("--verify is about all of it: leave out %s", strings.Join(args, " "))
				}
				return a.dependants(ctx, s, args, limit)
			}
			inv, err := s.Custody().GetInventory(ctx, &rmsv1.GetInventoryRequest{Parent: s.parent(), Verify: verify})
			if err != nil {
				return err
			}
			if err := a.emit(inv, func() { a.showInventory(inv, verify) }); err != nil {
				return err
			}
			if n := len(inv.GetProblems()); n > 0 {
				return &exitError{code: exitVerification, err: vocab.Errorf(vocab.ReasonStoreDamaged, "what the inventory counts by does not agree with the licenses: %d differences", n).
					WithNext("Destroy nothing; have the operator stop the daemon, run rmsd fsck, and restore the store from a backup")}
			}
			return nil
		}),
	}
	c.Flags().BoolVar(&verify, "verify", false, "read every license and compare with it what is counted by")
	c.Flags().IntVar(&limit, "limit", 100, "of what depends on something, at most so many; 0: all")
	return a.formatFlag(c)
}

func (a *app) showInventory(inv *rmsv1.Inventory, verified bool) {
	t := newTable(a.stdout, "KEY", "VERSION", "STATE", "ORIGIN", "GENERATIONS", "STRICT LICENSES", "LAST USED", "SAFE TO DESTROY")
	for _, v := range inv.GetVersions() {
		t.row(or(lastPart(v.GetKey()), "(not registered)"), version(v.GetVersion().GetVersion()), stateOr(v.GetVersion().GetState(), "unknown"),
			versionStory(v.GetVersion()), generationList(v.GetGenerations()), group(v.GetStrictLicenses()), a.ago(v.GetLastUseTime()), safeWord(v.GetDestruction()))
	}
	t.flush()
	a.outf("")
	t = newTable(a.stdout, "GENERATION", "STATE", "KEY", "VERSION", "LICENSES", "OPENED", "LAST USED", "SAFE TO DESTROY")
	for _, l := range inv.GetLines() {
		if l.GetGeneration() == "" {
			continue // strict licenses, which the versions have
		}
		t.row(fmt.Sprintf("g%d", l.GetNumber()), stateOr(l.GetState(), "unknown"), lastPart(l.GetKey()), version(l.GetKeyVersion()),
			group(l.GetLicenses()), showStamp(l.GetCreateTime()), a.ago(l.GetLastUseTime()), safeWord(l.GetDestruction()))
	}
	t.flush()
	for _, v := range inv.GetVersions() {
		if note := v.GetDestruction().GetNote(); note != "" {
			a.outf("%s %s: %s", lastPart(v.GetKey()), version(v.GetVersion().GetVersion()), note)
		}
	}
	if inv.GetEffectiveDelay() != nil {
		a.outf("custody %s: after the custodian refuses, content may still open for %s",
			custodyName(inv.GetCustodyMode()), showDuration(inv.GetEffectiveDelay().AsDuration()))
	}
	if verified {
		for _, p := range inv.GetProblems() {
			a.outf("DIFFERS: %s", p)
		}
		if len(inv.GetProblems()) == 0 {
			a.outf("verified: %s records agree with what is counted by", group(inv.GetVerifiedRecords()))
		}
	}
}

func stateOr(s rmsv1.Key_State, none string) string {
	if s == rmsv1.Key_STATE_UNSPECIFIED {
		return none
	}
	return strings.ReplaceAll(words("STATE_", s.String()), "_", "-")
}

// versionStory is where a version comes from, when, and who said that it was
// meant.
func versionStory(v *rmsv1.KeyVersion) string {
	story := versionOrigin(v)
	if v.GetCreateTime() != nil {
		story += " " + showDay(v.GetCreateTime())
	}
	if v.GetClaimedBy() != "" {
		story += " by " + v.GetClaimedBy()
	}
	if v.GetAlarmed() {
		story += ", NOBODY ASKED FOR IT"
	}
	return story
}

func generationList(numbers []uint32) string {
	const most = 6
	var out []string
	for i, n := range numbers {
		if i == most {
			out = append(out, fmt.Sprintf("and %d more", len(numbers)-most))
			break
		}
		out = append(out, fmt.Sprintf("g%d", n))
	}
	return or(strings.Join(out, " "), "–")
}

// safeWord says whether something can be destroyed: yes, yes from a day, or no,
// with every reason.
func safeWord(d *rmsv1.Inventory_Destruction) string {
	var all []string
	for _, h := range d.GetHindrances() {
		if h.GetKind() == rmsv1.Inventory_Hindrance_KIND_DESTROYED {
			return "destroyed"
		}
		text := h.GetText()
		if d.GetSafeTime() != nil && h.GetKind() == rmsv1.Inventory_Hindrance_KIND_SOAK {
			text = "soak"
		}
		all = append(all, text)
	}
	switch {
	case d.GetSafe():
		return "yes"
	case d.GetSafeTime() != nil:
		return "yes from " + showDay(d.GetSafeTime()) + " (" + strings.Join(all, "; ") + ")"
	}
	return "no: " + strings.Join(all, "; ")
}

var versionAlone = regexp.MustCompile(`^v[1-9][0-9]*$`)

// dependants lists the documents that only a key, a version or a generation
// opens.
func (a *app) dependants(ctx context.Context, s *server, args []string, limit int) error {
	if len(args) == 1 && versionAlone.MatchString(args[0]) {
		k, err := keyOrActive(ctx, s, nil)
		if err != nil {
			return err
		}
		args = []string{lastPart(k.GetName()), args[0]}
	}
	name, what, err := keyTarget(s, args)
	if err != nil {
		return err
	}
	list, more, err := collect(limit, func(size int32, token string) ([]*rmsv1.ListDependantsResponse_Dependant, string, error) {
		page, err := s.Custody().ListDependants(ctx, &rmsv1.ListDependantsRequest{Name: name, PageSize: size, PageToken: token})
		return page.GetDependants(), page.GetNextPageToken(), err
	})
	if err != nil {
		return err
	}
	err = a.emit(messages(list), func() {
		t := newTable(a.stdout, "DOCUMENT", "OWNER", "PUBLISHED", "OPENED BY", "STATE")
		owners := map[string]bool{}
		for _, d := range list {
			opener, state := targetWord(d.GetKeyVersion()), "in force"
			if d.GetGeneration() > 0 {
				opener = fmt.Sprintf("generation g%d, %s", d.GetGeneration(), opener)
			}
			if d.GetRevoked() {
				state = "revoked"
			}
			owners[d.GetOwner()] = true
			t.row(lastPart(d.GetLicense()), shortPrincipal(d.GetOwner()), showStamp(d.GetPublishTime()), opener, state)
		}
		t.flush()
		a.outf("%s opens %s documents of %s owners", what, group(int64(len(list))), group(int64(len(owners))))
	})
	if err == nil && more {
		a.sayf("there are more; --limit 0 lists all")
	}
	return err
}

// targetWord is how people say the name of a key, a version or a generation.
func targetWord(name string) string {
	parts := strings.Split(name, "/")
	switch {
	case len(parts) == 6 && parts[4] == "versions":
		return parts[3] + " v" + parts[5]
	case len(parts) == 4 && parts[2] == "generations":
		return "generation g" + parts[3]
	case len(parts) == 4:
		return "key " + parts[3]
	}
	return name
}
