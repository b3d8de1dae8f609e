package rms_test

import (
	"errors"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/openrms/rms"
	"github.com/openrms/rms/internal/license"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
	"github.com/openrms/rms/rmstest"
)

// A recovery opens what it is named for, and says so.
func TestByRecovery(t *testing.T) {
	svc := rmstest.Start(t)
	bob, heidi, alice := svc.Client("bob"), svc.Client("heidi"), svc.Client("alice")
	document, made := protect(t, bob, []byte("for carla alone"), rms.ProtectOptions{
		AdHoc: rms.AdHoc(rms.Grant("user:carla@contoso.test", rms.Rights(1))),
	})
	o, err := heidi.Recovery().RequestRecovery(t.Context(), &rmsv1.RequestRecoveryRequest{
		Parent: heidi.Tenant(), Scope: &rmsv1.RequestRecoveryRequest_License{License: made.License.String()},
		Until: timestamppb.New(time.Now().Add(time.Hour)), Reason: "a test", Ticket: "TEST-1",
	})
	if err != nil {
		t.Fatal(err)
	}
	id, err := rms.ParseOperationID(o.GetName()[len(heidi.Tenant()+"/operations/"):])
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := open(t, heidi, document, rms.ByRecovery(id)); !errors.Is(err, rms.ReasonRecoveryInvalid) {
		t.Errorf("before it was approved: %v", err)
	}
	if _, err := alice.Operations().ApproveOperation(t.Context(), &rmsv1.ApproveOperationRequest{Name: o.GetName(), ParamsSha256: o.GetParamsSha256()}); err != nil {
		t.Fatal(err)
	}
	got, d, err := open(t, heidi, document, rms.ByRecovery(id))
	if err != nil || string(got) != "for carla alone" || !d.BreakGlass {
		t.Errorf("%q, %v; %+v", got, err, d)
	}
	if _, _, err := open(t, heidi, document); !errors.Is(err, rms.ReasonNoRights) {
		t.Errorf("without naming it: %v", err)
	}
	if _, d, err := open(t, bob, document); err != nil || d.BreakGlass {
		t.Errorf("the owner: %v, %+v", err, d)
	}
}

// What waits for approval is named in the error.
func TestErrorsNameTheOperation(t *testing.T) {
	svc := rmstest.Start(t)
	_, made := protect(t, svc.Client("bob"), []byte("x"), rms.ProtectOptions{AdHoc: rms.AdHoc(rms.Grant("user:carla@contoso.test", rms.Rights(1)))})
	_, err := svc.Client("alice").Licenses().UpdateLicense(t.Context(), ownerUpdate(made, "user:alice@contoso.test"))
	e, ok := errors.AsType[*rms.Error](err)
	if !ok || e.Reason != rms.ReasonApprovalRequired || e.Operation.IsZero() || e.Event.IsZero() {
		t.Fatalf("%v, want APPROVAL_REQUIRED with its operation", err)
	}
	grace := svc.Client("grace")
	if _, err := grace.Operations().GetOperation(t.Context(), &rmsv1.GetOperationRequest{Name: grace.Tenant() + "/operations/" + e.Operation.String()}); err != nil {
		t.Error(err)
	}
}

// A server cannot take break-glass for an ordinary open, nor the other way
// round, without the client seeing it.
func TestBreakGlassThatIsNotWhatWasAsked(t *testing.T) {
	l := newLiar(t)
	c := dial(t, l.config())
	document, _ := protect(t, c, []byte("the content"), template)
	id, err := rms.ParseOperationID("019a8c1e-77f1-7a31-8c1e-0123456789ab")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := open(t, c, document, rms.ByRecovery(id)); !errors.Is(err, rms.ReasonUseLicenseRejected) {
		t.Errorf("a recovery that left no mark: %v", err)
	}
	l.onUL = func(u *ulInput) { u.Flags |= license.FlagBreakGlass }
	if _, _, err := open(t, c, document); !errors.Is(err, rms.ReasonUseLicenseRejected) {
		t.Errorf("a mark that nobody asked for: %v", err)
	}
	if _, d, err := open(t, c, document, rms.ByRecovery(id)); err != nil || !d.BreakGlass {
		t.Errorf("a recovery that says so: %v", err)
	}
}

func ownerUpdate(made *rms.Protected, owner string) *rmsv1.UpdateLicenseRequest {
	return &rmsv1.UpdateLicenseRequest{
		License:    &rmsv1.License{Name: made.Record.GetName(), Etag: made.Record.GetEtag(), Owner: owner},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"owner"}},
	}
}
