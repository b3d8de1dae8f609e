package attack

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"
	"go.etcd.io/bbolt"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/openrms/rms/internal/daemon/daemontest"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// Tables of what earlier decisions read.
const (
	tablePolicies    = "policies"
	tableOldSettings = "settings-history"
)

// Fields of an event and of its decision.
const (
	eventReason   = 163
	eventDecision = 176
	decisionFlags = 2
	decisionGroup = 7
	decisionRules = 18
)

// TestChangedHistory gives the attacker the stopped daemon's store, after what
// decided was changed by honest people. Whoever then asks why somebody was let
// in or refused must not be told a story: what was changed is found, with an
// alarm, by who explains the event, and by the check of the store.
func TestChangedHistory(t *testing.T) {
	s := newSite(t, nil)
	view := rmsv1.Right_RIGHT_VIEW
	alice, mallory := s.person("alice"), s.person("mallory")
	setGuests := func(domain string) {
		_, err := alice.policy().UpdateSettings(alice.ctx(), &rmsv1.UpdateSettingsRequest{
			Settings:   &rmsv1.Settings{Name: alice.parent() + "/settings", Etag: "*", GuestDomains: []string{domain}},
			UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"guest_domains"}},
		})
		must(t, err)
	}
	setGuests("partner.test") // revision 1, which decides
	d := alice.publish("", grant("user:bob@contoso.test", view), grant("group:finance@contoso.test", view))
	other := alice.publish("", grant("user:mallory@contoso.test", view))
	_, err := mallory.acquire(d.pl)
	r, ok := err.(*refusal) //nolint:errorlint // what this test's own client returns
	if !ok || r.reason != vocab.ReasonNoRights {
		t.Fatal(err)
	}
	// Honest people change what decided, so that only history has it.
	for _, doc := range []*document{d, other} {
		_, err = alice.licenses().UpdateLicense(alice.ctx(), &rmsv1.UpdateLicenseRequest{
			License: &rmsv1.License{Name: doc.name, Etag: "*", Policy: &rmsv1.License_AdHoc{AdHoc: &rmsv1.AdHocPolicy{
				Kind: rmsv1.AdHocPolicy_KIND_GRANTS, Grants: []*rmsv1.Grant{grant("user:erin@contoso.test", view)},
			}}}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"ad_hoc"}},
		})
		must(t, err)
	}
	setGuests("guests.test")
	setGuests("others.test")
	explain := func(event string) (*rmsv1.ExplainEventResponse, error) {
		erin := s.person("erin")
		resp, err := erin.policy().ExplainEvent(erin.ctx(), &rmsv1.ExplainEventRequest{Name: erin.parent() + "/events/" + event})
		if err != nil {
			return nil, refused(err)
		}
		return resp, nil
	}
	x, err := explain(r.event)
	must(t, err)
	if e := x.GetExplanation(); e.GetReason() != "NO_RIGHTS" || e.GetGrantCount() != 2 || e.GetContradiction() != "" {
		t.Fatalf("untouched, it is explained as %s", prototext.Format(e))
	}
	if found := s.findings(t); found != "" {
		t.Fatalf("an untouched store has findings:\n%s", found)
	}

	// The refused caller is told nothing of all that, in no part of the answer.
	var trailer metadata.MD
	_, err = mallory.protection().Acquire(mallory.ctx(), &rmsv1.AcquireRequest{
		Parent: mallory.parent(), Right: view, Delivery: daemontest.SealedTo(newKey(t)),
		Document: &rmsv1.AcquireRequest_PublishingLicense{PublishingLicense: d.pl},
	}, grpc.Trailer(&trailer))
	answer := prototext.Format(status.Convert(err).Proto()) + fmt.Sprint(trailer)
	if !strings.Contains(answer, "NO_RIGHTS") {
		t.Fatal(err)
	}
	for _, secret := range []string{"bob", "finance", "grant", "partner", "alice", "erin", "guest", "group", "policy", "matched", "named"} {
		if strings.Contains(strings.ToLower(answer), secret) {
			t.Errorf("the refusal tells of %s: %s", secret, answer)
		}
	}

	s.stop()
	untouched := s.snapshot(t)
	eventRow := func(tx *bbolt.Tx) []byte {
		id, err := vocab.ParseEventID(r.event)
		must(t, err)
		return s.of(row(t, tx, tableIDs, s.of(id[:])))
	}
	earlier := func(tx *bbolt.Tx, doc *document) (key, value []byte) {
		k, v := tx.Bucket([]byte(tablePolicies)).Cursor().Seek(s.of(doc.content[:]))
		if !bytes.HasPrefix(k, s.of(doc.content[:])) {
			t.Fatal("no earlier policy is there")
		}
		return bytes.Clone(k), bytes.Clone(v)
	}
	revision := func(n byte) []byte { return s.of([]byte{0, 0, 0, n}) }
	decision := func(t *testing.T, tx *bbolt.Tx, edit func(h header)) {
		t.Helper()
		editRow(t, tx, tableEvents, eventRow(tx), func(h header) {
			var b []byte
			must(t, cbor.Unmarshal(h[eventDecision], &b))
			inner := header{}
			must(t, cbor.Unmarshal(b, &inner))
			edit(inner)
			b, err := deterministic(t).Marshal(inner)
			must(t, err)
			h.Set(t, eventDecision, b)
		})
	}
	for name, attack := range map[string]struct {
		edit func(t *testing.T, tx *bbolt.Tx)
		// want is the reason, or STORE_DAMAGED beside an explanation.
		want    vocab.Reason
		told    bool // an explanation comes with it, and says what contradicts
		other   bool // it is explained, with a note that other rules decided
		finding string
	}{
		"the policy that decided exchanged for another document's": {
			edit: func(t *testing.T, tx *bbolt.Tx) {
				k, _ := earlier(tx, d)
				_, v := earlier(tx, other)
				put(t, tx, tablePolicies, k, v)
			}, want: vocab.ReasonStoreDamaged, finding: "an earlier policy of license",
		},
		"the policy that decided removed": {
			edit: func(t *testing.T, tx *bbolt.Tx) {
				k, _ := earlier(tx, d)
				remove(t, tx, tablePolicies, k)
			}, want: vocab.ReasonStoreDamaged, finding: "which is missing",
		},
		"the settings that decided edited": {
			edit: func(t *testing.T, tx *bbolt.Tx) {
				editRow(t, tx, tableOldSettings, revision(1), func(h header) { h.Set(t, settingsGuests, []string{"contoso.test"}) })
			}, want: vocab.ReasonStoreDamaged, finding: "settings",
		},
		"the settings that decided removed": {
			edit: func(t *testing.T, tx *bbolt.Tx) { remove(t, tx, tableOldSettings, revision(1)) },
			want: vocab.ReasonStoreDamaged, finding: "revision 1 of the settings is missing",
		},
		"later settings in their place": {
			edit: func(t *testing.T, tx *bbolt.Tx) {
				put(t, tx, tableOldSettings, revision(1), row(t, tx, tableOldSettings, revision(2)))
			}, want: vocab.ReasonStoreDamaged, finding: "settings",
		},
		"a group put into the event": {
			edit: func(t *testing.T, tx *bbolt.Tx) {
				decision(t, tx, func(h header) { h.Set(t, decisionGroup, []string{"finance@contoso.test"}) })
			}, want: vocab.ReasonLogDamaged, finding: "is not",
		},
		"a group put into the event, and log and tree rewritten": {
			edit: func(t *testing.T, tx *bbolt.Tx) {
				decision(t, tx, func(h header) { h.Set(t, decisionGroup, []string{"finance@contoso.test"}) })
				s.forgeTree(t, tx)
			}, want: vocab.ReasonStoreDamaged, told: true,
		},
		"the refusal turned into one for another reason, and log and tree rewritten": {
			edit: func(t *testing.T, tx *bbolt.Tx) {
				editRow(t, tx, tableEvents, eventRow(tx), func(h header) { h.Set(t, eventReason, "LICENSE_REVOKED") })
				s.forgeTree(t, tx)
			}, want: vocab.ReasonStoreDamaged, told: true,
		},
		"an event of a version with other rules": {
			edit: func(t *testing.T, tx *bbolt.Tx) {
				decision(t, tx, func(h header) {
					h.Set(t, decisionGroup, []string{"finance@contoso.test"}) // which these rules decide otherwise
					h.Set(t, decisionRules, uint64(2))
				})
				s.forgeTree(t, tx)
			}, other: true,
		},
		"an unknown flag": {
			edit: func(t *testing.T, tx *bbolt.Tx) {
				decision(t, tx, func(h header) { h.Set(t, decisionFlags, uint64(1)<<31) })
				s.forgeTree(t, tx)
			}, want: vocab.ReasonLogDamaged, finding: "the inputs of a decision cannot be read",
		},
	} {
		t.Run(name, func(t *testing.T) {
			s.tb = t
			untouched()
			s.editStore(t, func(tx *bbolt.Tx) { attack.edit(t, tx) })
			s.start()
			defer s.stop()
			if attack.finding != "" {
				if found := s.findings(t); !strings.Contains(found, attack.finding) {
					t.Errorf("the check of the store says %q and nothing of %q", found, attack.finding)
				}
			}
			x, err := explain(r.event)
			alarm := strings.TrimPrefix(x.GetExplanation().GetAlarm(), "tenants/contoso/events/")
			if attack.other {
				must(t, err)
				if e := x.GetExplanation(); !e.GetOtherRules() || e.GetContradiction() != "" || alarm != "" {
					t.Fatalf("what other rules decided is explained as %s", prototext.Format(e))
				}
				return
			}
			if attack.told {
				must(t, err)
				if x.GetExplanation().GetContradiction() == "" || alarm == "" {
					t.Fatalf("the event is explained as if nothing were wrong: %s", prototext.Format(x))
				}
			} else {
				told, ok := err.(*refusal) //nolint:errorlint // what this test's own client returns
				if !ok || told.reason != attack.want {
					t.Fatalf("want %s, got %v", attack.want, err)
				}
				alarm = told.event
			}
			s.recorded(t, &refusal{reason: attack.want, event: alarm}, true)
		})
	}
}
