package live_test

import (
	"context"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
	"github.com/openrms/rms/test/rmsdtest"
)

// admin is alice, who edits on a connection of her own.
type admin struct {
	t       *testing.T
	world   *world
	client  int
	alice   *rmsdtest.Caller
	policy  rmsv1.PolicyServiceClient
	license rmsv1.LicenseServiceClient
	signed  grpc.CallOption
}

func newAdmin(t *testing.T, w *world, client int) *admin {
	t.Helper()
	a := &admin{t: t, world: w, client: client, alice: w.site.Caller(t, "alice")}
	conn, signed := a.alice.Conn()
	a.policy, a.license, a.signed = rmsv1.NewPolicyServiceClient(conn), rmsv1.NewLicenseServiceClient(conn), signed
	return a
}

// protect makes a document that bob may view, or one of a template.
func (a *admin) protect(template string) *rmsdtest.Document {
	a.t.Helper()
	r := a.alice.Publish(a.t.Context(), template)
	if r.Outcome != rmsdtest.Received {
		a.t.Fatal(r.Err)
	}
	return r.Document
}

// attempts is how often an edit is tried that others come before.
const attempts = 20

// do makes an edit and notes it. A daemon that is too busy has done nothing,
// and is asked again.
func (a *admin) do(ctx context.Context, in input, call func(context.Context) (revision uint32, err error)) {
	h := a.world.history
	for range attempts {
		from := h.now()
		revision, err := call(ctx)
		to := h.now()
		reason, event, told := rmsdtest.Refusal(err)
		switch {
		case reason == vocab.ReasonOverloaded:
			continue
		case err != nil && !told:
			a.t.Errorf("%s: %s: %v", in.object, in.verb, err)
			return
		}
		out := output{revision: revision, reason: reason}
		h.add(a.client, in, out, event, from, to)
		if in.object == settingsObject {
			in.object = doorObject
			h.add(a.client, in, out, event, from, to)
		}
		return
	}
	a.t.Errorf("%s: %s: the daemon was too busy %d times", in.object, in.verb, attempts)
}

// edit makes the n-th edit of an object. Of two administrators one also deletes
// and revokes.
func (a *admin) edit(ctx context.Context, o *object, also bool, n int) {
	also = also && n%4 < 2
	first := n%4 == 0
	switch {
	case o.kind == theSettings:
		a.setSettings(ctx, o)
	case o.kind == aLicense && also:
		a.revokeOrRestore(ctx, o, first)
	case o.kind == aLicense:
		a.editLicense(ctx, o)
	case also:
		a.deleteOrUndelete(ctx, o, first)
	default:
		a.editTemplate(ctx, o)
	}
}

// template is one with the terms of an edit.
func (in *input) template() *rmsv1.Template {
	t := &rmsv1.Template{
		DisplayNames: map[string]string{"en": allTerms[in.terms].name}, State: rmsv1.Template_STATE_PUBLISHED, Grants: allTerms[in.terms].grants,
	}
	if in.condition == archived {
		t.State = rmsv1.Template_STATE_ARCHIVED
	}
	return t
}

func (a *admin) createTemplate(ctx context.Context, o *object) {
	in := input{object: o.name, verb: create}
	a.do(ctx, in, func(ctx context.Context) (uint32, error) {
		t, err := a.policy.CreateTemplate(ctx, &rmsv1.CreateTemplateRequest{Parent: rmsdtest.Parent, TemplateId: o.name, Template: in.template()}, a.signed)
		return t.GetRevision(), err
	})
}

func (a *admin) editTemplate(ctx context.Context, o *object) {
	in := input{object: o.name, verb: edit, terms: rand.IntN(len(allTerms))}
	if rand.IntN(3) == 0 {
		in.condition = archived
	}
	a.do(ctx, in, func(ctx context.Context) (uint32, error) {
		t := in.template()
		t.Name, t.Etag = o.resource, "*"
		t, err := a.policy.UpdateTemplate(ctx, &rmsv1.UpdateTemplateRequest{Template: t}, a.signed)
		return t.GetRevision(), err
	})
}

func (a *admin) deleteOrUndelete(ctx context.Context, o *object, del bool) {
	in := input{object: o.name, verb: undelete}
	if del {
		in.verb = remove
	}
	a.do(ctx, in, func(ctx context.Context) (uint32, error) {
		if !del {
			t, err := a.policy.UndeleteTemplate(ctx, &rmsv1.UndeleteTemplateRequest{Name: o.resource}, a.signed)
			return t.GetRevision(), err
		}
		t, err := a.policy.DeleteTemplate(ctx, &rmsv1.DeleteTemplateRequest{Name: o.resource, Etag: "*", Force: true}, a.signed)
		return t.GetRevision(), err
	})
}

func (a *admin) editLicense(ctx context.Context, o *object) {
	in := input{object: o.name, verb: edit, terms: rand.IntN(len(allTerms))}
	a.do(ctx, in, func(ctx context.Context) (uint32, error) {
		l, err := a.license.UpdateLicense(ctx, &rmsv1.UpdateLicenseRequest{
			License: &rmsv1.License{Name: o.resource, Etag: "*", Policy: &rmsv1.License_AdHoc{AdHoc: &rmsv1.AdHocPolicy{
				Kind: rmsv1.AdHocPolicy_KIND_GRANTS, Grants: allTerms[in.terms].grants,
			}}},
			UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"ad_hoc"}},
		}, a.signed)
		return l.GetRevision(), err
	})
}

func (a *admin) revokeOrRestore(ctx context.Context, o *object, rev bool) {
	in := input{object: o.name, verb: restore}
	if rev {
		in.verb = revoke
	}
	a.do(ctx, in, func(ctx context.Context) (uint32, error) {
		if !rev {
			l, err := a.license.RestoreLicense(ctx, &rmsv1.RestoreLicenseRequest{Name: o.resource}, a.signed)
			return l.GetRevision(), err
		}
		r, err := a.license.RevokeLicense(ctx, &rmsv1.RevokeLicenseRequest{Name: o.resource, Reason: "a test"}, a.signed)
		return r.GetLicense().GetRevision(), err
	})
}

// Those who may protect: of bob it hangs on the settings.
var (
	publishers = []string{"user:alice@contoso.test", "user:carla@contoso.test"}
	withBob    = append(slices.Clip(publishers), "user:bob@contoso.test")
)

// Custody is raised once, and stays: lowering it takes a second person. Whoever
// still writes the lower mode is done before.
var (
	raising sync.RWMutex
	raised  bool
)

// setSettings sets what nobody has set before.
func (a *admin) setSettings(ctx context.Context, o *object) {
	if rand.IntN(40) == 0 {
		raising.Lock()
		defer raising.Unlock()
		raised = true
	} else {
		raising.RLock()
		defer raising.RUnlock()
	}
	in := input{object: o.name, verb: set, settings: settings{
		offline: time.Hour + time.Duration(a.world.set.Add(1))*time.Minute,
		strict:  raised, issuerOpens: rand.IntN(2) == 0, bobPublish: rand.IntN(2) == 0,
	}}
	a.do(ctx, in, func(ctx context.Context) (uint32, error) {
		s := &rmsv1.Settings{
			Name: o.resource, Etag: "*", OfflineMax: durationpb.New(in.settings.offline), IssuerOpensRevoked: in.settings.issuerOpens,
			CustodyMode: rmsv1.CustodyMode_CUSTODY_MODE_CACHED, Publishers: publishers,
		}
		if in.settings.strict {
			s.CustodyMode = rmsv1.CustodyMode_CUSTODY_MODE_STRICT
		}
		if in.settings.bobPublish {
			s.Publishers = withBob
		}
		s, err := a.policy.UpdateSettings(ctx, &rmsv1.UpdateSettingsRequest{
			Settings: s, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"offline_max", "issuer_opens_revoked", "custody_mode", "publishers"}},
		}, a.signed)
		return settingsOutput(s).revision, err
	})
}

// settingsOutput is what settings say that were read; nothing if there are none.
func settingsOutput(s *rmsv1.Settings) output {
	revision, _ := strconv.ParseUint(s.GetEtag(), 10, 32) // 0 is no revision that was written
	return output{revision: uint32(revision), settings: settings{
		offline: s.GetOfflineMax().AsDuration(), strict: s.GetCustodyMode() == rmsv1.CustodyMode_CUSTODY_MODE_STRICT,
		issuerOpens: s.GetIssuerOpensRevoked(), bobPublish: len(s.GetPublishers()) == len(withBob),
	}}
}
