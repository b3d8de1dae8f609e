package tenant_test

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/store/bolt"
	"github.com/openrms/rms/internal/tenant"
	"github.com/openrms/rms/internal/vocab"
)

// What must not be imported, and why.
func TestWhatIsNotImported(t *testing.T) {
	inOffice(t, func(t *testing.T, o *house) {
		o.publish("alice", "", "bob")
		o.mustWrite(person("grace"), "secret", o.template("secret", vocab.CustodyStrict, user("bob")))
		o.publish("alice", "secret")
		key, stranger := newMoveKey(t), newMoveKey(t)
		file, out := o.takeOut(o.freeze(key).ID)
		other := newHouse(t)
		foreign, foreignOut := other.takeOut(other.freeze(key).ID)
		fresh := func() *house { return &house{t: t, dir: t.TempDir(), custodian: new(moody), file: o.file} }
		refuse := func(name string, n *house, file []byte, key *license.RecipientKey, root license.KeyID, want vocab.Reason) {
			t.Helper()
			if _, err := n.arrive(file, key, root); !errors.Is(err, want) {
				t.Errorf("%s: %v, want %s", name, err, want)
			}
			n.isEmpty()
		}
		refuse("another key", fresh(), file, stranger, out.Signer, vocab.ReasonConfigurationInvalid)
		refuse("another root", fresh(), file, key, license.KeyID{1}, vocab.ReasonTrustRootMismatch)
		refuse("another tenant's archive under this root", fresh(), foreign, key, out.Signer, vocab.ReasonTrustRootMismatch)
		for _, n := range []int{0, 9, 300, 2000, len(file) / 2, len(file) - 1} {
			changed := bytes.Clone(file)
			changed[n] ^= 1
			want := vocab.ReasonStoreDamaged
			if n == 9 {
				want = "" // the version: whatever it says
			}
			n := fresh()
			if _, err := n.arrive(changed, key, out.Signer); err == nil || want != "" && !errors.Is(err, want) {
				t.Errorf("changed: %v", err)
			}
			n.isEmpty()
		}
		for n := 1; n < len(file); n += 1 + len(file)/23 {
			refuse(fmt.Sprintf("cut at %d", n), fresh(), file[:n], key, out.Signer, vocab.ReasonStoreDamaged)
		}
		renamed := fresh()
		renamed.file.ID = "fabrikam"
		refuse("another name", renamed, file, key, out.Signer, vocab.ReasonRequestInvalid)

		n, _ := o.moved(file, key, out.Signer)
		if _, err := n.arriveAgain(foreign, key, foreignOut.Signer); !errors.Is(err, vocab.ReasonResourceExists) {
			t.Errorf("another tenant of the same name: %v", err)
		}
		n.opens(person("bob"), tenant.AcquireItem{Content: vocab.NewContentID(), Right: vocab.RightView}, vocab.ReasonNoRights)
		n.checkStore()
	})
}

// isEmpty fails the test unless a store holds nothing of any tenant.
func (o *house) isEmpty() {
	o.t.Helper()
	s, err := bolt.Open(bolt.Options{Path: filepath.Join(o.dir, "rms.db"), Stamp: store.Development, Schema: record.Schema, MinFree: -1})
	o.check(err)
	o.check(s.View(o.t.Context(), func(r store.Reader) error {
		all, err := record.ListTenants(r)
		if err == nil && len(all) > 0 {
			o.t.Errorf("tenants %v are there", all)
		}
		return err
	}))
	o.check(s.Close())
}

// Killed after any of its transactions, an import has left nothing that is
// served, or all of it; the next one does it all.
func TestAnImportIsWholeOrAbsent(t *testing.T) {
	inOffice(t, func(t *testing.T, o *house) {
		o.mustWrite(person("grace"), "secret", o.template("secret", vocab.CustodyStrict, user("bob")))
		docs := []*tenant.Published{o.publish("alice", "", "bob"), o.publish("alice", "secret")}
		key := newMoveKey(t)
		file, out := o.takeOut(o.freeze(key).ID)
		o.shut()
		whole := false
		for kill := int64(0); !whole; kill++ {
			n := &house{t: t, dir: t.TempDir(), custodian: new(moody), file: o.file, to: o.to}
			s, err := bolt.Open(bolt.Options{Path: filepath.Join(n.dir, "rms.db"), Stamp: store.Development, Schema: record.Schema, MinFree: -1})
			o.check(err)
			cut := &cutStore{Store: s, cut: make(chan struct{})}
			cut.kill(kill)
			_, err = tenant.Import(t.Context(), n.importConfig(cut, file, key, out.Signer))
			whole = err == nil
			o.check(s.Close())
			if whole {
				if kill < 10 {
					t.Errorf("an import takes %d transactions, too few for this test", kill)
				}
			} else {
				n.isEmpty()
				if _, err := n.arrive(file, key, out.Signer); err != nil {
					t.Fatalf("again after %d transactions: %v", kill, err)
				}
			}
			n.open()
			for _, d := range docs {
				n.opens(person("bob"), item(d), "")
			}
			n.checkStore()
			n.shut()
		}
	})
}

// A tenant arrives beside another one, at the second attempt: what the first one
// left is cleared, and nothing of the neighbor.
func TestATenantArrivesBesideAnother(t *testing.T) {
	inOffice(t, func(t *testing.T, o *house) {
		doc := o.publish("alice", "", "bob")
		key := newMoveKey(t)
		file, out := o.takeOut(o.freeze(key).ID)
		o.shut()

		beside := &house{t: t, dir: t.TempDir(), custodian: new(moody), file: o.file, to: o.to}
		beside.file.ID = "fabrikam"
		beside.open()
		t.Cleanup(beside.shut)
		theirs := beside.publish("alice", "", "bob")
		arriving := &house{t: t, dir: t.TempDir(), custodian: new(moody), file: o.file, to: o.to}
		cut := &cutStore{Store: beside.store, cut: make(chan struct{})}
		cut.kill(6)
		if _, err := tenant.Import(t.Context(), arriving.importConfig(cut, file, key, out.Signer)); err == nil {
			t.Fatal("an import that was killed succeeded")
		}
		beside.opens(person("bob"), item(theirs), "")
		in, err := tenant.Import(t.Context(), arriving.importConfig(beside.store, file, key, out.Signer))
		o.check(err)
		if in.Licenses != 1 {
			t.Errorf("%d licenses arrived", in.Licenses)
		}
		beside.opens(person("bob"), item(theirs), "")
		beside.opens(person("bob"), item(doc), vocab.ReasonLicenseMismatch)
		beside.restart()
		beside.opens(person("bob"), item(theirs), "")
		beside.publish("alice", "", "bob")
		beside.checkStore()
	})
}

// An export that ends with the process, after any of its transactions, leaves a
// frozen tenant of which an archive can be taken.
func TestAnExportThatIsKilled(t *testing.T) {
	inOffice(t, func(t *testing.T, o *house) {
		o.publish("alice", "", "bob")
		key := newMoveKey(t)
		id := o.freeze(key).ID
		for kill := range int64(3) {
			o.store.kill(kill)
			var file bytes.Buffer
			_, err := o.Export(t.Context(), person("carla"), id, "test", &file, func(tenant.Takeout) {})
			if kill < 2 != (err != nil) {
				t.Errorf("killed after %d transactions: %v", kill, err)
			}
			n := &house{t: t, dir: t.TempDir(), custodian: new(moody), file: o.file}
			if _, imported := n.arrive(file.Bytes(), key, o.root()); (imported == nil) != (err == nil) {
				t.Errorf("killed after %d transactions, the import: %v", kill, imported)
			}
			o.restart()
			if o.Residence().Frozen == 0 {
				t.Fatal("it is not frozen any more")
			}
		}
		o.takeOut(id)
		o.checkStore()
	})
}
