package record

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/openrms/rms/internal/operation"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

var (
	strictOne = vocab.ContentID{0: 1, 6: 0x70}
	cachedOne = vocab.ContentID{0: 2, 6: 0x70}
	gone      = vocab.ContentID{0: 3, 6: 0x70}
	uidOne    = vocab.TemplateUID{1}
	caller    = [32]byte{7}

	custodianOne  = vocab.CustodianID{1}
	generationOne = vocab.GenerationID{1}
	operationOne  = vocab.OperationID{0: 1, 6: 0x70}
)

func putOperation(t *testing.T, tx store.Tx, s operation.State) {
	t.Helper()
	o := &operation.Operation{Kind: operation.Transfer, State: s, Requester: operation.Person{Issuer: "i", Subject: "s", Name: "n"}, Created: 1}
	body, err := o.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := PutResource(tx, tenantA, &Resource{Name: OperationName(operationOne), Revision: 1, Body: body}); err != nil {
		t.Fatal(err)
	}
}

func TestCheckLeavesWorkThatGoesOnAlone(t *testing.T) {
	tx := full(t)
	putOperation(t, tx, operation.Running)
	if err := PutProgress(tx, tenantA, operationOne, &Progress{Done: 1, Failed: []operation.ItemError{{License: strictOne, Reason: vocab.ReasonStoreDamaged}}}); err != nil {
		t.Fatal(err)
	}
	if problems, _ := findings(t, tx, tenantA); len(problems) > 0 {
		t.Errorf("the check finds %q", problems)
	}
	if err := DeleteProgress(tx, tenantA, operationOne); err != nil {
		t.Fatal(err)
	}
	if p, err := GetProgress(tx, tenantA, operationOne); err != nil || p.Done != 0 {
		t.Errorf("progress after it was forgotten: %v, %v", p, err)
	}
}

// full is a store with something in every table.
func full(t *testing.T) store.Tx {
	t.Helper()
	tx := memory()
	mustPut(t, tx, tenantA, licenseOf(t, strictOne, shape{owner: "alice", template: uidOne, custodian: vocab.CustodianID{1}, version: 2}))
	mustPut(t, tx, tenantA, licenseOf(t, cachedOne, shape{owner: "bob", generation: vocab.GenerationID{1}}))
	mustPut(t, tx, tenantA, licenseOf(t, gone, shape{owner: "bob", generation: vocab.GenerationID{1}, deleted: true}))
	mustPut(t, tx, tenantA, licenseOf(t, cachedOne, shape{owner: "carla", generation: vocab.GenerationID{1}}))
	mustPut(t, tx, tenantA, licenseOf(t, cachedOne, shape{owner: "bob", generation: vocab.GenerationID{1}}))
	settings, earlier := DefaultSettings(), DefaultSettings()
	earlier.Revision, settings.Revision = 1, 2
	for _, err := range []error{
		PutTenant(tx, "contoso", &Tenant{ID: tenantA, Created: ToMillis(start)}),
		PutSettings(tx, tenantA, earlier),
		PutSettings(tx, tenantA, settings),
		PutTemplateRevision(tx, tenantA, uidOne, TemplateHead{Slug: "finance", Revision: 1}, []byte("TEST-envelope 1")),
		PutTemplateRevision(tx, tenantA, uidOne, TemplateHead{Slug: "finance", Revision: 2}, []byte("TEST-envelope 2")),
		PutTemplateRevision(tx, tenantA, uidOne, TemplateHead{Slug: "finance", Revision: 3}, []byte("TEST-envelope 3")),
		PutUse(tx, tenantA, cachedOne, vocab.EventID{1}, Use{Principal: "bob@contoso.test", Of: []vocab.Principal{user(t, "bob"), user(t, "robert")}, NotAfter: start}),
		PutRequest(tx, tenantA, caller, "r1", &Request{Content: cachedOne, PL: []byte("TEST"), At: ToMillis(start)}),
		putBody(tx, GenerationName(1), &Generation{Number: 1, Signed: []byte("TEST"), Wrap: []byte("TEST"), State: 1, Created: ToMillis(start)}),
		putBody(tx, KeyName("root"), &TenantKey{
			ID: vocab.CustodianID{1}, Custodian: "here", Kind: "embedded", Root: "root", Sign: "sign", State: 2, RootLatest: 2,
			SignKeys: map[uint32][32]byte{1: {1}}, Versions: []KeyVersion{{Number: 1, State: 4, Seen: 1, Provenance: &Provenance{KCV: "8F21C3"}}, {Number: 2, Seen: 2}},
		}),
		PutBundle(tx, tenantA, []byte("TEST")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return tx
}

// putBody writes the first revision of a resource.
func putBody(tx store.Tx, name string, body interface{ Encode() ([]byte, error) }) error {
	b, err := body.Encode()
	if err == nil {
		_, err = PutResource(tx, tenantA, &Resource{Name: name, Revision: 1, Body: b})
	}
	return err
}

func TestCheckFindsNothingInSoundStore(t *testing.T) {
	tx := full(t)
	problems, records := findings(t, tx, tenantA)
	if len(problems) > 0 {
		t.Errorf("the check finds %q", problems)
	}
	if records != 6 { // three licenses, a template, a generation, a key
		t.Errorf("the check read %d records, want 6", records)
	}
	if problems, records := findings(t, tx, tenantB); len(problems) > 0 || records != 0 {
		t.Errorf("of another tenant the check finds %q and %d records", problems, records)
	}
}

func TestCheckFindsDamage(t *testing.T) {
	written := func(table store.Table, k, v []byte) func(*testing.T, store.Tx) {
		return func(t *testing.T, tx store.Tx) {
			if err := tx.Put(table, k, v); err != nil {
				t.Fatal(err)
			}
		}
	}
	drop := func(table store.Table, k []byte) func(*testing.T, store.Tx) {
		return func(t *testing.T, tx store.Tx) {
			if _, there, err := tx.Get(table, k); err != nil || !there {
				t.Fatalf("the row to lose is not there (%v)", err)
			}
			if err := tx.Delete(table, k); err != nil {
				t.Fatal(err)
			}
		}
	}
	// copied puts the value of one row under another key.
	copied := func(table store.Table, from, to []byte) func(*testing.T, store.Tx) {
		return func(t *testing.T, tx store.Tx) {
			v, there, err := tx.Get(table, from)
			if err != nil || !there {
				t.Fatalf("the row to copy is not there (%v)", err)
			}
			if err := tx.Put(table, to, v); err != nil {
				t.Fatal(err)
			}
		}
	}
	owner := func(name string) []byte { return ownerKey(user(t, name)) }
	alice := key(tenantA, owner("alice"), strictOne[:])
	// The one use license of the store, by its document or by a principal.
	useOf := func(of []byte) []byte { return key(tenantA, of, u64(uint64(ToMillis(start))), []byte{15: 0, 0: 1}) }
	byVersion := key(tenantA, custodianOne[:], u32(2))
	for _, c := range []struct {
		name   string
		damage func(*testing.T, store.Tx)
		want   string
	}{
		{"owner's row missing", drop(tableByOwner, alice), "is missing from licenses-by-owner"},
		{"template's row missing", drop(tableByTemplate, key(tenantA, uidOne[:], strictOne[:])), "is missing from licenses-by-template"},
		{"version's row missing", drop(tableByKeyVersion, append(slices.Clone(byVersion), strictOne[:]...)), "is missing from licenses-by-version"},
		{"generation's row missing", drop(tableByGeneration, key(tenantA, generationOne[:], cachedOne[:])), "is missing from licenses-by-generation"},
		{"row of another owner", written(tableByOwner, key(tenantA, owner("mallory"), strictOne[:]), nil), "does not belong there"},
		{"row of no license", written(tableByTemplate, key(tenantA, uidOne[:], []byte("0123456789abcdef")), nil), "does not belong there"},
		{"row of a deleted license", written(tableByOwner, key(tenantA, owner("bob"), gone[:]), nil), "does not belong there"},
		{"row with a short key", written(tableByOwner, key(tenantA, []byte("x")), nil), "licenses-by-owner has a key that cannot be"},
		{"count too large", written(tableCounts, countKey(tableByTemplate, key(tenantA, uidOne[:])), u64(2)), "says 2, the licenses are 1"},
		{"count missing", drop(tableCounts, countKey(tableByKeyVersion, byVersion)), "a count of licenses-by-version is missing"},
		{"count of nothing", written(tableCounts, countKey(tableByTemplate, key(tenantA, []byte("0123456789abcdef"))), u64(1)), "says 1, the licenses are 0"},
		{"count unreadable", written(tableCounts, countKey(tableByTemplate, key(tenantA, uidOne[:])), []byte{1}), "a count cannot be read"},
		{"license unreadable", written(tableLicenses, key(tenantA, cachedOne[:]), []byte{0xff}), "license " + cachedOne.String()},
		{"license moved", copied(tableLicenses, key(tenantA, cachedOne[:]), key(tenantA, strictOne[:])), "license " + strictOne.String()},
		{"license without a place", copied(tableLicenses, key(tenantA, cachedOne[:]), key(tenantA)), "licenses has a key that cannot be"},
		{"license lost", drop(tableLicenses, key(tenantA, cachedOne[:])), "does not belong there"},
		{"license with a policy that cannot be read", func(t *testing.T, tx store.Tx) {
			l := licenseOf(t, cachedOne, shape{owner: "bob", generation: vocab.GenerationID{1}})
			l.Policy = []byte{0xa0}
			if err := put(tx, tableLicenses, key(tenantA, l.Content[:]), l); err != nil {
				t.Fatal(err)
			}
		}, "license " + cachedOne.String()},
		{"license with a wrap that cannot be read", func(t *testing.T, tx store.Tx) {
			l := licenseOf(t, strictOne, shape{owner: "alice", template: uidOne, custodian: vocab.CustodianID{1}, version: 2})
			l.Wrap = l.Wrap[:30]
			if err := put(tx, tableLicenses, key(tenantA, l.Content[:]), l); err != nil {
				t.Fatal(err)
			}
		}, "license " + strictOne.String()},
		{"template head put back", func(t *testing.T, tx store.Tx) {
			if err := put(tx, tableTemplates, key(tenantA, uidOne[:]), &TemplateHead{Slug: "finance", Revision: 1}); err != nil {
				t.Fatal(err)
			}
		}, `"finance" was put back: revision 3 is there, 1 is current`},
		{"template head ahead of its revisions", func(t *testing.T, tx store.Tx) {
			if err := put(tx, tableTemplates, key(tenantA, uidOne[:]), &TemplateHead{Slug: "finance", Revision: 1<<32 - 1}); err != nil {
				t.Fatal(err)
			}
		}, `revision 4294967295 of template "finance" is missing`},
		{"newest revision missing", drop(tableRevisions, key(tenantA, uidOne[:], u32(3))), `revision 3 of template "finance" is missing`},
		{"revision missing between", drop(tableRevisions, key(tenantA, uidOne[:], u32(2))), "revision 2 of template"},
		{"revision with a key that cannot be", written(tableRevisions, key(tenantA, uidOne[:]), nil), "template-revisions has a key that cannot be"},
		{"template head missing", drop(tableTemplates, key(tenantA, uidOne[:])), "which is not there"},
		{"template head unreadable", written(tableTemplates, key(tenantA, uidOne[:]), []byte{0xff}), "template " + uidOne.String()},
		{"template head without a place", copied(tableTemplates, key(tenantA, uidOne[:]), key(tenantA)), "templates has a key that cannot be"},
		{"name missing", drop(tableSlugs, key(tenantA, []byte("finance"))), `"finance" does not lead to its template`},
		{"name of another template", written(tableSlugs, key(tenantA, []byte("board")), uidOne[:]), `"board" leads to template`},
		{"name unreadable", written(tableSlugs, key(tenantA, []byte("board")), []byte{1}), `the name "board"`},
		{"use of no license", written(tableUses, key(tenantA, make([]byte, 40)), nil), "a use license is of license"},
		{"use with a key that cannot be", written(tableUses, key(tenantA, []byte{1}), nil), "uses has a key that cannot be"},
		{"use that would stay for ever", drop(tableUsesByDay, key(tenantA, u32(dayOf(uint64(ToMillis(start)))), cachedOne[:])), "missing from uses-by-day"},
		{"day of uses with a key that cannot be", written(tableUsesByDay, key(tenantA, []byte{1}), nil), "uses-by-day has a key that cannot be"},
		{"use whose principals cannot be read", written(tableUses, useOf(cachedOne[:]), []byte("bob\nbob")), "a use license of license " + cachedOne.String() + ": a record of table uses cannot be read"},
		{"use not found by its principal", drop(tableUsesByPrincipal, useOf(owner("robert"))), "is missing from uses-by-principal"},
		{"use found as another document's", written(tableUsesByPrincipal, useOf(owner("bob")), strictOne[:]), "is missing from uses-by-principal"},
		{"use found by a stranger", written(tableUsesByPrincipal, useOf(owner("erin")), cachedOne[:]), "uses-by-principal lists a use license of license " + cachedOne.String()},
		{"no use, and found by its principal", drop(tableUses, useOf(cachedOne[:])), "which does not belong there"},
		{"principal's use of no document", written(tableUsesByPrincipal, useOf(owner("erin")), nil), "uses-by-principal has a row that cannot be"},
		{"principal's use with a key that cannot be", written(tableUsesByPrincipal, key(tenantA, []byte{1}), cachedOne[:]), "uses-by-principal has a row that cannot be"},
		{"request unreadable", written(tableRequests, key(tenantA, caller[:], []byte("r1")), []byte{0xff}), "a request"},
		{"request that would stay for ever", drop(tableRequestsByTime, key(tenantA, u64(uint64(ToMillis(start))), caller[:], []byte("r1"))), "missing from requests-by-time"},
		{"settings unreadable", written(tableSettings, key(tenantA), []byte{0xff}), "settings"},
		{"earlier settings missing", drop(tableOldSettings, key(tenantA, u32(1))), "revision 1 of the settings is missing"},
		{"earlier settings missing between", copied(tableOldSettings, key(tenantA, u32(1)), key(tenantA, u32(7))), "revision 2 of the settings is missing"},
		{"earlier settings unreadable", written(tableOldSettings, key(tenantA, u32(1)), []byte{0xff}), "revision 1 of the settings"},
		{"settings put back", copied(tableOldSettings, key(tenantA, u32(1)), key(tenantA, u32(2))), "the settings were put back: revision 2 is there, 2 is current"},
		{"earlier settings with a key that cannot be", written(tableOldSettings, key(tenantA, []byte{1}), nil), "settings-history has a key that cannot be"},
		{"earlier policy changed", func(t *testing.T, tx store.Tx) {
			for item := range tx.Scan(tablePolicies, store.Range{Prefix: key(tenantA)}) {
				if err := tx.Put(tablePolicies, item.Key, []byte("TEST")); err != nil {
					t.Fatal(err)
				}
				return
			}
			t.Fatal("no earlier policy is there")
		}, "an earlier policy of license " + cachedOne.String() + " is not what it was"},
		{"earlier policy of no license", written(tablePolicies, key(tenantA, make([]byte, 48)), nil), "an earlier policy is of license"},
		{"earlier policy with a key that cannot be", written(tablePolicies, key(tenantA, []byte{1}), nil), "policies has a key that cannot be"},
		{"generation unreadable", written(tableResources, key(tenantA, []byte(GenerationName(1))), []byte{0xff}), "generations/1"},
		{"generation moved", copied(tableResources, key(tenantA, []byte(GenerationName(1))), key(tenantA, []byte(GenerationName(2)))), "generations/2"},
		{"generation's body moved", func(t *testing.T, tx store.Tx) {
			if err := putBody(tx, GenerationName(7), &Generation{Number: 6}); err != nil {
				t.Fatal(err)
			}
		}, "generations/7"},
		{"key unreadable", func(t *testing.T, tx store.Tx) {
			if err := putBody(tx, KeyName("root"), &TenantKey{}); err != nil {
				t.Fatal(err)
			}
		}, "keys/root"},
		{"key moved", copied(tableResources, key(tenantA, []byte(KeyName("root"))), key(tenantA, []byte(KeyName("other")))), "keys/other"},
		{"custody's row missing", drop(tableByCustody, key(tenantA, uidOne[:], []byte{2}, strictOne[:])), "is missing from licenses-by-custody"},
		{"row of another custody", written(tableByCustody, key(tenantA, uidOne[:], []byte{1}, strictOne[:]), nil), "does not belong there"},
		{"progress of no operation", written(tableProgress, key(tenantA, operationOne[:]), []byte{0xa1, 1, 0x50, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}), "which is not there"},
		{"progress of an operation that has ended", func(t *testing.T, tx store.Tx) {
			putOperation(t, tx, operation.Succeeded)
			if err := PutProgress(tx, tenantA, operationOne, &Progress{Done: 1}); err != nil {
				t.Fatal(err)
			}
		}, "which has ended"},
		{"progress unreadable", func(t *testing.T, tx store.Tx) {
			putOperation(t, tx, operation.Running)
			if err := tx.Put(tableProgress, key(tenantA, operationOne[:]), []byte{0xff}); err != nil {
				t.Fatal(err)
			}
		}, "the progress of operation"},
		{"progress with a key that cannot be", written(tableProgress, key(tenantA, []byte{1}), nil), "operation-progress has a key that cannot be"},
		{"operation unreadable", func(t *testing.T, tx store.Tx) {
			if _, err := PutResource(tx, tenantA, &Resource{Name: OperationName(operationOne), Revision: 1, Body: []byte{0xa0}}); err != nil {
				t.Fatal(err)
			}
		}, OperationName(operationOne)},
	} {
		t.Run(c.name, func(t *testing.T) {
			tx := full(t)
			c.damage(t, tx)
			problems, _ := findings(t, tx, tenantA)
			if !slices.ContainsFunc(problems, func(p string) bool {
				return strings.Contains(p, c.want) && strings.Contains(p, tenantA.String())
			}) {
				t.Errorf("found %q, want one that says %q", problems, c.want)
			}
		})
	}
}

// The fullest key there can be has an encoding: nothing in it lies too deep.
func TestKeysCanBeEncoded(t *testing.T) {
	k := &TenantKey{
		ID: vocab.NewCustodianID(), Custodian: "vault", Kind: "vault", Root: "root", Sign: "sign", Why: "a test", Cluster: "c",
		SignKeys: map[uint32][32]byte{1: {1}, 2: {2}}, Gone: 1, Deletable: 1,
		Versions: []KeyVersion{{
			Number: 1, State: 6, Why: "a test", ClaimedBy: "carla", Gone: 1, GoneAlarmed: 1,
			Provenance: &Provenance{Fingerprint: make([]byte, 32), KCV: "02A9D7", Form: "jwk", WrappingKey: make([]byte, 32), Blob: make([]byte, 32), Requests: "a b", At: 1, Proven: 1},
		}},
	}
	b, err := k.Encode()
	if err != nil {
		t.Fatal(err, errors.Unwrap(err))
	}
	back, err := DecodeTenantKey(b)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(k, back); diff != "" {
		t.Error(diff)
	}
}
