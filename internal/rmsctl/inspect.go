package rmsctl

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/openrms/rms"
	"github.com/openrms/rms/internal/contexts"
)

func (a *app) inspectCommand() *cobra.Command {
	return a.formatFlag(&cobra.Command{
		Use:   "inspect FILE",
		Short: "Show what a document says of itself, without server and key",
		Args:  cobra.ExactArgs(1),
		RunE:  a.run(func(_ context.Context, args []string) error { return a.inspect(args[0]) }),
	})
}

// inspection is what a document says of itself, as it is printed.
type inspection struct {
	File       string `json:"file"`
	License    string `json:"license"`
	TenantID   string `json:"tenant_id"`
	Tenant     string `json:"tenant,omitempty"` // by the user's contexts
	Context    string `json:"context,omitempty"`
	Issued     string `json:"issued,omitempty"`
	Suite      uint16 `json:"content_suite"`
	Size       int64  `json:"content_bytes"`
	Segments   int64  `json:"segments"`
	Generation string `json:"generation,omitempty"`
	Custody    string `json:"custody,omitempty"`
	Signer     string `json:"signer,omitempty"`
	Signature  string `json:"signature"`
	Service    string `json:"service,omitempty"`
	Contact    string `json:"contact,omitempty"`
	Descriptor string `json:"descriptor,omitempty"`
}

// segmentSize is that of the content stream: ciphertext, its tag of 16 bytes
// included.
const segmentSize = 1 << 20

func (a *app) inspect(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	tenant, _, err := identify(path)
	if err != nil {
		return err
	}
	c := a.contextOf(tenant)
	var trust *rms.Trust
	if c != nil {
		t, err := trustOf(c)
		if err != nil {
			return err
		}
		trust = &t
	}
	i, err := rms.Inspect(f, st.Size(), trust)
	if err != nil {
		return err
	}
	out := inspection{
		File: path, License: i.License.String(), TenantID: i.TenantID.String(), Suite: i.ContentSuite, Size: i.ContentSize,
		Segments:   max(1, (st.Size()-i.ContentOffset+segmentSize-1)/segmentSize),
		Generation: i.Generation, Signer: i.Signer, Service: i.Service, Contact: i.Contact, Descriptor: i.Descriptor,
	}
	if c != nil {
		out.Tenant, out.Context = c.Tenant, c.Name
	}
	var bad error
	switch {
	case i.LicenseError != nil:
		bad, out.Signature = i.LicenseError, "the license in the file is damaged"
	case i.VerifyError != nil:
		bad, out.Signature = i.VerifyError, "NOT valid"
	case i.Verified:
		out.Signature = "valid, root " + contexts.KeyID(i.RootKeyID).String()
	case c == nil:
		out.Signature = "not verified: none of your contexts is for this tenant"
	default:
		out.Signature = "not verified: context " + c.Name + " has no trust bundle yet; open something once"
	}
	if i.LicenseError == nil {
		out.Issued, out.Custody = showTime(i.IssuedAt), "cached"
		if i.Strict {
			out.Custody = "strict"
		}
	}
	if err := a.emit(out, func() { a.showInspection(out) }); err != nil {
		return err
	}
	return bad
}

func (a *app) showInspection(i inspection) {
	t := newTable(a.stdout)
	add := func(what, value string) {
		if value != "" {
			t.row(what, value)
		}
	}
	add("license", i.License)
	name := i.TenantID
	if i.Tenant != "" {
		name = i.Tenant + " (" + i.TenantID + "), context " + i.Context
	}
	add("tenant", name)
	add("issued", i.Issued)
	add("signature", i.Signature)
	add("signed by", i.Signer)
	add("content", fmt.Sprintf("%s in %s, suite %d", showSize(i.Size), plural(int(i.Segments), "segment", "segments"), i.Suite))
	if i.Generation != "" {
		add("key", "generation "+i.Generation+", "+i.Custody)
	}
	add("contact", i.Contact)
	add("service", i.Service)
	add("about", i.Descriptor)
	t.flush()
}

// contextOf returns a context of the tenant that knows the most of its trust,
// nil if there is none.
func (a *app) contextOf(tenant rms.TenantID) *contexts.Context {
	if c, err := a.chooseFor(tenant); err == nil && c.Bundle != "" {
		return c
	}
	all, err := a.folder.All()
	if err != nil {
		return nil
	}
	var best *contexts.Context
	for _, c := range all {
		if c.TenantID == tenant && (best == nil || c.BundleSeq > best.BundleSeq) {
			best = c
		}
	}
	return best
}
