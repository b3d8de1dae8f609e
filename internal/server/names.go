package server

import (
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// Resource names: tenants/{tenant}/… as AIP-122 has them.

func tenantName(tenant string) string { return "tenants/" + tenant }

func resourceName(tenant, collection, id string) string {
	return "tenants/" + tenant + "/" + collection + "/" + id
}

// tenantOf returns the tenant a request is addressed to, from its parent or
// name.
func tenantOf(name string) (string, bool) {
	rest, ok := strings.CutPrefix(name, "tenants/")
	if !ok {
		return "", false
	}
	tenant, _, _ := strings.Cut(rest, "/")
	return tenant, vocab.ValidSlug(tenant)
}

// idOf returns the last segment of a name of the wanted tenant and
// collection. A bare ID, without any slash, is accepted too.
func idOf(tenant, collection, name string) (string, error) {
	if !strings.Contains(name, "/") {
		return name, nil
	}
	id, ok := strings.CutPrefix(name, "tenants/"+tenant+"/"+collection+"/")
	if !ok || id == "" || strings.Contains(id, "/") {
		return "", vocab.Errorf(vocab.ReasonRequestInvalid, "the name is not of the form tenants/%s/%s/ID", tenant, collection)
	}
	return id, nil
}

func contentIDOf(tenant, name string) (vocab.ContentID, error) {
	s, err := idOf(tenant, "licenses", name)
	if err != nil {
		return vocab.ContentID{}, err
	}
	id, err := vocab.ParseContentID(s)
	if err != nil {
		return vocab.ContentID{}, vocab.Errorf(vocab.ReasonRequestInvalid, "%s", err)
	}
	return id, nil
}

// restOf returns everything behind the collection in a name: an address or a
// principal, which may hold slashes of its own (RFC 5322 §3.2.3 allows them).
func restOf(tenant, collection, name string) (string, error) {
	id, ok := strings.CutPrefix(name, "tenants/"+tenant+"/"+collection+"/")
	if !ok || id == "" {
		return "", vocab.Errorf(vocab.ReasonRequestInvalid, "the name is not of the form tenants/%s/%s/ID", tenant, collection)
	}
	return id, nil
}

// addressOf returns the name a request is addressed by.
func addressOf(req proto.Message) string {
	switch r := req.(type) {
	case interface{ GetParent() string }:
		return r.GetParent()
	case interface{ GetName() string }:
		return r.GetName()
	case *rmsv1.UpdateLicenseRequest:
		return r.GetLicense().GetName()
	case interface{ GetTemplate() *rmsv1.Template }:
		return r.GetTemplate().GetName()
	case *rmsv1.UpdateSettingsRequest:
		return r.GetSettings().GetName()
	case *rmsv1.UpdateApproversRequest:
		return r.GetApprovers().GetName()
	case *rmsv1.UpdateGroupRequest:
		return r.GetGroup().GetName()
	}
	return ""
}
