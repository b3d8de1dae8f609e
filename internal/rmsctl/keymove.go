package rmsctl

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// moving is what the flags of key rewrap and key reseal say.
type moving struct {
	generation, version string
	maxRate             int32
	dryRun, detach      bool
}

func (f *moving) flags(c *cobra.Command) {
	flags := c.Flags()
	flags.BoolVar(&f.dryRun, "dry-run", false, "count what there is to do and change nothing")
	flags.BoolVar(&f.detach, "detach", false, "do not wait for the end")
	flags.Int32Var(&f.maxRate, "max-rate", 0, "at most so many a second; 0: as many as leave others alone")
}

func (a *app) keyRewrapCommand() *cobra.Command {
	var f moving
	c := &cobra.Command{
		Use:   "rewrap",
		Short: "Move what is wrapped by older versions, and by other keys, to the newest of the active key",
		Long: `Move what is wrapped by older versions of the active key, and by other keys, to the
newest version of the active one: generations, and the own generations of strict
documents. The keys themselves do not change, and with Vault they do not leave it.

A rotation and an activation start this by themselves. It gives way to people who
open documents, waits while the custodian is away, and goes on after a restart. When
it has succeeded, key inventory shows which older versions nothing depends on.

Files are not touched: each carries a copy of its content key as it was wrapped when
it was published. Those copies need the older versions until the files are protected
anew.`,
		Example: `  rmsctl key rewrap --dry-run
  rmsctl key rewrap --max-rate 200`,
		Args: cobra.NoArgs,
		RunE: a.online(func(ctx context.Context, s *server, _ []string) error {
			r, err := s.Custody().Rewrap(ctx, &rmsv1.RewrapRequest{Parent: s.parent(), ValidateOnly: f.dryRun, MaxRate: f.maxRate})
			if err != nil {
				return err
			}
			if err := a.emit(r, func() {
				a.outf("%s and %s to move to %s", countOf(int64(r.GetGenerations()), "generation"), countOf(r.GetLicenses(), "strict license"), keyVersionWord(r.GetKeyVersion()))
				for _, l := range r.GetLeft() {
					a.outf("left under %s (%s): %s and %s", keyVersionWord(l.GetKeyVersion()), l.GetReason(),
						countOf(int64(l.GetGenerations()), "generation"), countOf(l.GetLicenses(), "strict license"))
				}
			}); err != nil {
				return err
			}
			return a.followMove(ctx, s, r.GetOperation(), &f)
		}),
	}
	f.flags(c)
	return a.formatFlag(c)
}

func (a *app) keyResealCommand() *cobra.Command {
	var f moving
	c := &cobra.Command{
		Use:   "reseal (--generation N | --version KEY:N)",
		Short: "Seal content keys anew that are under a generation or version not to be relied on",
		Long: `Seal the content keys of licenses anew, under the active generation, that are under
a generation or under a version of a key which is not to be relied on any more, such
as one that is compromised. Strict licenses get a new generation of their own each.
Documents, rights and content keys stay the same.

What is compromised opens for nobody but this. What is suspended does not open for
this either: resume it, or mark it as compromised.

Files are not touched: each carries a copy of its content key under the generation it
was published with. Whoever has that generation's key and the file can open it, until
the document is protected anew. The events of the operation name each license.`,
		Example: `  rmsctl key reseal --generation 4 --dry-run
  rmsctl key reseal --version root:2`,
		Args: cobra.NoArgs,
		RunE: a.online(func(ctx context.Context, s *server, _ []string) error {
			name, err := f.target(s)
			if err != nil {
				return err
			}
			r, err := s.Custody().Reseal(ctx, &rmsv1.ResealRequest{Name: name, ValidateOnly: f.dryRun, MaxRate: f.maxRate})
			if err != nil {
				return err
			}
			if err := a.emit(r, func() { a.outf("%s to seal anew, away from %s", licenses(r.GetLicenses()), f.word()) }); err != nil {
				return err
			}
			err = a.followMove(ctx, s, r.GetOperation(), &f)
			if err == nil && r.GetOperation() != nil && !f.detach {
				a.sayf("not reached: the files of these documents, which carry what they were published with until they are protected anew")
				a.next("which documents: rmsctl audit search --operation %s", lastPart(r.GetOperation().GetName()))
			}
			return err
		}),
	}
	f.flags(c)
	c.Flags().StringVar(&f.generation, "generation", "", "the generation, by its number")
	c.Flags().StringVar(&f.version, "version", "", "the version of a key, as KEY:N")
	return a.formatFlag(c)
}

// target is the name of what licenses are moved away from.
func (f *moving) target(s *server) (string, error) {
	number := func(text string) (string, bool) {
		n, err := strconv.ParseUint(text, 10, 32)
		return strconv.FormatUint(n, 10), err == nil && n > 0
	}
	switch {
	case (f.generation == "") == (f.version == ""):
		return "", usagef("name a generation or a version of a key")
	case f.generation != "":
		n, ok := number(strings.TrimPrefix(f.generation, "g"))
		if !ok {
			return "", usagef("--generation: %q is not the number of a generation", f.generation).withNext("See: rmsctl key inventory")
		}
		return s.parent() + "/generations/" + n, nil
	}
	key, text, _ := strings.Cut(f.version, ":")
	n, ok := number(strings.TrimPrefix(text, "v"))
	if !ok || key == "" || strings.Contains(key, "/") {
		return "", usagef("--version: %q is not a version of a key, such as root:2", f.version).withNext("See: rmsctl key inventory")
	}
	return s.parent() + "/keys/" + key + "/versions/" + n, nil
}

func (f *moving) word() string {
	if f.generation != "" {
		return "g" + strings.TrimPrefix(f.generation, "g")
	}
	return f.version
}

// followMove says what comes next of an operation that was started, or watches it
// to its end.
func (a *app) followMove(ctx context.Context, s *server, o *rmsv1.Operation, f *moving) error {
	switch id := lastPart(o.GetName()); {
	case f.dryRun:
		a.sayf("nothing written")
		a.next("the same without --dry-run")
	case o == nil:
		a.sayf("there is nothing to do")
	case f.detach || a.format != formatTable:
		a.next("rmsctl operation watch %s", id)
	default:
		a.sayf("operation %s; ^C leaves it running: rmsctl operation watch %s", id, id)
		return a.watch(ctx, s, o.GetName())
	}
	return nil
}

// sayRewrap says that what was wrapped before is being moved to a key.
func (a *app) sayRewrap(k *rmsv1.Key) {
	if id := lastPart(k.GetRewrap()); id != "" {
		a.sayf("what was wrapped before moves to it: rmsctl operation watch %s", id)
	}
}

// keyVersionWord is what people call tenants/T/keys/K/versions/N.
func keyVersionWord(name string) string {
	key, n, _ := strings.Cut(name, "/versions/")
	return "version " + n + " of key " + lastPart(key)
}

func countOf(n int64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return group(n) + " " + what + "s"
}

// speed measures how fast an operation goes, as it is watched.
type speed struct {
	since time.Time
	done  int64 // then
	shown time.Time
}

// speedFrom is how long an operation is watched before its rate is believed, and
// speedOver over how long it is measured.
const speedFrom, speedOver = 3 * time.Second, 30 * time.Second

// see takes in an operation as it is at an instant, and says how many are done a
// second and how long the rest takes, once that is known.
func (v *speed) see(o *rmsv1.Operation, now time.Time) string {
	p := o.GetProgress()
	done := p.GetDone() + p.GetFailed()
	if o.GetState() != rmsv1.Operation_STATE_RUNNING || o.GetWaiting() != "" || v.since.IsZero() || done < v.done {
		v.since, v.done = now, done
		return ""
	}
	took := now.Sub(v.since)
	if took < speedFrom || done == v.done {
		return ""
	}
	rate := float64(done-v.done) / took.Seconds()
	left := time.Duration(float64(max(p.GetTotal()-done, 0)) / rate * float64(time.Second))
	if took > speedOver { // what was long ago says little of now
		v.since = now.Add(-speedOver / 2)
		v.done = done - int64(rate*(speedOver/2).Seconds())
	}
	return fmt.Sprintf(", %s a second, %s left", group(int64(rate+0.5)), roughly(left))
}

// due reports whether an operation that has gone on since it was last shown is to
// be shown again: every change of its state, and of its progress one a second.
func (v *speed) due(o, last *rmsv1.Operation, now time.Time) bool {
	same := last != nil && o.GetState() == last.GetState() && o.GetWaiting() == last.GetWaiting()
	if same && now.Sub(v.shown) < time.Second {
		return false
	}
	v.shown = now
	return true
}

// roughly is a time to go, as people say it.
func roughly(d time.Duration) string {
	switch {
	case d < 90*time.Second:
		return fmt.Sprintf("about %d s", int(d.Seconds()+0.5))
	case d < 90*time.Minute:
		return fmt.Sprintf("about %d min", int(d.Minutes()+0.5))
	}
	return fmt.Sprintf("about %d h", int(d.Hours()+0.5))
}
