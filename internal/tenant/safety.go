package tenant

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/vocab"
)

// Soak is how long nothing may have needed or used a key before it is destroyed:
// time for whoever misses something to say so. Approvers can do without it, for
// the one destruction that they approve.
const Soak = 30 * 24 * time.Hour

// HindranceKind is why something is not destroyed.
type HindranceKind int

// The kinds there are, as the contract numbers them.
const (
	HindranceActive      HindranceKind = iota + 1
	HindranceNewest                    // of its key: only the key as a whole can go
	HindranceLicenses                  // that need it
	HindranceGenerations               // that it wraps
	HindranceBackup                    // that needs it
	HindranceSoak                      // it was needed or used until lately
	HindranceDestroyed                 // already
)

// Despite reports whether approvers may do without it.
func (k HindranceKind) Despite() bool { return k == HindranceBackup || k == HindranceSoak }

// Hindrance is one reason not to destroy something.
type Hindrance struct {
	Kind HindranceKind
	Text string
	// Until is when it is over by itself; zero if it takes somebody.
	Until time.Time
}

// Safety says whether something can be destroyed: if nothing is in the way.
type Safety struct {
	Hindrances []Hindrance
	// Note is what whoever destroys it should know; may be empty.
	Note string

	left    record.Millis // when the last that depended on it left
	soakEnd time.Time     // when it has been unused for long enough
}

// Safe reports whether nothing is in the way.
func (s *Safety) Safe() bool { return len(s.Hindrances) == 0 }

// From is from when nothing will be, if time alone decides; else zero.
func (s *Safety) From() (from time.Time) {
	for _, h := range s.Hindrances {
		if h.Until.IsZero() {
			return time.Time{}
		}
		from = later(from, h.Until)
	}
	return from
}

// add notes that something is in the way.
func (s *Safety) add(kind HindranceKind, until time.Time, format string, args ...any) {
	s.Hindrances = append(s.Hindrances, Hindrance{kind, fmt.Sprintf(format, args...), until})
}

// without is what is left of s if approvers do without the soak period or the
// backups.
func (s *Safety) without(soak, backups bool) []Hindrance {
	return slices.DeleteFunc(slices.Clone(s.Hindrances), func(h Hindrance) bool {
		return h.Kind == HindranceSoak && soak || h.Kind == HindranceBackup && backups
	})
}

// soak adds the soak period, which counts from the latest of these times, if it
// is not over. While something needs the key, it has not begun.
func (s *Safety) soak(now time.Time, since ...time.Time) {
	var from time.Time
	for _, at := range since {
		from = later(from, at)
	}
	s.soakEnd = from.Add(Soak)
	s.addSoak(now)
}

func (s *Safety) addSoak(now time.Time) {
	needed := slices.ContainsFunc(s.Hindrances, func(h Hindrance) bool { return !h.Kind.Despite() })
	if !needed && now.Before(s.soakEnd) {
		s.add(HindranceSoak, s.soakEnd, "soak until %s", s.soakEnd.UTC().Format(time.DateOnly))
	}
}

// judge says of everything whether it can be destroyed.
func (inv *Inventory) judge(now time.Time) {
	for i := range inv.Generations {
		inv.Generations[i].Safety = inv.judgeGeneration(&inv.Generations[i], now)
	}
	for i := range inv.Versions {
		v := &inv.Versions[i]
		v.Safety = inv.judgeVersion(v, now)
	}
}

func (inv *Inventory) judgeGeneration(g *InventoryGeneration, now time.Time) (s Safety) {
	switch g.State { //nolint:exhaustive // the others are no reason: a suspended one opens nothing either
	case keys.Destroyed:
		s.add(HindranceDestroyed, time.Time{}, "destroyed")
		return s
	case keys.Active:
		s.add(HindranceActive, time.Time{}, "active")
	}
	s.licenses(g.Licenses)
	s.backups(inv.backupsWith(g.ID, now))
	s.soak(now, g.Created, deactivated(g.State, g.Since), g.left.Time(), g.LastUsed)
	return s
}

// deactivated is since when something was not used for what is new; a suspension
// or the mark of a compromise does not begin the soak period anew.
func deactivated(s keys.State, since time.Time) time.Time {
	if s == keys.Deactivated {
		return since
	}
	return time.Time{}
}

func (inv *Inventory) judgeVersion(v *InventoryVersion, now time.Time) (s Safety) {
	s.left = v.Safety.left
	k := inv.keys[v.Key]
	if v.State == keys.Destroyed {
		s.add(HindranceDestroyed, time.Time{}, "destroyed")
		return s
	}
	newest := k != nil && v.Number == k.RootLatest
	switch {
	case newest && keys.State(k.State) == keys.Active:
		s.add(HindranceActive, time.Time{}, "active")
	case newest:
		s.add(HindranceNewest, time.Time{}, "newest version: it goes with its key")
	}
	s.licenses(v.Strict)
	if len(v.Generations) > 0 {
		var names []string
		for _, n := range v.Generations {
			names = append(names, fmt.Sprintf("g%d", n))
		}
		what := plural(int64(len(names)), "generation") + " " + listed(names)
		if v.Cached > 0 {
			what += " with " + plural(v.Cached, "license")
		}
		s.add(HindranceGenerations, time.Time{}, "%s", what)
	}
	s.backups(inv.backupsOf(keys.VersionID{Custodian: v.Custodian, Version: v.Number}, now))
	s.soak(now, v.Seen.Time(), superseded(k, v.Number), s.left.Time(), v.LastUsed)
	switch {
	case v.Gone != 0:
		s.Note = "its custodian does not have it any more, and nobody destroyed it here"
	case v.Kind == keys.KindVault && olderThere(k, v.Number) != "":
		s.Note = "Vault destroys versions from the oldest on only: the key material stays there until " + olderThere(k, v.Number) + " can go too"
	}
	return s
}

// superseded is when a version stopped wrapping what is new: when the next one
// was seen, or when its key was deactivated.
func superseded(k *record.TenantKey, number uint32) (at time.Time) {
	if k == nil {
		return at
	}
	for i := range k.Versions {
		if next := &k.Versions[i]; next.Number > number {
			return next.Seen.Time()
		}
	}
	return deactivated(keys.State(k.State), k.Since.Time())
}

// olderThere names the versions below a version that are neither destroyed nor
// gone; "" if there are none.
func olderThere(k *record.TenantKey, number uint32) string {
	var names []string
	for i := range k.Versions {
		if v := &k.Versions[i]; v.Number < number && v.Gone == 0 && keys.State(v.State) != keys.Destroyed {
			names = append(names, fmt.Sprintf("v%d", v.Number))
		}
	}
	return listed(names)
}

// judgeKey says whether a key can be destroyed with all of its versions.
func (inv *Inventory) judgeKey(name string, now time.Time) (s Safety) {
	k := inv.keys[name]
	switch keys.State(k.State) {
	case keys.Destroyed:
		s.add(HindranceDestroyed, time.Time{}, "destroyed")
		return s
	case keys.Active:
		s.add(HindranceActive, time.Time{}, "active")
	default:
		if !inv.anotherActive(name) {
			s.add(HindranceActive, time.Time{}, "no other key is active")
		}
	}
	seen := map[string]bool{}
	for i := range inv.Versions {
		v := &inv.Versions[i]
		if v.Key != name {
			continue
		}
		s.soakEnd = later(s.soakEnd, v.Safety.soakEnd)
		for _, h := range v.Safety.Hindrances {
			switch h.Kind {
			case HindranceLicenses, HindranceGenerations:
				s.add(h.Kind, h.Until, "v%d: %s", v.Number, h.Text)
			case HindranceBackup:
				if !seen[h.Text] {
					seen[h.Text] = true
					s.Hindrances = append(s.Hindrances, h)
				}
			case HindranceActive, HindranceNewest, HindranceDestroyed, HindranceSoak:
			}
		}
	}
	s.addSoak(now)
	return s
}

func (inv *Inventory) anotherActive(name string) bool {
	for other, k := range inv.keys {
		if other != name && keys.State(k.State) == keys.Active {
			return true
		}
	}
	return false
}

func (s *Safety) licenses(n int64) {
	if n > 0 {
		s.add(HindranceLicenses, time.Time{}, "%s", plural(n, "license"))
	}
}

func (s *Safety) backups(list []BackupNeeds) {
	for i := range list {
		s.add(HindranceBackup, list[i].KeptUntil, "%s", list[i].String())
	}
}

// plural counts things in words, with commas: 1,204 licenses.
func plural(n int64, what string) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	if n != 1 {
		what += "s"
	}
	return s + " " + what
}

// listed joins names, and says how many more there are than fit a line.
func listed(names []string) string {
	const most = 8
	if len(names) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}

// inUse refuses to destroy what something is in the way of: KEY_IN_USE, with
// every reason.
func inUse(target KeyTarget, left []Hindrance) error {
	var all []string
	despite := true
	for _, h := range left {
		all = append(all, h.Text)
		despite = despite && h.Kind.Despite()
	}
	e := vocab.Errorf(vocab.ReasonKeyInUse, "%s is not destroyed: %s", target, strings.Join(all, "; "))
	if despite {
		return e.WithNext("Wait; or ask for it with despite_soak or despite_backups, which whoever approves it sees")
	}
	return e.WithNext("See what depends on it with rmsctl key inventory, and move that away first")
}
