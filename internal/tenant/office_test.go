package tenant_test

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/config"
	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/keys/embedded"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/store/bolt"
	"github.com/openrms/rms/internal/tenant"
	"github.com/openrms/rms/internal/vocab"
)

// office is tenants on one store, which outlive the closing of it.
type office struct {
	t       *testing.T
	dir     string
	store   *bolt.Store
	log     *audit.Log
	tenants map[string]*tenant.Tenant
}

func newOffice(t *testing.T, names ...string) *office {
	t.Helper()
	o := &office{t: t, dir: t.TempDir()}
	o.open(names...)
	t.Cleanup(o.close)
	return o
}

func (o *office) open(names ...string) {
	o.t.Helper()
	var err error
	o.store, err = bolt.Open(bolt.Options{Path: filepath.Join(o.dir, "rms.db"), Stamp: store.Development, Schema: record.Schema, MinFree: -1})
	if err != nil {
		o.t.Fatal(err)
	}
	o.log, o.tenants = audit.New(o.store), map[string]*tenant.Tenant{}
	for _, name := range names {
		d, err := tenant.Open(o.t.Context(), tenant.Deps{
			File: config.Tenant{ID: name, Domains: []string{name + ".test"}}, Store: o.store, Log: o.log,
			Custodians: keyring(func(id vocab.CustodianID) (keys.Custodian, error) {
				c := embedded.Config{ID: id, Path: filepath.Join(o.dir, name), KeyFile: filepath.Join(o.dir, name+".key")}
				if _, err := os.Stat(c.Path); errors.Is(err, fs.ErrNotExist) {
					return embedded.Create(c)
				}
				return embedded.Open(c)
			}),
			Logger: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			o.t.Fatal(err)
		}
		o.tenants[name] = d
		if err := d.Ready(o.t.Context()); err != nil {
			o.t.Fatal(err)
		}
	}
}

func (o *office) close() {
	for _, d := range o.tenants {
		if err := d.Close(); err != nil {
			o.t.Error(err)
		}
	}
	if err := o.store.Close(); err != nil {
		o.t.Error(err)
	}
}

// restart closes everything and opens it again.
func (o *office) restart() {
	o.t.Helper()
	var names []string
	for name := range o.tenants {
		names = append(names, name)
	}
	o.close()
	o.open(names...)
}

// desk is somebody at work in a tenant of an office.
type desk struct {
	*office
	tenant string
	who    *vocab.Identity
	to     tenant.Recipient
}

func (o *office) as(name, tenantName string) *desk {
	o.t.Helper()
	key, err := license.NewRecipientKey(license.XWing)
	if err != nil {
		o.t.Fatal(err)
	}
	to, err := license.ParseRecipient(license.XWing, key.Public(), o.tenants[tenantName].AllowedKEMs())
	if err != nil {
		o.t.Fatal(err)
	}
	return &desk{office: o, tenant: tenantName, to: tenant.Recipient{Sealed: to}, who: &vocab.Identity{
		Issuer: "https://idp." + tenantName + ".test", Subject: name, Addresses: []string{name + "@" + tenantName + ".test"}, Member: tenantName,
	}}
}

func (d *desk) at() *tenant.Tenant { return d.tenants[d.tenant] }
func (d *desk) call() tenant.Call  { return tenant.Call{Caller: d.who, Method: "test"} }

// publish protects something that bob and carol may do anything with, under a
// template or, if that is "", ad hoc.
func (d *desk) publish(template string, parents ...vocab.ContentID) (vocab.ContentID, error) {
	req := tenant.PublishRequest{Template: template, Parents: parents, To: d.to}
	if template == "" {
		req.AdHoc = &policy.AdHoc{Kind: policy.AdHocGrants, Offline: policy.OfflineMax, Grants: []policy.Grant{
			{To: user("bob"), Rights: vocab.AllRights}, {To: user("carol"), Rights: vocab.AllRights},
		}}
	}
	out, err := d.at().Publish(d.t.Context(), d.call(), req)
	if err != nil {
		return vocab.ContentID{}, err
	}
	return out.License.Record.Content, nil
}

func (d *desk) mustPublish(template string, parents ...vocab.ContentID) vocab.ContentID {
	d.t.Helper()
	c, err := d.publish(template, parents...)
	if err != nil {
		d.t.Fatal(err)
	}
	return c
}

// published is when a document was.
func (d *desk) published(c vocab.ContentID) time.Time {
	d.t.Helper()
	v, err := d.at().GetLicense(d.t.Context(), c, anyOwner)
	if err != nil {
		d.t.Fatal(err)
	}
	return v.Record.Issued.Time()
}

func user(name string) vocab.Principal {
	return vocab.Principal{Kind: vocab.KindUser, Value: name + "@contoso.test"}
}

// acquire opens documents in one batch, to keep the use licenses.
func (d *desk) acquire(docs ...vocab.ContentID) []error {
	var items []tenant.AcquireItem
	for _, c := range docs {
		items = append(items, tenant.AcquireItem{Content: c, Right: vocab.RightView, Store: true})
	}
	batch, err := d.at().Acquire(d.t.Context(), d.call(), d.to, items)
	if err != nil {
		return slices.Repeat([]error{err}, len(docs))
	}
	var out []error
	for _, r := range batch.Results {
		out = append(out, r.Err)
	}
	return out
}

// opens is acquire as reasons, "" for what opens.
func (d *desk) opens(docs ...vocab.ContentID) (out []vocab.Reason) {
	for _, err := range d.acquire(docs...) {
		out = append(out, vocab.ReasonOf(err))
	}
	return out
}
