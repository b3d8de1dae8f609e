package record

import (
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/vocab"
)

// fieldsOf calls fn with each field of a struct, those of embedded structs
// included.
func fieldsOf(v reflect.Value, fn func(name string, field reflect.Value)) {
	for i := range v.NumField() {
		if v.Type().Field(i).Anonymous {
			fieldsOf(v.Field(i), fn)
		} else {
			fn(v.Type().Field(i).Name, v.Field(i))
		}
	}
}

// alter gives a field another value that can be stored.
func alter(t *testing.T, name string, v reflect.Value) {
	t.Helper()
	switch v.Kind() {
	case reflect.Array:
		v.Index(0).SetUint(v.Index(0).Uint() ^ 1)
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(v.Uint() ^ 1)
	case reflect.Int64:
		v.SetInt(v.Int() + int64(time.Second))
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.String:
		v.SetString(v.String() + "x")
	case reflect.Slice:
		v.Set(reflect.Append(v, reflect.New(v.Type().Elem()).Elem()))
		if p, ok := reflect.TypeAssert[*vocab.Principal](v.Index(v.Len() - 1).Addr()); ok {
			*p = user(t, "mallory")
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
	default:
		t.Fatalf("the test does not know how to change %s", name)
	}
}

// Whoever edits any field of a license in the store changes its state, which
// an event holds.
func TestStateCoversEveryFieldOfALicense(t *testing.T) {
	make1 := func() *License {
		return licenseOf(t, strictOne, shape{owner: "alice", custodian: custodianOne, version: 3})
	}
	want, err := make1().State()
	if err != nil {
		t.Fatal(err)
	}
	if again, err := make1().State(); err != nil || again != want {
		t.Errorf("the state of an equal license is another (%v)", err)
	}
	fieldsOf(reflect.ValueOf(make1()).Elem(), func(name string, _ reflect.Value) {
		l := make1()
		alter(t, name, reflect.ValueOf(l).Elem().FieldByName(name))
		if got, err := l.State(); err != nil || got == want {
			t.Errorf("with another %s the state is the same (%v)", name, err)
		}
	})
	fieldsOf(reflect.ValueOf(&Revocation{}).Elem(), func(name string, _ reflect.Value) {
		l, plain := make1(), make1()
		l.Revoked, plain.Revoked = &Revocation{}, &Revocation{}
		alter(t, name, reflect.ValueOf(l.Revoked).Elem().FieldByName(name))
		a, err := l.State()
		b, err2 := plain.State()
		if err != nil || err2 != nil || a == b {
			t.Errorf("with another %s of the revocation the state is the same (%v, %v)", name, err, err2)
		}
	})
}

func TestStateCoversEverySetting(t *testing.T) {
	want, err := DefaultSettings().State()
	if err != nil {
		t.Fatal(err)
	}
	fields := 0
	defaults := DefaultSettings()
	fieldsOf(reflect.ValueOf(&defaults).Elem(), func(name string, _ reflect.Value) {
		fields++
		s := DefaultSettings()
		field := reflect.ValueOf(&s).Elem().FieldByName(name)
		alter(t, name, field)
		if got, err := s.State(); err != nil || got == want {
			t.Errorf("with another %s the state is the same (%v)", name, err)
		}
	})
	if min := reflect.TypeFor[policy.Settings]().NumField(); fields <= min {
		t.Errorf("only %d settings were looked at", fields)
	}
}

// What is stored and read again has the same state: the event that wrote it
// still vouches for it.
func TestStateSurvivesTheStore(t *testing.T) {
	tx := memory()
	l := licenseOf(t, strictOne, shape{owner: "alice", custodian: custodianOne, version: 3})
	mustPut(t, tx, tenantA, l)
	s := DefaultSettings()
	s.GuestDomains, s.Revision = []string{"fabrikam.test"}, 4
	if err := PutSettings(tx, tenantA, s); err != nil {
		t.Fatal(err)
	}
	back, err := GetLicense(tx, tenantA, strictOne)
	if err != nil {
		t.Fatal(err)
	}
	settings, err := GetSettings(tx, tenantA)
	if err != nil {
		t.Fatal(err)
	}
	for name, pair := range map[string][2]interface{ State() ([32]byte, error) }{"license": {l, back}, "settings": {s, settings}} {
		a, err := pair[0].State()
		b, err2 := pair[1].State()
		if err != nil || err2 != nil || a != b {
			t.Errorf("the state of the %s is another after reading it (%v, %v)", name, err, err2)
		}
	}
}

func TestEachLicenseShowsWhatCannotBeRead(t *testing.T) {
	tx := full(t)
	if err := tx.Put(tableLicenses, key(tenantA, cachedOne[:]), []byte{0xff}); err != nil {
		t.Fatal(err)
	}
	if err := tx.Put(tableLicenses, key(tenantA, []byte{9}), []byte{0xff}); err != nil {
		t.Fatal(err)
	}
	var read []vocab.ContentID
	bad := 0
	if err := EachLicense(tx, tenantA, func(l *License, err error) error {
		if err != nil {
			bad++
			reasonOf(t, err, vocab.ReasonStoreDamaged)
			return nil
		}
		read = append(read, l.Content)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]vocab.ContentID{strictOne, gone}, read); diff != "" || bad != 2 {
		t.Errorf("%d could not be read, want 2 (-want +got):\n%s", bad, diff)
	}
	calls := 0
	if err := EachLicense(tx, tenantA, func(*License, error) error { calls++; return errDisk }); calls != 1 || err == nil {
		t.Errorf("%d calls after an error, and %v", calls, err)
	}
}
