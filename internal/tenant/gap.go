package tenant

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// Gap is what events say that are not in a restored store: what they took away
// from somebody, to be done again, and what people have to look at. Its memory
// grows with what was taken away, not with the number of events.
type Gap struct {
	// from and to are the positions of the first event and after the last, whole
	// says that they are proven to be all that are missing.
	from, to uint64
	whole    bool
	facts    map[string]*fact // by what they are about: the last word counts
	// counts are of what there may be too much of to name each.
	counts map[string]int
	// looks are the last events about something that has to be looked at.
	looks map[string]*audit.Event
}

// fact is one thing that was taken away.
type fact struct {
	event *audit.Event
	// again does it again and returns what it did, in words; nothing if it is so
	// already, errLeft if it cannot.
	again func(a *again, tx store.Tx, was *audit.Event) (string, error)
	// back says that the last word was to give it back: in the backup it may be
	// taken still, and stays so.
	back bool
}

func (f *fact) text() string { return lostLine(f.event) }

// lostLine says in a line what an event was.
func lostLine(e *audit.Event) string {
	about := e.Target
	switch {
	case !e.Content.IsZero():
		about = "license " + e.Content.String()
	case about == "" && !e.Template.IsZero():
		about = "template " + e.Template.String()
	case e.KeyVersion > 0 && strings.HasPrefix(about, record.PrefixKeys):
		about = fmt.Sprintf("%s v%d", about, e.KeyVersion)
	}
	line := fmt.Sprintf("%s %s, %s by %s", e.Kind, about, e.Time.UTC().Format(time.RFC3339), byWhom(e))
	if e.Detail != "" {
		line += ": " + e.Detail
	}
	return line
}

// NewGap returns a gap of no events, which begins at a position.
func NewGap(from uint64) *Gap {
	return &Gap{from: from, to: from, facts: map[string]*fact{}, counts: map[string]int{}, looks: map[string]*audit.Event{}}
}

// Prove notes that the events are proven to be all that are missing.
func (g *Gap) Prove() { g.whole = true }

// Whole reports whether the events are proven to be all that are missing. No gap
// is not whole.
func (g *Gap) Whole() bool { return g != nil && g.whole }

// Add takes the next event of the log.
func (g *Gap) Add(e *audit.Event) {
	g.to++
	if e.Reason != "" && e.Kind != audit.KindAlarm {
		return // a refusal changed nothing
	}
	switch e.Kind {
	case audit.KindLicenseRevoked, audit.KindLicenseRestored:
		g.takes("license/"+e.Content.String(), e, e.Kind == audit.KindLicenseRestored, revokeAgain)
	case audit.KindLicensesRevoked:
		g.takes(e.Target, e, false, ruleAgain)
	case audit.KindLicensesRestored:
		g.takes(e.Target, e, true, nil)
	case audit.KindPrincipalDisabled, audit.KindPrincipalEnabled:
		g.takes(e.Target, e, e.Kind == audit.KindPrincipalEnabled, disableAgain)
	case audit.KindTemplateDeleted, audit.KindTemplateUndeleted:
		g.takes("template/"+e.Template.String(), e, e.Kind == audit.KindTemplateUndeleted, deletedAgain)
		if e.Kind == audit.KindTemplateUndeleted {
			g.looks["template/"+e.Template.String()] = e
		}
	case audit.KindKeySuspended, audit.KindKeyResumed, audit.KindKeyCompromised:
		g.takes(fmt.Sprintf("key/%d/%s", e.KeyVersion, e.Target), e, e.Kind == audit.KindKeyResumed, stateAgain)
	case audit.KindKeyDestroyed:
		g.takes(fmt.Sprintf("key/%d/%s", e.KeyVersion, e.Target), e, false, destroyedAgain)
	case audit.KindBackupMade:
		g.takes(e.Target, e, false, backupAgain)
	case audit.KindBackupChanged:
		if strings.HasPrefix(e.Detail, "forgotten") {
			g.takes(e.Target, e, true, nil)
		}
	case audit.KindPublished:
		g.counts["documents that were protected, which nobody can open any more (LICENSE_UNKNOWN)"]++
	case audit.KindOperationRequested:
		g.counts["operations that were asked for, which are gone"]++
	case audit.KindGenerationRewrapped:
		g.counts["rewraps of generations: the restored wraps need the key versions they had before"]++
	case audit.KindGenerationCreated:
		g.counts["generations that were made, which are gone"]++
	case audit.KindReleased, audit.KindRefused, audit.KindRead, audit.KindTenantCreated, audit.KindSignInChanged, audit.KindSignerCertified,
		audit.KindBundlePublished, audit.KindOperationApproved, audit.KindOperationRejected, audit.KindOperationResumed, audit.KindOperationSucceeded,
		audit.KindOperationFailed, audit.KindOperationCancelled, audit.KindOperationPaused, audit.KindOperationExpired, audit.KindRecoveryAnnounced,
		audit.KindAlarm, audit.KindServiceStarted, audit.KindServiceStopped:
		// Nothing that the store is without.
	case audit.KindLicenseEdited:
		g.looks["license/"+e.Content.String()] = e
	default:
		// Templates, settings, roles, groups, keys, and what only newer versions
		// know: what it was is not in the event.
		g.looks[fmt.Sprintf("%d/%s/%s/%s", e.Kind, e.Target, e.Template, e.Content)] = e
	}
}

func (g *Gap) takes(about string, e *audit.Event, back bool, again func(*again, store.Tx, *audit.Event) (string, error)) {
	g.facts[about] = &fact{event: e, again: again, back: back}
}

// sorted returns the facts that were not given back, oldest first.
func (g *Gap) sorted() (out []*fact) {
	for _, f := range g.facts {
		if !f.back {
			out = append(out, f)
		}
	}
	slices.SortFunc(out, func(a, b *fact) int { return a.event.ID.Compare(b.event.ID) })
	return out
}

// eachLine says what people have to look at, of events only those about what is
// there.
func (g *Gap) eachLine(there func(*audit.Event) (bool, error), say func(string)) error {
	for _, what := range slices.Sorted(maps.Keys(g.counts)) {
		say(fmt.Sprintf("%s: %d", what, g.counts[what]))
	}
	looks := slices.Collect(maps.Values(g.looks))
	for _, f := range g.facts {
		if f.back && f.event.Kind != audit.KindBackupChanged && f.event.Kind != audit.KindTemplateUndeleted {
			looks = append(looks, f.event)
		}
	}
	slices.SortFunc(looks, func(a, b *audit.Event) int { return a.ID.Compare(b.ID) })
	for _, e := range looks {
		ok, err := there(e)
		if err != nil {
			return err
		}
		if ok {
			say(lostLine(e))
		}
	}
	return nil
}

// revokeAgain revokes a license.
func revokeAgain(a *again, tx store.Tx, was *audit.Event) (string, error) {
	l, err := record.GetLicense(tx, a.t.id, was.Content)
	if err != nil || l == nil || l.Tombstone != 0 || l.Revoked != nil {
		return "", err // one that was made after the backup opens for nobody
	}
	next := *l
	next.Revoked = &record.Revocation{At: record.ToMillis(was.Time), By: byWhom(was), Reason: was.Detail}
	return "license " + was.Content.String() + " revoked", a.t.putLicense(tx, &next, a.event(audit.KindLicenseRevoked, was))
}

// put writes a resource again, unless one is there.
func (a *again) put(tx store.Tx, name string, e *audit.Event, body []byte) (wrote bool, err error) {
	e.Target = name
	if now, err := a.t.resource(tx, name); err != nil || now != nil {
		return false, err
	}
	if _, err := a.t.putResource(tx, name, e, func(store.Reader, *record.Resource, *audit.Event) ([]byte, error) { return body, nil }); err != nil {
		return false, err
	}
	return true, a.t.log.Append(tx, e)
}

// disableAgain disables a person or service.
func disableAgain(a *again, tx store.Tx, was *audit.Event) (string, error) {
	who, ok := strings.CutPrefix(was.Target, record.PrefixPrincipals)
	p, err := vocab.ParsePrincipal(who)
	if !ok || err != nil || canBeDisabled(p) != nil {
		return "", errLeft
	}
	body, err := (&record.Disabled{By: byWhom(was), Reason: was.Detail}).Encode()
	if err != nil {
		return "", err
	}
	wrote, err := a.put(tx, was.Target, a.event(audit.KindPrincipalDisabled, was), body)
	if err != nil || !wrote {
		return "", err
	}
	return p.String() + " disabled", nil
}

// ruleAgain puts a revocation by rule into force. The event says the conditions
// in words, and holds the hash of the rule: what the words are read as is the
// rule if its hash is that.
func ruleAgain(a *again, tx store.Tx, was *audit.Event) (string, error) {
	rule := ruleOfEvent(was)
	if rule == nil {
		return "", errLeft
	}
	return a.rule(tx, was, rule)
}

// deletedAgain revokes what follows a template that was deleted: to write the
// template's tombstone takes the tenant's signing key, which is not at hand.
func deletedAgain(a *again, tx store.Tx, was *audit.Event) (string, error) {
	head, err := record.GetTemplate(tx, a.t.id, was.Template)
	if err != nil || head == nil {
		return "", err
	}
	said, err := a.rule(tx, was, &record.RevocationRule{
		Rule: policy.RevocationRule{Template: was.Template}, By: byWhom(was),
		Reason: "template " + head.Slug + " was deleted, and a restore brought it back",
	})
	if err != nil {
		return "", err
	}
	a.open("delete template " + head.Slug + " again, and then take the rule back that revokes what follows it")
	return said, nil
}

func (a *again) rule(tx store.Tx, was *audit.Event, rule *record.RevocationRule) (string, error) {
	body, err := rule.Encode()
	if err == nil {
		_, err = record.DecodeRevocationRule(body)
	}
	if err != nil {
		return "", errLeft
	}
	e := a.event(audit.KindLicensesRevoked, was)
	e.Template = rule.Rule.Template
	wrote, err := a.put(tx, record.PrefixRevocations+e.ID.String(), e, body)
	if err != nil || !wrote {
		return "", err
	}
	return "revoked by rule " + e.ID.String() + ": " + rule.Rule.String(), nil
}

// ruleOfEvent reads the rule that an event made; nil if that cannot be.
func ruleOfEvent(e *audit.Event) *record.RevocationRule {
	for at, c := range e.Detail {
		if c != ':' || !strings.HasPrefix(e.Detail[at:], ": ") {
			continue
		}
		conditions, reason := e.Detail[:at], e.Detail[at+2:]
		parsed, ok := parseRule(conditions)
		if !ok {
			continue
		}
		for _, byOwner := range []bool{false, true} {
			rule := &record.RevocationRule{Rule: parsed, By: e.Principal.Name, Reason: reason, ByOwner: byOwner}
			body, err := rule.Encode()
			if err != nil {
				continue
			}
			s := &record.Resource{Name: e.Target, Revision: 1, Updated: record.ToMillis(e.Time), LastEvent: e.ID, Body: body}
			if state, err := s.State(); err == nil && state == e.State {
				return rule
			}
		}
	}
	return nil
}

// parseRule reads what [policy.RevocationRule.String] wrote.
func parseRule(text string) (r policy.RevocationRule, ok bool) {
	for part := range strings.SplitSeq(text, ", ") {
		var err error
		switch word, rest, _ := strings.Cut(part, " "); word {
		case "for":
			r.Principal, err = vocab.ParsePrincipal(rest)
		case "owner":
			r.Owner, err = vocab.ParsePrincipal(rest)
		case "template":
			r.Template, err = vocab.ParseTemplateUID(rest)
		case "published":
			when, at, _ := strings.Cut(rest, " ")
			var t time.Time
			t, err = time.Parse(time.RFC3339Nano, at)
			switch when {
			case "from":
				r.From = t
			case "before":
				r.Until = t
			default:
				return r, false
			}
		case "made":
			r.Lineage, err = vocab.ParseContentID(strings.TrimPrefix(rest, "from "))
		default:
			return r, false
		}
		if err != nil {
			return r, false
		}
	}
	return r, true
}

// stateAgain suspends a key, a version of one or a generation, or marks it as
// compromised.
func stateAgain(a *again, tx store.Tx, was *audit.Event) (string, error) {
	move, done := Suspend, keys.Suspended
	if was.Kind == audit.KindKeyCompromised {
		move, done = Compromise, keys.Compromised
	}
	var target KeyTarget
	var edit resourceEdit
	if number, ok := strings.CutPrefix(was.Target, record.PrefixGenerations); ok {
		n, err := strconv.ParseUint(number, 10, 32)
		if err != nil {
			return "", errLeft
		}
		target.Generation = uint32(n)
		edit = a.t.moveGeneration(target, move, "again, after a restore")
	} else {
		target.Key, target.Version = strings.TrimPrefix(was.Target, record.PrefixKeys), was.KeyVersion
		edit = a.t.moveKey(target, move, "again, after a restore")
	}
	e := a.event(was.Kind, was)
	e.Custodian, e.KeyVersion, e.Target = was.Custodian, was.KeyVersion, was.Target
	_, err := a.t.putResource(tx, e.Target, e, edit)
	switch vocab.ReasonOf(err) {
	case "":
		return target.String() + " " + done.String(), a.t.log.Append(tx, e)
	case vocab.ReasonKeyState:
		return "", nil // it is, or is worse
	case vocab.ReasonResourceNotFound:
		return "", errLeft // it came after the backup
	}
	return "", err
}

// destroyedAgain marks a key, a version or a generation as destroyed. Whether
// its custodian still has it, the next look finds out.
func destroyedAgain(a *again, tx store.Tx, was *audit.Event) (string, error) {
	const why = "again, after a restore"
	e := a.event(was.Kind, was)
	e.Custodian, e.KeyVersion, e.Target = was.Custodian, was.KeyVersion, was.Target
	what := was.Target
	edit := editKey(func(k *record.TenantKey) error {
		if was.KeyVersion > 0 && k.Version(was.KeyVersion) == nil {
			return noKey()
		}
		k.Versions = slices.Clone(k.Versions)
		if was.KeyVersion == 0 {
			k.State, k.Since, k.Why = uint8(keys.Destroyed), record.ToMillis(e.Time), why
		}
		for i := range k.Versions {
			if v := &k.Versions[i]; was.KeyVersion == 0 || v.Number == was.KeyVersion {
				v.State, v.Since, v.Why = uint8(keys.Destroyed), record.ToMillis(e.Time), why
			}
		}
		return nil
	})
	if strings.HasPrefix(was.Target, record.PrefixGenerations) {
		edit = editGeneration(func(g *record.Generation) error {
			g.State, g.Since, g.Why, g.Wrap = uint8(keys.Destroyed), record.ToMillis(e.Time), why, nil
			return nil
		})
	} else if was.KeyVersion > 0 {
		what = fmt.Sprintf("%s v%d", what, was.KeyVersion)
	}
	_, err := a.t.putResource(tx, e.Target, e, edit)
	switch vocab.ReasonOf(err) {
	case "":
		return what + " destroyed", a.t.log.Append(tx, e)
	case vocab.ReasonResourceNotFound:
		return "", errLeft
	}
	return "", err
}

// backupAgain notes a later backup: what it needs is not known, so it counts as
// one that needs everything there is.
func backupAgain(a *again, tx store.Tx, was *audit.Event) (string, error) {
	id, err := vocab.ParseBackupID(strings.TrimPrefix(was.Target, record.PrefixBackups))
	if err != nil {
		return "", errLeft
	}
	b := record.Backup{Created: record.ToMillis(was.Time), Recipients: []string{"not known any more"}}
	if b.LogSize, _, err = audit.Head(tx, a.t.id); err != nil {
		return "", err
	}
	if b.Needs, err = needsOf(tx, a.t.id); err != nil {
		return "", err
	}
	body, err := b.Encode()
	if err != nil {
		return "", err
	}
	wrote, err := a.put(tx, record.BackupName(id), a.event(audit.KindBackupMade, was), body)
	if err != nil || !wrote {
		return "", err
	}
	return "backup " + id.String() + " noted, kept until it is forgotten", nil
}
