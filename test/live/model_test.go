package live_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// terms are grants that a template or a license can have, and what they mean
// for bob, written by hand. None gives the administrators anything: that would
// wait for a second person.
type terms struct {
	name   string
	grants []*rmsv1.Grant
	rights vocab.Rights
	// reason is why bob is refused; "" if he has the rights.
	reason vocab.Reason
}

func grant(to string, rights ...rmsv1.Right) *rmsv1.Grant {
	return &rmsv1.Grant{To: to, Rights: rights}
}

// allTerms begins with what [rmsdtest.Caller.Publish] gives.
var allTerms = []terms{
	{"bob views", []*rmsv1.Grant{grant("user:bob@contoso.test", rmsv1.Right_RIGHT_VIEW)}, vocab.RightsOf(vocab.RightView), ""},
	{"bob edits", []*rmsv1.Grant{grant("user:bob@contoso.test", rmsv1.Right_RIGHT_VIEW, rmsv1.Right_RIGHT_EDIT)}, vocab.RightsOf(vocab.RightView, vocab.RightEdit), ""},
	{"others only", []*rmsv1.Grant{grant("user:carla@contoso.test", rmsv1.Right_RIGHT_VIEW)}, 0, vocab.ReasonNoRights},
	{"bob views, and prints by a second grant", []*rmsv1.Grant{
		grant("user:bob@contoso.test", rmsv1.Right_RIGHT_VIEW), grant("user:bob@contoso.test", rmsv1.Right_RIGHT_PRINT),
	}, vocab.RightsOf(vocab.RightView, vocab.RightPrint), ""},
	{"bob edits blindly", []*rmsv1.Grant{grant("user:bob@contoso.test", rmsv1.Right_RIGHT_EDIT)}, 0, vocab.ReasonRightNotGranted},
}

// condition is what a template or a license is in, beside its terms.
type condition int

const (
	open     condition = iota // a template that is published, a license that is not revoked
	archived                  // a template that can no longer be chosen
	deleted                   // a template
	revoked                   // a license
)

// settings are those the test changes.
type settings struct {
	offline     time.Duration // the longest a use license may be kept; no two edits set the same
	strict      bool          // custody
	issuerOpens bool          // what was revoked
	bobPublish  bool          // bob is among those who may protect
}

// state is what decides about one object: a template, a license, or the
// settings. The zero state is that of one that is not there.
type state struct {
	revision  uint32
	terms     int // index of allTerms
	condition condition
	settings  settings
}

// verb is what somebody does to an object.
type verb string

// Edits, and below them what rests on them.
const (
	create   verb = "create"
	edit     verb = "edit" // terms, and whether a template is archived
	remove   verb = "delete"
	undelete verb = "undelete"
	revoke   verb = "revoke"
	restore  verb = "restore"
	set      verb = "set" // settings

	acquire       verb = "acquire"         // bob opens what the object decides about
	publish       verb = "publish"         // carla protects with the template
	acquireToKeep verb = "acquire to keep" // bob gets as long a use license as the settings allow
	issuerAcquire verb = "issuer acquire"  // alice opens what she protected and revoked
	bobPublish    verb = "bob publishes"
	get           verb = "get" // an administrator reads the settings
)

// input is what somebody asked for.
type input struct {
	object    string
	verb      verb
	terms     int       // of an edit
	condition condition // of an edit
	settings  settings  // of set
}

// output is what they were told, and later what the log says about it. Reading
// tells of the settings only what shows.
type output struct {
	revision uint32 // that was written, or that decided; 0 if nobody says
	reason   vocab.Reason
	rights   vocab.Rights
	settings settings
}

func (o output) String() string {
	return fmt.Sprintf("revision %d, rights %v, reason %q, settings %+v", o.revision, o.rights, o.reason, o.settings)
}

// live is every object as everybody must see it: as if one call came after the
// other, each edit in force for all that comes after it.
var live = porcupine.Model{
	Partition: byObject,
	Init:      func() any { return state{} },
	Step: func(s, in, out any) (bool, any) {
		return step(s.(state), in.(input), out.(output))
	},
}

func byObject(history []porcupine.Operation) [][]porcupine.Operation {
	parts := map[string][]porcupine.Operation{}
	for _, op := range history {
		name := op.Input.(input).object
		parts[name] = append(parts[name], op)
	}
	var out [][]porcupine.Operation
	for _, ops := range parts {
		out = append(out, ops)
	}
	return out
}

// step says whether the call can be answered so in a state, and which state
// follows.
func step(s state, in input, out output) (bool, state) {
	if next, isEdit := s.edited(in); isEdit {
		if in.verb == edit && s.condition == deleted {
			return out.reason == vocab.ReasonTemplateDeleted, s
		}
		next.revision = s.revision + 1
		return out.reason == "" && out.revision == next.revision, next
	}
	want := s.answer(in.verb)
	return want == out, s
}

func (s state) edited(in input) (next state, isEdit bool) {
	next = s
	switch in.verb {
	case create, edit:
		next.terms = in.terms
		if s.condition != revoked {
			next.condition = in.condition
		}
	case remove:
		next.condition = deleted
	case undelete:
		next.condition = archived
	case revoke:
		next.condition = revoked
	case restore:
		next.condition = open
	case set:
		next.settings = in.settings
	default:
		return s, false
	}
	return next, true
}

// answer is what rests on the state, as docs/policy.md has it.
func (s state) answer(v verb) (out output) {
	switch v {
	case acquire:
		out.revision = s.revision
		switch t := allTerms[s.terms]; {
		case t.reason == vocab.ReasonNoRights:
			out.reason = t.reason // whatever else is true
		case s.condition == revoked:
			out.reason = vocab.ReasonLicenseRevoked
		case s.condition == deleted:
			out.reason = vocab.ReasonTemplateDeleted
		case t.reason != "":
			out.reason = t.reason
		default:
			out.rights = t.rights
		}
	case publish:
		out.revision = s.revision
		switch s.condition {
		case archived:
			out.reason = vocab.ReasonTemplateArchived
		case deleted:
			out.reason = vocab.ReasonTemplateDeleted
		case open, revoked:
		}
	case acquireToKeep:
		if out.settings.strict = s.settings.strict; !out.settings.strict {
			out.settings.offline = s.settings.offline
		}
	case issuerAcquire:
		if !s.settings.issuerOpens {
			out.reason = vocab.ReasonLicenseRevoked
		}
	case bobPublish:
		if !s.settings.bobPublish {
			out.reason = vocab.ReasonNotAPublisher
		}
	case get:
		out.revision, out.settings = s.revision, s.settings
	default:
		out.reason = vocab.ReasonInternal // is nobody's answer
	}
	return out
}

// TestModel makes sure that the search finds what is wrong, and nothing else.
func TestModel(t *testing.T) {
	did := func(v verb, terms int, out output, from, to int64) porcupine.Operation {
		return porcupine.Operation{Input: input{object: "o", verb: v, terms: terms}, Output: out, Call: from, Return: to}
	}
	viewed := func(revision uint32) output {
		return output{revision: revision, rights: vocab.RightsOf(vocab.RightView)}
	}
	edits := func(revision uint32) output {
		return output{revision: revision, rights: vocab.RightsOf(vocab.RightView, vocab.RightEdit)}
	}
	made := did(create, 0, output{revision: 1}, 1, 2)
	wrote := func(revision uint32) output { return output{revision: revision} }
	for _, c := range []struct {
		name string
		ops  []porcupine.Operation
		ok   bool
	}{
		{"the old rights before the edit", []porcupine.Operation{made, did(acquire, 0, viewed(1), 3, 4), did(edit, 1, wrote(2), 5, 6)}, true},
		{"the old rights during the edit", []porcupine.Operation{made, did(edit, 1, wrote(2), 3, 6), did(acquire, 0, viewed(1), 4, 5)}, true},
		{"the new rights during the edit", []porcupine.Operation{made, did(edit, 1, wrote(2), 3, 6), did(acquire, 0, edits(2), 4, 5)}, true},
		{"the old rights after the edit", []porcupine.Operation{made, did(edit, 1, wrote(2), 3, 4), did(acquire, 0, viewed(1), 5, 6)}, false},
		{"the old rights after somebody had the new ones", []porcupine.Operation{
			made, did(edit, 1, wrote(2), 3, 9), did(acquire, 0, edits(2), 4, 5), did(acquire, 0, viewed(1), 6, 7),
		}, false},
		{"the new revision with the old rights", []porcupine.Operation{made, did(edit, 1, wrote(2), 3, 4), did(acquire, 0, viewed(2), 5, 6)}, false},
		{"the new rights with the old revision", []porcupine.Operation{made, did(edit, 1, wrote(2), 3, 4), did(acquire, 0, edits(1), 5, 6)}, false},
		{"a revision left out", []porcupine.Operation{made, did(edit, 1, wrote(3), 3, 4)}, false},
		{"opened after it was deleted", []porcupine.Operation{made, did(remove, 0, wrote(2), 3, 4), did(acquire, 0, viewed(1), 5, 6)}, false},
		{"refused after it was deleted", []porcupine.Operation{
			made, did(remove, 0, wrote(2), 3, 4), did(acquire, 0, output{revision: 2, reason: vocab.ReasonTemplateDeleted}, 5, 6),
		}, true},
		{"edited although deleted", []porcupine.Operation{made, did(remove, 0, wrote(2), 3, 4), did(edit, 0, wrote(3), 5, 6)}, false},
		{"chosen after it was deleted and restored", []porcupine.Operation{
			made, did(remove, 0, wrote(2), 3, 4), did(undelete, 0, wrote(3), 5, 6), did(publish, 0, wrote(3), 7, 8),
		}, false},
		{"opened after it was revoked", []porcupine.Operation{made, did(revoke, 0, wrote(2), 3, 4), did(acquire, 0, viewed(1), 5, 6)}, false},
		{"opened after it was restored", []porcupine.Operation{
			made, did(revoke, 0, wrote(2), 3, 4), did(restore, 0, wrote(3), 5, 6), did(acquire, 0, viewed(3), 7, 8),
		}, true},
	} {
		if got := porcupine.CheckOperations(live, c.ops); got != c.ok {
			t.Errorf("%s: %v", c.name, got)
		}
	}
	if slices.ContainsFunc(allTerms, func(x terms) bool { return (x.rights == 0) != (x.reason != "") }) {
		t.Error("terms must give bob rights or a reason")
	}
}
