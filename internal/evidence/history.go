package evidence

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/operation"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/vocab"
)

// Line is an event, for people.
type Line struct {
	Time  time.Time `json:"time"`
	Event string    `json:"event"`
	Kind  string    `json:"kind"`
	About string    `json:"about,omitempty"`
	// Who did it; empty: the service.
	Who string `json:"who,omitempty"`
	// Reason is why it was refused, failed, or is an alarm.
	Reason string `json:"reason,omitempty"`
	Detail string `json:"detail,omitempty"`
	Alarm  bool   `json:"alarm,omitempty"`
}

// History tells the events in the order of the log.
func (v *Verified) History() (out []Line) {
	for _, entry := range v.Events {
		e := entry.Event
		l := Line{
			Time: e.Time, Event: e.ID.String(), Kind: e.Kind.String(), About: v.about(e), Who: e.Principal.Name,
			Reason: string(e.Reason), Detail: e.Detail, Alarm: e.Alarm,
		}
		if l.Who == "" {
			l.Who = e.Principal.Subject
		}
		if e.Actor.Name != "" {
			l.Who += " through " + e.Actor.Name
		}
		out = append(out, l)
	}
	return out
}

// about names what an event is about as people name it.
func (v *Verified) about(e *audit.Event) string {
	about := e.Target
	switch {
	case strings.HasPrefix(about, record.PrefixOperations):
		if s := v.resources[about]; s != nil {
			if o, err := operation.Decode(s.Body); err == nil {
				about = o.Kind.String() + " " + s.ID()
			}
		}
	case strings.HasPrefix(about, record.PrefixGenerations):
		about = "generation g" + strings.TrimPrefix(about, record.PrefixGenerations)
	case strings.HasPrefix(about, record.PrefixKeys):
		about = "key " + strings.TrimPrefix(about, record.PrefixKeys)
	case about == "" && !e.Custodian.IsZero():
		for name, k := range v.Keys {
			if k.ID == e.Custodian {
				about = "key " + name
			}
		}
	}
	if e.KeyVersion > 0 && about != "" {
		about += fmt.Sprintf(", v%d", e.KeyVersion)
	}
	return about
}

// KeySummary is a key, for people.
type KeySummary struct {
	Key      string   `json:"key"`
	State    string   `json:"state"`
	Where    string   `json:"where"`
	Versions []string `json:"versions"`
	// Custody is what can be said of whether the key left its custodian.
	Custody string `json:"custody"`
}

// Summaries tells of each key, by name.
func (v *Verified) Summaries() (out []KeySummary) {
	for i := range v.Facts {
		f := &v.Facts[i]
		k := v.Keys[f.Key]
		s := KeySummary{Key: f.Key, State: keys.State(k.State).String(), Where: strings.TrimSpace(f.Kind + " " + f.Location), Custody: v.custody(f, k)}
		if f.Version != "" {
			s.Where += ", version " + f.Version
		}
		if k.Cluster != "" {
			s.Where += ", " + k.Cluster
		}
		for _, version := range k.Versions {
			s.Versions = append(s.Versions, versionText(&version))
		}
		out = append(out, s)
	}
	return out
}

// custody says whether the key may have left its custodian, and by what that is
// known.
func (v *Verified) custody(f *Facts, k *record.TenantKey) string {
	alarms := 0
	for _, entry := range v.Events {
		e := entry.Event
		if e.Custodian != k.ID {
			continue
		}
		if e.Reason == vocab.ReasonKeyAttributesUnsafe || e.Reason == vocab.ReasonCustodianChanged || e.Reason == vocab.ReasonCustodyIntegrity {
			alarms++
		}
	}
	switch {
	case keys.State(k.State) == keys.Destroyed:
		return "destroyed"
	case f.Fault != "":
		return fmt.Sprintf("could not be read or is not in order: %s (%s)", f.FaultText, f.Fault)
	case alarms > 0:
		return fmt.Sprintf("not exportable, as read %s; but %d alarms were raised about it", stamp(f.ReadAt), alarms)
	case !v.Since.IsZero():
		return fmt.Sprintf("not exportable, as read %s; what came before %s is not in this evidence", stamp(f.ReadAt), v.Since.Format(time.DateOnly))
	}
	text := fmt.Sprintf("not exportable, as read %s; no look since it was registered %s found otherwise", stamp(f.ReadAt), stamp(k.Registered))
	if len(f.Requests) > 0 {
		text += "; the custodian's own log has these reads as " + strings.Join(f.Requests, ", ")
	}
	return text
}

func versionText(v *record.KeyVersion) string {
	text := fmt.Sprintf("v%d", v.Number)
	switch v.Origin {
	case record.OriginGenerated:
		text += " generated there"
	case record.OriginImported:
		text += " brought by its owner"
	}
	if v.Created > 0 {
		text += " " + stamp(v.Created)
	}
	if p := v.Provenance; p != nil {
		text += ", stated: " + p.Form
		if p.KCV != "" {
			text += ", KCV " + p.KCV
		}
		if p.Proven == 1 {
			text += ", shown to be this very key"
		}
	}
	if v.State != 0 {
		text += ", " + keys.State(v.State).String() + " since " + stamp(v.Since)
	}
	switch v.Claim {
	case record.Claimed:
		if v.ClaimedBy != "" {
			text += ", claimed by " + v.ClaimedBy
		}
	default:
		text += ", NOBODY SAID THAT IT WAS MEANT"
	}
	return text
}

// Warnings are what an auditor must not overlook, though the evidence holds.
func (v *Verified) Warnings() (out []string) {
	for _, name := range slices.Sorted(maps.Keys(v.Keys)) {
		for _, version := range v.Keys[name].Versions {
			if version.Claim != record.Claimed {
				out = append(out, fmt.Sprintf("version %d of the key %s appeared at its custodian %s, and nobody said that it was meant", version.Number, name, stamp(version.Seen)))
			}
		}
	}
	for i := range v.Facts {
		if f := &v.Facts[i]; f.Fault != "" {
			out = append(out, fmt.Sprintf("the key %s: %s (%s)", f.Key, f.FaultText, f.Fault))
		}
	}
	alarms := 0
	for _, entry := range v.Events {
		if entry.Event.Alarm {
			alarms++
		}
	}
	if alarms > 0 {
		out = append(out, fmt.Sprintf("%d of the events are alarms", alarms))
	}
	if !v.Since.IsZero() {
		out = append(out, fmt.Sprintf("only events since %s are in it, so that none is missing cannot be seen", v.Since.Format(time.RFC3339)))
	}
	if v.Key != "" {
		out = append(out, "it is about the key "+v.Key+" alone")
	}
	return out
}

func stamp(m record.Millis) string { return m.Time().UTC().Format("2006-01-02 15:04:05Z") }
