package access_test

import (
	"errors"
	"io"
	"testing"
	"time"

	"filippo.io/age"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/openrms/rms/internal/license"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// requests makes the request of each method's happy path, new for each call:
// valid in all but perhaps the caller, so that no other mistake can pose as a
// denial. A method without an entry fails the test.
var requests = map[string]func(*testing.T, *world) proto.Message{
	"rms.v1.ProtectionService/GetTrust": func(*testing.T, *world) proto.Message {
		return &rmsv1.GetTrustRequest{Parent: "tenants/contoso"}
	},
	"rms.v1.ProtectionService/ListUsableTemplates": func(*testing.T, *world) proto.Message {
		return &rmsv1.ListUsableTemplatesRequest{Parent: "tenants/contoso"}
	},
	"rms.v1.ProtectionService/Publish": func(_ *testing.T, w *world) proto.Message { return w.publishRequest() },
	"rms.v1.ProtectionService/Acquire": func(t *testing.T, w *world) proto.Message {
		return &rmsv1.AcquireRequest{
			Parent: "tenants/contoso", Right: rmsv1.Right_RIGHT_VIEW, Delivery: w.recipient,
			Document: &rmsv1.AcquireRequest_PublishingLicense{PublishingLicense: w.publish(t).GetPublishingLicense()},
		}
	},
	"rms.v1.ProtectionService/BatchAcquire": func(t *testing.T, w *world) proto.Message {
		return &rmsv1.BatchAcquireRequest{Parent: "tenants/contoso", Delivery: w.recipient, Items: []*rmsv1.AcquireRequest{{
			Right: rmsv1.Right_RIGHT_VIEW, Document: &rmsv1.AcquireRequest_License{License: w.publish(t).GetLicense().GetName()},
		}}}
	},

	"rms.v1.LicenseService/GetLicense": func(t *testing.T, w *world) proto.Message {
		return &rmsv1.GetLicenseRequest{Name: w.publish(t).GetLicense().GetName()}
	},
	"rms.v1.LicenseService/ListLicenses": func(*testing.T, *world) proto.Message {
		return &rmsv1.ListLicensesRequest{Parent: "tenants/contoso", Owner: "user:bob@contoso.test"}
	},
	"rms.v1.LicenseService/UpdateLicense": func(t *testing.T, w *world) proto.Message {
		l := w.publish(t).GetLicense()
		return &rmsv1.UpdateLicenseRequest{
			License: &rmsv1.License{Name: l.GetName(), Etag: l.GetEtag(), Title: "another title"}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"title"}},
		}
	},
	"rms.v1.LicenseService/RevokeLicense": func(t *testing.T, w *world) proto.Message {
		return &rmsv1.RevokeLicenseRequest{Name: w.publish(t).GetLicense().GetName(), Reason: "a test"}
	},
	"rms.v1.LicenseService/RestoreLicense": func(t *testing.T, w *world) proto.Message {
		return &rmsv1.RestoreLicenseRequest{Name: w.revoked(t)}
	},
	"rms.v1.LicenseService/ListLicenseEvents": func(t *testing.T, w *world) proto.Message {
		return &rmsv1.ListLicenseEventsRequest{Name: w.publish(t).GetLicense().GetName()}
	},

	"rms.v1.LicenseService/RevokeLicenses": func(t *testing.T, w *world) proto.Message { return w.revokeRequest(t) },
	"rms.v1.LicenseService/GetRevocation": func(t *testing.T, w *world) proto.Message {
		return &rmsv1.GetRevocationRequest{Name: w.revocation(t)}
	},
	"rms.v1.LicenseService/ListRevocations": func(*testing.T, *world) proto.Message {
		return &rmsv1.ListRevocationsRequest{Parent: "tenants/contoso", Owner: "user:bob@contoso.test"}
	},
	"rms.v1.LicenseService/RestoreLicenses": func(t *testing.T, w *world) proto.Message {
		return &rmsv1.RestoreLicensesRequest{Name: w.revocation(t)}
	},
	"rms.v1.LicenseService/TransferLicenses": func(*testing.T, *world) proto.Message {
		return &rmsv1.TransferLicensesRequest{Parent: "tenants/contoso", From: "user:gone@contoso.test", To: "user:carla@contoso.test"}
	},

	"rms.v1.OperationService/GetOperation": func(t *testing.T, w *world) proto.Message {
		return &rmsv1.GetOperationRequest{Name: w.waiting(t).GetName()}
	},
	"rms.v1.OperationService/ListOperations": func(*testing.T, *world) proto.Message {
		return &rmsv1.ListOperationsRequest{Parent: "tenants/contoso"}
	},
	"rms.v1.OperationService/ApproveOperation": func(t *testing.T, w *world) proto.Message {
		o := w.waiting(t)
		return &rmsv1.ApproveOperationRequest{Name: o.GetName(), ParamsSha256: o.GetParamsSha256()}
	},
	"rms.v1.OperationService/RejectOperation": func(t *testing.T, w *world) proto.Message {
		return &rmsv1.RejectOperationRequest{Name: w.waiting(t).GetName()}
	},
	"rms.v1.OperationService/PauseOperation": func(t *testing.T, w *world) proto.Message {
		if w.trying == "policy-admin" {
			name, _ := w.resealing(t)
			return &rmsv1.PauseOperationRequest{Name: name}
		}
		return &rmsv1.PauseOperationRequest{Name: w.waiting(t).GetName()}
	},
	"rms.v1.OperationService/ResumeOperation": func(t *testing.T, w *world) proto.Message {
		if w.trying == "policy-admin" {
			return &rmsv1.ResumeOperationRequest{Name: w.paused(t)}
		}
		return &rmsv1.ResumeOperationRequest{Name: w.waiting(t).GetName()}
	},
	"rms.v1.OperationService/CancelOperation": func(t *testing.T, w *world) proto.Message {
		return &rmsv1.CancelOperationRequest{Name: w.waiting(t).GetName()}
	},
	"rms.v1.OperationService/WatchOperation": func(t *testing.T, w *world) proto.Message {
		return &rmsv1.WatchOperationRequest{Name: w.waiting(t).GetName()}
	},
	"rms.v1.RecoveryService/RequestRecovery": func(*testing.T, *world) proto.Message {
		return &rmsv1.RequestRecoveryRequest{
			Parent: "tenants/contoso", Scope: &rmsv1.RequestRecoveryRequest_Owner{Owner: "user:bob@contoso.test"},
			Until: timestamppb.New(time.Now().Add(time.Hour)), Reason: "a test", Ticket: "TEST-1",
		}
	},
	"rms.v1.HoldService/GetHold": func(*testing.T, *world) proto.Message {
		return &rmsv1.GetHoldRequest{Name: "tenants/contoso/hold"}
	},
	"rms.v1.HoldService/ReleaseTenant": func(*testing.T, *world) proto.Message {
		return &rmsv1.ReleaseTenantRequest{Parent: "tenants/contoso", Reason: "a test"}
	},

	"rms.v1.ExitService/RequestExport": func(t *testing.T, _ *world) proto.Message { return exportRequest(t) },
	"rms.v1.ExitService/RequestThaw": func(*testing.T, *world) proto.Message {
		return &rmsv1.RequestThawRequest{Parent: "tenants/contoso", Reason: "a test"}
	},
	"rms.v1.ExitService/GetResidence": func(*testing.T, *world) proto.Message {
		return &rmsv1.GetResidenceRequest{Name: "tenants/contoso/residence"}
	},
	"rms.v1.ExitService/ExportTenant": func(t *testing.T, w *world) proto.Message {
		return &rmsv1.ExportTenantRequest{Name: w.askedToLeave(t)}
	},

	"rms.v1.PolicyService/GetTemplate": func(*testing.T, *world) proto.Message {
		return &rmsv1.GetTemplateRequest{Name: "tenants/contoso/templates/finance-internal"}
	},
	"rms.v1.PolicyService/ListTemplates": func(*testing.T, *world) proto.Message {
		return &rmsv1.ListTemplatesRequest{Parent: "tenants/contoso"}
	},
	"rms.v1.PolicyService/CreateTemplate": func(_ *testing.T, w *world) proto.Message {
		return &rmsv1.CreateTemplateRequest{Parent: "tenants/contoso", TemplateId: w.slug(), Template: templateForm()}
	},
	"rms.v1.PolicyService/UpdateTemplate": func(t *testing.T, w *world) proto.Message {
		old, next := w.template(t), templateForm()
		next.Name, next.Etag = old.GetName(), old.GetEtag()
		next.DisplayNames["de"] = "Von einem Test"
		return &rmsv1.UpdateTemplateRequest{Template: next}
	},
	"rms.v1.PolicyService/PreviewTemplate": func(t *testing.T, w *world) proto.Message {
		next := templateForm()
		next.Name = w.template(t).GetName()
		next.Grants = nil
		return &rmsv1.PreviewTemplateRequest{Template: next}
	},
	"rms.v1.PolicyService/DeleteTemplate": func(t *testing.T, w *world) proto.Message {
		old := w.template(t)
		return &rmsv1.DeleteTemplateRequest{Name: old.GetName(), Etag: old.GetEtag()}
	},
	"rms.v1.PolicyService/UndeleteTemplate": func(t *testing.T, w *world) proto.Message {
		return &rmsv1.UndeleteTemplateRequest{Name: w.deleted(t)}
	},
	"rms.v1.PolicyService/ListTemplateRevisions": func(*testing.T, *world) proto.Message {
		return &rmsv1.ListTemplateRevisionsRequest{Name: "tenants/contoso/templates/finance-internal"}
	},
	"rms.v1.PolicyService/GetSettings": func(*testing.T, *world) proto.Message {
		return &rmsv1.GetSettingsRequest{Name: "tenants/contoso/settings"}
	},
	"rms.v1.PolicyService/UpdateSettings": func(_ *testing.T, w *world) proto.Message {
		w.made++
		return &rmsv1.UpdateSettingsRequest{
			Settings: &rmsv1.Settings{
				Name: "tenants/contoso/settings", Etag: "*", OfflineMax: &durationpb.Duration{Seconds: 86400 + int64(w.made)},
			},
			UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"offline_max"}},
		}
	},
	"rms.v1.PolicyService/ExplainEvent": func(t *testing.T, w *world) proto.Message {
		return &rmsv1.ExplainEventRequest{Name: "tenants/contoso/events/" + w.publish(t).GetEvent()}
	},
	"rms.v1.PolicyService/EvaluateAccess": func(t *testing.T, w *world) proto.Message {
		return &rmsv1.EvaluateAccessRequest{
			Parent: "tenants/contoso", Caller: &rmsv1.SupposedCaller{Principal: "user:bob@contoso.test"},
			Document: &rmsv1.EvaluateAccessRequest_License{License: w.publish(t).GetLicense().GetName()},
		}
	},
	"rms.v1.PolicyService/ListAccess": func(*testing.T, *world) proto.Message {
		return &rmsv1.ListAccessRequest{Parent: "tenants/contoso", Caller: &rmsv1.SupposedCaller{Principal: "user:bob@contoso.test"}}
	},

	"rms.v1.PeopleService/GetGroup": func(t *testing.T, w *world) proto.Message {
		return &rmsv1.GetGroupRequest{Name: w.group(t).GetName()}
	},
	"rms.v1.PeopleService/ListGroups": func(*testing.T, *world) proto.Message {
		return &rmsv1.ListGroupsRequest{Parent: "tenants/contoso"}
	},
	"rms.v1.PeopleService/CreateGroup": func(_ *testing.T, w *world) proto.Message {
		return &rmsv1.CreateGroupRequest{Parent: "tenants/contoso", GroupId: w.address(), Group: &rmsv1.Group{Members: []string{"user:bob@contoso.test"}}}
	},
	"rms.v1.PeopleService/UpdateGroup": func(t *testing.T, w *world) proto.Message {
		g := w.group(t)
		return &rmsv1.UpdateGroupRequest{Group: &rmsv1.Group{Name: g.GetName(), Etag: g.GetEtag(), Members: []string{"user:mallory@contoso.test"}}}
	},
	"rms.v1.PeopleService/DeleteGroup": func(t *testing.T, w *world) proto.Message {
		g := w.group(t)
		return &rmsv1.DeleteGroupRequest{Name: g.GetName(), Etag: g.GetEtag()}
	},
	"rms.v1.PeopleService/GetRole": func(*testing.T, *world) proto.Message {
		return &rmsv1.GetRoleRequest{Name: "tenants/contoso/roles/auditor"}
	},
	"rms.v1.PeopleService/ListRoles": func(*testing.T, *world) proto.Message {
		return &rmsv1.ListRolesRequest{Parent: "tenants/contoso"}
	},
	"rms.v1.PeopleService/GrantRole": func(_ *testing.T, w *world) proto.Message {
		return &rmsv1.GrantRoleRequest{Name: "tenants/contoso/roles/policy-admin", Principal: "user:" + w.address()}
	},
	"rms.v1.PeopleService/RevokeRole": func(t *testing.T, w *world) proto.Message {
		return &rmsv1.RevokeRoleRequest{Name: "tenants/contoso/roles/policy-admin", Principal: w.policyAdmin(t)}
	},
	"rms.v1.PeopleService/GetPrincipal": func(*testing.T, *world) proto.Message {
		return &rmsv1.GetPrincipalRequest{Name: "tenants/contoso/principals/user:bob@contoso.test"}
	},
	"rms.v1.PeopleService/ListDisabledPrincipals": func(*testing.T, *world) proto.Message {
		return &rmsv1.ListDisabledPrincipalsRequest{Parent: "tenants/contoso"}
	},
	"rms.v1.PeopleService/DisablePrincipal": func(_ *testing.T, w *world) proto.Message {
		return &rmsv1.DisablePrincipalRequest{Name: "tenants/contoso/principals/user:" + w.address(), Reason: "a test"}
	},
	"rms.v1.PeopleService/EnablePrincipal": func(t *testing.T, w *world) proto.Message {
		return &rmsv1.EnablePrincipalRequest{Name: w.disabled(t)}
	},

	"rms.v1.CustodyService/ListKeys": func(*testing.T, *world) proto.Message {
		return &rmsv1.ListKeysRequest{Parent: "tenants/contoso"}
	},
	"rms.v1.CustodyService/GetKey": func(*testing.T, *world) proto.Message {
		return &rmsv1.GetKeyRequest{Name: "tenants/contoso/keys/root"}
	},
	"rms.v1.CustodyService/Rewrap": func(*testing.T, *world) proto.Message {
		return &rmsv1.RewrapRequest{Parent: "tenants/contoso", ValidateOnly: true}
	},
	"rms.v1.CustodyService/Reseal": func(t *testing.T, w *world) proto.Message {
		return &rmsv1.ResealRequest{Name: w.archived(t), ValidateOnly: true}
	},
	"rms.v1.CustodyService/GetInventory": func(*testing.T, *world) proto.Message {
		return &rmsv1.GetInventoryRequest{Parent: "tenants/contoso"}
	},
	"rms.v1.CustodyService/ListCustodians": func(*testing.T, *world) proto.Message {
		return &rmsv1.ListCustodiansRequest{Parent: "tenants/contoso"}
	},
	"rms.v1.CustodyService/RegisterKey": func(*testing.T, *world) proto.Message {
		return &rmsv1.RegisterKeyRequest{Parent: "tenants/contoso", KeyId: "another", Custodian: "another"}
	},
	// It is active already: then it stays so.
	"rms.v1.CustodyService/ActivateKey": func(*testing.T, *world) proto.Message {
		return &rmsv1.ActivateKeyRequest{Name: "tenants/contoso/keys/root"}
	},
	"rms.v1.CustodyService/SyncKey": func(*testing.T, *world) proto.Message {
		return &rmsv1.SyncKeyRequest{Name: "tenants/contoso/keys/root"}
	},
	"rms.v1.CustodyService/ProbeKey": func(*testing.T, *world) proto.Message {
		return &rmsv1.ProbeKeyRequest{Name: "tenants/contoso/keys/root"}
	},
	"rms.v1.CustodyService/RotateKey": func(*testing.T, *world) proto.Message {
		return &rmsv1.RotateKeyRequest{Name: "tenants/contoso/keys/root"}
	},
	"rms.v1.CustodyService/SuspendKey": func(t *testing.T, w *world) proto.Message {
		return &rmsv1.SuspendKeyRequest{Name: w.oldGeneration(t), Reason: "a test"}
	},
	"rms.v1.CustodyService/ResumeKey": func(t *testing.T, w *world) proto.Message {
		return &rmsv1.ResumeKeyRequest{Name: w.suspendedGeneration(t)}
	},
	"rms.v1.CustodyService/CompromiseKey": func(t *testing.T, w *world) proto.Message {
		return &rmsv1.CompromiseKeyRequest{Name: w.oldGeneration(t), Reason: "a test"}
	},
	"rms.v1.CustodyService/ListDependants": func(*testing.T, *world) proto.Message {
		return &rmsv1.ListDependantsRequest{Name: "tenants/contoso/keys/root"}
	},
	"rms.v1.CustodyService/DestroyKey": func(t *testing.T, w *world) proto.Message {
		return &rmsv1.DestroyKeyRequest{Name: w.emptyGeneration(t), DespiteSoak: true, Reason: "a test"}
	},
	// It is done already: then it stays so.
	"rms.v1.CustodyService/FinishDestroyKey": func(t *testing.T, w *world) proto.Message {
		return &rmsv1.FinishDestroyKeyRequest{Name: w.destruction(t)}
	},
	"rms.v1.CustodyService/GetApprovers": func(*testing.T, *world) proto.Message {
		return &rmsv1.GetApproversRequest{Name: "tenants/contoso/approvers"}
	},
	"rms.v1.CustodyService/UpdateApprovers": func(*testing.T, *world) proto.Message {
		return &rmsv1.UpdateApproversRequest{Approvers: &rmsv1.Approvers{
			Name: "tenants/contoso/approvers", Threshold: 2,
			// Public keys made for this test alone.
			Approvers: []*rmsv1.Approvers_Approver{
				{Principal: "user:tessa@contoso.test", Keys: []string{"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAICERnv2bPnuIRF48UqwlGOVuMB/1pC8K7uwN9I4Xud4N"}},
				{Principal: "user:carla@contoso.test", Keys: []string{"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"}},
			},
		}}
	},

	"rms.v1.CustodyService/GetEvidence": func(*testing.T, *world) proto.Message {
		return &rmsv1.GetEvidenceRequest{Parent: "tenants/contoso"}
	},
	"rms.v1.CustodyService/RehearseSuspension": func(*testing.T, *world) proto.Message {
		return &rmsv1.RehearseSuspensionRequest{Parent: "tenants/contoso"}
	},
	// Nobody refuses it, and it waits for nothing.
	"rms.v1.CustodyService/RehearseRefusal": func(t *testing.T, w *world) proto.Message {
		return &rmsv1.RehearseRefusalRequest{Name: w.anotherKey(t), Wait: &durationpb.Duration{}}
	},

	"rms.v1.AuditService/GetEvent": func(t *testing.T, w *world) proto.Message {
		return &rmsv1.GetEventRequest{Name: "tenants/contoso/events/" + w.publish(t).GetEvent()}
	},
	"rms.v1.AuditService/ListEvents": func(*testing.T, *world) proto.Message {
		return &rmsv1.ListEventsRequest{Parent: "tenants/contoso"}
	},
	"rms.v1.AuditService/TailEvents": func(*testing.T, *world) proto.Message {
		return &rmsv1.TailEventsRequest{Parent: "tenants/contoso"}
	},
	"rms.v1.AuditService/ExportEvents": func(*testing.T, *world) proto.Message {
		return &rmsv1.ExportEventsRequest{Parent: "tenants/contoso"}
	},
	"rms.v1.AuditService/GetCheckpoint": func(*testing.T, *world) proto.Message {
		return &rmsv1.GetCheckpointRequest{Parent: "tenants/contoso"}
	},
	"rms.v1.AuditService/GetProof": func(t *testing.T, w *world) proto.Message {
		return &rmsv1.GetProofRequest{Parent: "tenants/contoso", Event: w.publish(t).GetEvent()}
	},

	"rms.v1.OperatorService/Status":     func(*testing.T, *world) proto.Message { return &rmsv1.StatusRequest{} },
	"rms.v1.OperatorService/Reload":     func(*testing.T, *world) proto.Message { return &rmsv1.ReloadRequest{} },
	"rms.v1.OperatorService/CheckStore": func(*testing.T, *world) proto.Message { return &rmsv1.CheckStoreRequest{} },

	"rms.v1.OperatorService/Backup":      func(t *testing.T, _ *world) proto.Message { return backupRequest(t) },
	"rms.v1.OperatorService/ListBackups": func(*testing.T, *world) proto.Message { return &rmsv1.ListBackupsRequest{} },
	"rms.v1.OperatorService/ForgetBackup": func(t *testing.T, w *world) proto.Message {
		return &rmsv1.ForgetBackupRequest{Backup: w.backup(t), Reason: "a test"}
	},
}

func backupRequest(t *testing.T) *rmsv1.BackupRequest {
	t.Helper()
	key, err := age.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	return &rmsv1.BackupRequest{Recipients: []string{key.Recipient().String()}, KeepUntil: timestamppb.New(time.Now().Add(time.Hour))}
}

// backup makes a backup and returns its ID.
func (w *world) backup(t *testing.T) (id string) {
	t.Helper()
	stream, err := rmsv1.NewOperatorServiceClient(w.operator).Backup(t.Context(), backupRequest(t))
	for err == nil {
		var r *rmsv1.BackupResponse
		if r, err = stream.Recv(); err == nil && r.GetBegin() != nil {
			id = r.GetBegin().GetBackup()
		}
	}
	if !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	return id
}

func exportRequest(t *testing.T) *rmsv1.RequestExportRequest {
	t.Helper()
	key, err := license.NewRecipientKey(license.XWing)
	if err != nil {
		t.Fatal(err)
	}
	return &rmsv1.RequestExportRequest{
		Parent: "tenants/contoso", Recipient: &rmsv1.HpkePublicKey{Kem: uint32(key.KEM()), PublicKey: key.Public()}, Reason: "a test",
	}
}

// askedToLeave asks for an export, which nobody approves: what comes after it is
// another world.
func (w *world) askedToLeave(t *testing.T) string {
	t.Helper()
	ctx, conn := w.as(t.Context(), "key-custodian", "")
	o, err := rmsv1.NewExitServiceClient(conn).RequestExport(ctx, exportRequest(t))
	if err != nil {
		t.Fatal(err)
	}
	return o.GetName()
}
