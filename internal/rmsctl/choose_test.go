package rmsctl

import (
	"testing"

	"github.com/openrms/rms/internal/contexts"
	"github.com/openrms/rms/internal/vocab"
)

// A document names its tenant, and nothing else decides where it is opened but
// the user's own contexts.
func TestChoosingTheContext(t *testing.T) {
	contoso, fabrikam, other := vocab.TenantID{1}, vocab.TenantID{2}, vocab.TenantID{3}
	folder := contexts.At(t.TempDir())
	write := func(name, tenant string, id vocab.TenantID) {
		t.Helper()
		err := folder.Write(&contexts.Context{Name: name, Server: "localhost:1", Tenant: tenant, TenantID: id, Roots: []contexts.KeyID{{1}}, TokenFile: "t"})
		if err != nil {
			t.Fatal(err)
		}
	}
	check := func(name string, a *app, document vocab.TenantID, want string, exit int) {
		t.Helper()
		a.folder = folder
		var c *contexts.Context
		var err error
		if document.IsZero() {
			c, err = a.choose()
		} else {
			c, err = a.chooseFor(document)
		}
		if (err == nil) != (exit == 0) || err == nil && c.Name != want || err != nil && describe(err).Exit != exit {
			t.Errorf("%s: got %v, %v", name, c, err)
		}
	}
	none := vocab.TenantID{}
	check("no contexts", &app{}, none, "", exitSignIn)
	check("no contexts, a document", &app{}, contoso, "", exitSignIn)
	write("alice", "contoso", contoso)
	check("the only one", &app{}, none, "alice", 0)
	check("the document's", &app{}, contoso, "alice", 0)
	check("another tenant's document", &app{}, other, "", exitSignIn)
	write("bob", "contoso", contoso)
	write("dana", "fabrikam", fabrikam)
	check("several", &app{}, none, "", exitUsage)
	check("several for the document", &app{}, contoso, "", exitUsage)
	check("one for the document", &app{}, fabrikam, "dana", 0)
	check("named", &app{context: "bob"}, none, "bob", 0)
	check("named and fits", &app{context: "bob"}, contoso, "bob", 0)
	check("named and does not fit", &app{context: "bob"}, fabrikam, "", exitSignIn)
	check("named and not there", &app{context: "eve"}, none, "", exitNotFound)
	check("a path", &app{context: "../alice"}, none, "", exitNotFound)
	check("by tenant", &app{tenant: "fabrikam"}, none, "dana", 0)
	check("by tenant, several", &app{tenant: "contoso"}, none, "", exitUsage)
	check("context and tenant differ", &app{context: "bob", tenant: "fabrikam"}, none, "", exitUsage)
	if err := folder.Use("bob"); err != nil {
		t.Fatal(err)
	}
	check("current", &app{}, none, "bob", 0)
	check("current fits the document", &app{}, contoso, "bob", 0)
	check("current does not fit, another does", &app{}, fabrikam, "dana", 0)
	check("current among the tenant's", &app{tenant: "contoso"}, none, "bob", 0)
}
