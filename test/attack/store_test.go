package attack

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"
	"go.etcd.io/bbolt"
	"golang.org/x/mod/sumdb/tlog"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/openrms/rms/internal/daemon/daemontest"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
	"github.com/openrms/rms/test/storeedit"
)

// Tables of the store that are attacked, by the names on disk.
const (
	tableLicenses  = storeedit.Licenses
	tableTemplates = "templates"
	tableRevisions = "template-revisions"
	tableSlugs     = "template-slugs"
	tableSettings  = "settings"
	tableRequests  = "requests"
	tableTenants   = "tenants"
	tableEvents    = storeedit.Events
	tableIDs       = storeedit.IDs
	tableHeads     = storeedit.Heads
	tableLicensed  = "audit-licenses"
	tableHashes    = storeedit.Hashes
)

// Fields of stored records.
const (
	recordContent    = 1
	recordKeyBox     = 7
	recordWrap       = storeedit.RecordWrap
	recordPolicy     = 9
	recordRevision   = 10
	recordRevoked    = 14
	recordTombstone  = 15
	requestContent   = 2
	requestPL        = 3
	headRevision     = 2
	settingsGuests   = 5
	settingsClear    = 7
	settingsCustody  = 8
	generationSigned = 2
)

// editStore changes the stopped daemon's store as someone with write access to
// the file can.
func (s *site) editStore(t *testing.T, edit func(tx *bbolt.Tx)) {
	t.Helper()
	storeedit.Update(t, filepath.Join(s.Dir, "data"), edit)
}

// What is done to rows.
func row(t *testing.T, tx *bbolt.Tx, table string, key []byte) []byte {
	t.Helper()
	return storeedit.Row(t, tx, table, key)
}

func put(t *testing.T, tx *bbolt.Tx, table string, key, value []byte) {
	t.Helper()
	storeedit.Put(t, tx, table, key, value)
}

func remove(t *testing.T, tx *bbolt.Tx, table string, key []byte) {
	t.Helper()
	storeedit.Remove(t, tx, table, key)
}

func editRow(t *testing.T, tx *bbolt.Tx, table string, key []byte, edit func(h header)) {
	t.Helper()
	storeedit.EditRow(t, tx, table, key, edit)
}

// of is a key of contoso's in a table.
func (s *site) of(parts ...[]byte) []byte { return storeedit.Key(s.trust[contoso].TenantID, parts...) }

// snapshot copies the data directory and returns what puts the copy back.
func (s *site) snapshot(t *testing.T) (putBack func()) {
	t.Helper()
	copied := filepath.Join(t.TempDir(), "data")
	data := filepath.Join(s.Dir, "data")
	must(t, os.CopyFS(copied, os.DirFS(data)))
	return func() {
		must(t, os.RemoveAll(data))
		must(t, os.CopyFS(data, os.DirFS(copied)))
		must(t, filepath.WalkDir(data, func(path string, d os.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				err = os.Chmod(path, 0o600)
			}
			return err
		}))
	}
}

// findings are what the check of the store reports.
func (s *site) findings(t *testing.T) string {
	t.Helper()
	r, err := s.daemon.CheckStore(t.Context())
	must(t, err)
	return strings.Join(r.GetProblems(), "\n")
}

// TestTamperedStore gives the attacker the data directory of a stopped daemon,
// and a valid sign-in to reap what the edit sowed. What was changed must be
// found by name: when it would be used, with an alarm, or at the start, when the
// tenant, or all of the store, is not served; and always by the check of the
// store.
func TestTamperedStore(t *testing.T) {
	s := newSite(t, nil)
	view := rmsv1.Right_RIGHT_VIEW
	alice, mallory := s.person("alice"), s.person("mallory")
	toBob, toMallory := grant("user:bob@contoso.test", view), grant("user:mallory@contoso.test", view)

	secret := alice.publish("", toBob)
	own := alice.publish("", toMallory)
	revoked := alice.publish("", toBob)
	_, err := alice.licenses().RevokeLicense(alice.ctx(), &rmsv1.RevokeLicenseRequest{Name: revoked.name})
	must(t, err)
	narrowed := alice.publish("", toBob)
	createTemplate(t, alice, "salaries", toBob)
	createTemplate(t, alice, "canteen", toMallory)
	byTemplate := alice.publish("salaries")
	malloryKey := newKey(t)
	malloryReq := func() *rmsv1.PublishRequest {
		return &rmsv1.PublishRequest{RequestId: "mine", Delivery: daemontest.SealedTo(malloryKey), Policy: &rmsv1.PublishRequest_AdHoc{AdHoc: &rmsv1.AdHocPolicy{
			Kind: rmsv1.AdHocPolicy_KIND_GRANTS, Grants: []*rmsv1.Grant{toMallory},
		}}}
	}
	_, err = mallory.publishAs(malloryKey, malloryReq())
	must(t, err)

	// Rows as they were, for putting back later.
	s.stop()
	var oldRecord []byte
	older := s.snapshot(t)
	s.editStore(t, func(tx *bbolt.Tx) { oldRecord = row(t, tx, tableLicenses, s.of(narrowed.content[:])) })
	s.start()
	alice = s.person("alice")
	_, err = alice.licenses().UpdateLicense(alice.ctx(), &rmsv1.UpdateLicenseRequest{
		License:    &rmsv1.License{Name: narrowed.name, Etag: "*", Policy: &rmsv1.License_AdHoc{AdHoc: &rmsv1.AdHocPolicy{Kind: rmsv1.AdHocPolicy_KIND_GRANTS, Grants: []*rmsv1.Grant{grant("user:erin@contoso.test", view)}}}},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"ad_hoc"}},
	})
	must(t, err)
	tmpl := templateOf("salaries", grant("user:erin@contoso.test", view))
	tmpl.Name, tmpl.Etag = alice.parent()+"/templates/salaries", "*"
	updated, err := alice.policy().UpdateTemplate(alice.ctx(), &rmsv1.UpdateTemplateRequest{Template: tmpl})
	must(t, err)
	if updated == nil {
		t.Fatal("no template")
	}
	_, err = alice.policy().UpdateSettings(alice.ctx(), &rmsv1.UpdateSettingsRequest{
		Settings:   &rmsv1.Settings{Name: alice.parent() + "/settings", Etag: "*", GuestDomains: []string{"partner.test"}},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"guest_domains"}},
	})
	must(t, err)
	if found := s.findings(t); found != "" {
		t.Fatalf("an untouched store has findings:\n%s", found)
	}
	s.stop()
	newest := s.snapshot(t)

	uidOf := func(tx *bbolt.Tx, slug string) []byte { return row(t, tx, tableSlugs, s.of([]byte(slug))) }
	licenseKey := func(d *document) []byte { return s.of(d.content[:]) }
	head := func(tx *bbolt.Tx) uint64 { return binary.BigEndian.Uint64(row(t, tx, tableHeads, s.of())) }
	withGrant := func(t *testing.T, h header, to string) {
		t.Helper()
		var encoded []byte
		must(t, cbor.Unmarshal(h[recordPolicy], &encoded))
		p, err := license.DecodePolicy(encoded)
		must(t, err)
		p.AdHoc.Grants = []policy.Grant{{To: vocab.Principal{Kind: vocab.KindUser, Value: to}, Rights: vocab.RightsOf(vocab.RightView)}}
		encoded, err = license.EncodePolicy(p)
		must(t, err)
		h.Set(t, recordPolicy, encoded)
	}
	acquires := func(login string, d *document) func(t *testing.T) (*opened, error) {
		return func(*testing.T) (*opened, error) { return s.person(login).acquire(d.pl) }
	}
	publishes := func(template string) func(t *testing.T) (*opened, error) {
		return func(t *testing.T) (*opened, error) {
			key := newKey(t)
			d, err := s.person("alice").publishAs(key, &rmsv1.PublishRequest{Delivery: daemontest.SealedTo(key), Policy: &rmsv1.PublishRequest_Template{Template: template}})
			if d != nil {
				return &opened{key: d.key, event: d.event}, err
			}
			return nil, err
		}
	}

	for name, attack := range map[string]struct {
		edit func(t *testing.T, tx *bbolt.Tx)
		// reap is what the attacker does then; want is how it is refused.
		reap func(t *testing.T) (*opened, error)
		want vocab.Reason
		// finding is part of what the check of the store says.
		finding string
	}{
		"a grant added to the record's policy": {
			func(t *testing.T, tx *bbolt.Tx) {
				editRow(t, tx, tableLicenses, licenseKey(secret), func(h header) { withGrant(t, h, "mallory@contoso.test") })
			}, acquires("mallory", secret), vocab.ReasonStoreDamaged, "is not what the log says",
		},
		"a grant added, and the event's hash of the record with it": {
			// The log's own hash of the event is left: what follows needs the
			// whole tree rewritten, and then the checkpoint says no.
			func(t *testing.T, tx *bbolt.Tx) {
				var event []byte
				editRow(t, tx, tableLicenses, licenseKey(secret), func(h header) {
					withGrant(t, h, "mallory@contoso.test")
					must(t, cbor.Unmarshal(h[16], &event))
				})
				state := sha256.Sum256(row(t, tx, tableLicenses, licenseKey(secret)))
				at := row(t, tx, tableIDs, s.of(event))
				editRow(t, tx, tableEvents, s.of(at), func(h header) { h.Set(t, 181, state[:]) })
			}, acquires("mallory", secret), vocab.ReasonLogDamaged, "is not the one its stored hash",
		},
		"a grant added, and log and tree rewritten to agree": {
			func(t *testing.T, tx *bbolt.Tx) {
				s.forgeRecord(t, tx, secret, func(h header) { withGrant(t, h, "mallory@contoso.test") })
			}, acquires("mallory", secret), vocab.ReasonStoreDamaged, "",
		},
		"policy and key box of a readable document, and log and tree rewritten": {
			func(t *testing.T, tx *bbolt.Tx) {
				from := header{}
				must(t, cbor.Unmarshal(row(t, tx, tableLicenses, licenseKey(own)), &from))
				s.forgeRecord(t, tx, secret, func(h header) { h[recordPolicy], h[recordKeyBox] = from[recordPolicy], from[recordKeyBox] })
			}, acquires("mallory", secret), vocab.ReasonStoreDamaged, "",
		},
		"a revocation taken out, and the event's hash and leaf edited to agree": {
			func(t *testing.T, tx *bbolt.Tx) {
				var event []byte
				editRow(t, tx, tableLicenses, licenseKey(revoked), func(h header) {
					delete(h, recordRevoked)
					must(t, cbor.Unmarshal(h[16], &event))
				})
				state := sha256.Sum256(row(t, tx, tableLicenses, licenseKey(revoked)))
				at := row(t, tx, tableIDs, s.of(event))
				editRow(t, tx, tableEvents, s.of(at), func(h header) { h.Set(t, 181, state[:]) })
				leaf := tlog.RecordHash(row(t, tx, tableEvents, s.of(at)))
				index := tlog.StoredHashIndex(0, int64(binary.BigEndian.Uint64(at)))
				put(t, tx, tableHashes, s.of(binary.BigEndian.AppendUint64(nil, uint64(index))), leaf[:])
			}, acquires("bob", revoked), vocab.ReasonLogDamaged, "stored hash",
		},
		"policy and key box of a readable document": {
			func(t *testing.T, tx *bbolt.Tx) {
				from := header{}
				must(t, cbor.Unmarshal(row(t, tx, tableLicenses, licenseKey(own)), &from))
				editRow(t, tx, tableLicenses, licenseKey(secret), func(h header) { h[recordPolicy], h[recordKeyBox] = from[recordPolicy], from[recordKeyBox] })
			}, acquires("mallory", secret), vocab.ReasonStoreDamaged, "is not what the log says",
		},
		"a record moved to another document's place": {
			func(t *testing.T, tx *bbolt.Tx) {
				put(t, tx, tableLicenses, licenseKey(own), row(t, tx, tableLicenses, licenseKey(secret)))
			}, acquires("mallory", own), vocab.ReasonStoreDamaged, own.content.String(),
		},
		"a record moved and renamed": {
			func(t *testing.T, tx *bbolt.Tx) {
				put(t, tx, tableLicenses, licenseKey(own), row(t, tx, tableLicenses, licenseKey(secret)))
				editRow(t, tx, tableLicenses, licenseKey(own), func(h header) { h.Set(t, recordContent, own.content[:]) })
			}, acquires("mallory", own), vocab.ReasonStoreDamaged, own.content.String(),
		},
		"a revocation taken out": {
			func(t *testing.T, tx *bbolt.Tx) {
				editRow(t, tx, tableLicenses, licenseKey(revoked), func(h header) { delete(h, recordRevoked) })
			}, acquires("bob", revoked), vocab.ReasonStoreDamaged, revoked.content.String(),
		},
		"an older record with its own key box put back": {
			func(t *testing.T, tx *bbolt.Tx) { put(t, tx, tableLicenses, licenseKey(narrowed), oldRecord) },
			acquires("bob", narrowed), vocab.ReasonStoreDamaged, "an older one",
		},
		"a record removed": {
			func(t *testing.T, tx *bbolt.Tx) { remove(t, tx, tableLicenses, licenseKey(secret)) },
			acquires("bob", secret), vocab.ReasonLicenseUnknown, secret.content.String(),
		},
		"a template's head pointing to an older revision": {
			func(t *testing.T, tx *bbolt.Tx) {
				editRow(t, tx, tableTemplates, s.of(uidOf(tx, "salaries")), func(h header) { h.Set(t, headRevision, 1) })
			}, acquires("bob", byTemplate), vocab.ReasonStoreDamaged, "was put back",
		},
		"a template's revision replaced by an older one": {
			func(t *testing.T, tx *bbolt.Tx) {
				uid := uidOf(tx, "salaries")
				put(t, tx, tableRevisions, s.of(uid, []byte{0, 0, 0, 2}), row(t, tx, tableRevisions, s.of(uid, []byte{0, 0, 0, 1})))
			}, acquires("bob", byTemplate), vocab.ReasonStoreDamaged, "",
		},
		"a template's revision replaced by another template's": {
			func(t *testing.T, tx *bbolt.Tx) {
				put(t, tx, tableRevisions, s.of(uidOf(tx, "salaries"), []byte{0, 0, 0, 2}), row(t, tx, tableRevisions, s.of(uidOf(tx, "canteen"), []byte{0, 0, 0, 1})))
			}, acquires("mallory", byTemplate), vocab.ReasonStoreDamaged, "",
		},
		"a template's name leading to another template": {
			func(t *testing.T, tx *bbolt.Tx) {
				put(t, tx, tableSlugs, s.of([]byte("salaries")), uidOf(tx, "canteen"))
			},
			publishes("salaries"), vocab.ReasonStoreDamaged, "salaries",
		},
		"a remembered request leading to another document": {
			func(t *testing.T, tx *bbolt.Tx) {
				c := tx.Bucket([]byte(tableRequests)).Cursor()
				for k, _ := c.Seek(s.of()); k != nil; k, _ = c.Next() {
					editRow(t, tx, tableRequests, bytes.Clone(k), func(h header) {
						h.Set(t, requestContent, secret.content[:])
						h.Set(t, requestPL, secret.pl)
					})
				}
			}, func(*testing.T) (*opened, error) {
				d, err := s.person("mallory").publishAs(malloryKey, malloryReq())
				if d != nil {
					return &opened{key: d.key, event: d.event}, err
				}
				return nil, err
			}, vocab.ReasonNoRights, "",
		},
		"a remembered request leading to another document under one's own license": {
			func(t *testing.T, tx *bbolt.Tx) {
				c := tx.Bucket([]byte(tableRequests)).Cursor()
				for k, _ := c.Seek(s.of()); k != nil; k, _ = c.Next() {
					editRow(t, tx, tableRequests, bytes.Clone(k), func(h header) { h.Set(t, requestContent, secret.content[:]) })
				}
			}, func(*testing.T) (*opened, error) {
				d, err := s.person("mallory").publishAs(malloryKey, malloryReq())
				if d != nil {
					return &opened{key: d.key, event: d.event}, err
				}
				return nil, err
			}, vocab.ReasonStoreDamaged, "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			s.tb = t
			newest()
			s.editStore(t, func(tx *bbolt.Tx) { attack.edit(t, tx) })
			s.start()
			defer s.stop()
			if attack.finding != "" {
				if found := s.findings(t); !strings.Contains(found, attack.finding) {
					t.Errorf("the check of the store says %q and nothing of %q", found, attack.finding)
				}
			}
			got, err := attack.reap(t)
			r := wantRefused(t, got, err, attack.want)
			s.recorded(t, r, attack.want != vocab.ReasonNoRights)
			// Nor does asking again help: the refusal is no new state.
			got, err = attack.reap(t)
			wantRefused(t, got, err, attack.want)
		})
	}

	t.Run("documents nobody touched still open", func(t *testing.T) {
		s.tb = t
		newest()
		s.start()
		defer s.stop()
		s.person("bob").wantOpens(t, secret)
		s.person("erin").wantOpens(t, byTemplate)
		s.person("erin").wantOpens(t, narrowed)
	})

	t.Run("a template put back without a trace in its table", func(t *testing.T) {
		s.tb = t
		newest()
		s.editStore(t, func(tx *bbolt.Tx) {
			uid := uidOf(tx, "salaries")
			editRow(t, tx, tableTemplates, s.of(uid), func(h header) { h.Set(t, headRevision, 1) })
			remove(t, tx, tableRevisions, s.of(uid, []byte{0, 0, 0, 2}))
		})
		s.start()
		defer s.stop()
		if found := s.findings(t); !strings.Contains(found, "is not what the log says") {
			t.Fatalf("the check of the store does not compare templates with the log: %q", found)
		}
	})

	t.Run("settings", func(t *testing.T) {
		guests := func(h header) { h.Set(t, settingsGuests, []string{"partner.test", "guests.test"}) }
		for name, edit := range map[string]func(tx *bbolt.Tx){
			"guests admitted": func(tx *bbolt.Tx) { editRow(t, tx, tableSettings, s.of(), guests) },
			"keys in the clear": func(tx *bbolt.Tx) {
				editRow(t, tx, tableSettings, s.of(), func(h header) { h.Set(t, settingsClear, 1) })
			},
			"another event named as well": func(tx *bbolt.Tx) {
				editRow(t, tx, tableSettings, s.of(), func(h header) {
					guests(h)
					record := header{}
					must(t, cbor.Unmarshal(row(t, tx, tableLicenses, licenseKey(own)), &record))
					h[13] = record[16]
				})
			},
		} {
			t.Run(name, func(t *testing.T) {
				s.tb = t
				newest()
				s.editStore(t, edit)
				s.bootBroken(t, vocab.ReasonStoreDamaged)
				defer s.stop()
				got, err := s.person("bob").acquire(secret.pl)
				wantRefused(t, got, err, vocab.ReasonStoreDamaged)
			})
		}
		t.Run("removed, which brings the defaults back", func(t *testing.T) {
			s.tb = t
			newest()
			s.editStore(t, func(tx *bbolt.Tx) { remove(t, tx, tableSettings, s.of()) })
			s.start()
			defer s.stop()
			if found := s.findings(t); !strings.Contains(found, "settings") {
				t.Fatalf("the check of the store says %q", found)
			}
		})
	})

	t.Run("people", func(t *testing.T) { testTamperedPeople(t, s, newest) })

	for name, edit := range map[string]func(t *testing.T){
		"an older store under a newer checkpoint": func(t *testing.T) {
			checkpoints, kept := filepath.Join(s.Dir, "data", "checkpoints"), filepath.Join(t.TempDir(), "checkpoints")
			must(t, os.CopyFS(kept, os.DirFS(checkpoints)))
			older()
			must(t, os.RemoveAll(checkpoints))
			must(t, os.CopyFS(checkpoints, os.DirFS(kept)))
		},
		"the end of the log cut off": func(t *testing.T) {
			s.editStore(t, func(tx *bbolt.Tx) {
				n := head(tx) - 1
				remove(t, tx, tableEvents, s.of(binary.BigEndian.AppendUint64(nil, n)))
				put(t, tx, tableHeads, s.of(), binary.BigEndian.AppendUint64(nil, n))
			})
		},
		"the log begun anew": func(t *testing.T) {
			s.editStore(t, func(tx *bbolt.Tx) { put(t, tx, tableHeads, s.of(), make([]byte, 8)) })
		},
		"the whole store removed": func(t *testing.T) { must(t, os.Remove(filepath.Join(s.Dir, "data", "rms.db"))) },
	} {
		t.Run(name, func(t *testing.T) {
			s.tb = t
			newest()
			edit(t)
			if err := s.boot(); vocab.ReasonOf(err) != vocab.ReasonLogDamaged {
				t.Fatalf("the daemon started on a log that is older than its checkpoint: %v", err)
			}
		})
	}

	t.Run("an event removed or changed", func(t *testing.T) {
		for name, edit := range map[string]func(tx *bbolt.Tx, at []byte){
			"removed": func(tx *bbolt.Tx, at []byte) { remove(t, tx, tableEvents, at) },
			"another put in its place": func(tx *bbolt.Tx, at []byte) {
				put(t, tx, tableEvents, at, row(t, tx, tableEvents, s.of(make([]byte, 8))))
			},
			"its reason changed": func(tx *bbolt.Tx, at []byte) {
				editRow(t, tx, tableEvents, at, func(h header) { h.Set(t, 179, "harmless") })
			},
		} {
			t.Run(name, func(t *testing.T) {
				s.tb = t
				newest()
				s.editStore(t, func(tx *bbolt.Tx) { edit(tx, s.of(binary.BigEndian.AppendUint64(nil, head(tx)/2))) })
				if err := s.boot(); err != nil {
					if vocab.ReasonOf(err) != vocab.ReasonLogDamaged {
						t.Fatal(err)
					}
					return
				}
				defer s.stop()
				if found := s.findings(t); !strings.Contains(found, "position") {
					t.Fatalf("the check of the store says %q", found)
				}
			})
		}
	})

	t.Run("one tenant's name leading to another's data", func(t *testing.T) {
		s.tb = t
		newest()
		s.editStore(t, func(tx *bbolt.Tx) {
			put(t, tx, tableTenants, []byte(contoso), row(t, tx, tableTenants, []byte(fabrikam)))
		})
		s.bootBroken(t, vocab.ReasonStoreDamaged)
		defer s.stop()
		got, err := s.person("bob").acquire(secret.pl)
		wantRefused(t, got, err, vocab.ReasonStoreDamaged)
	})
}
