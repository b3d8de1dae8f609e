package daemon

import (
	"context"
	"fmt"
	"maps"

	"github.com/openrms/rms/internal/config"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/server"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// broken is a tenant that could not be opened: its keyring is lost, say, or its
// settings were forged. The others are served without it.
type broken struct {
	file config.Tenant
	err  error
}

// ownFault reports whether a tenant could not be opened for a reason of its
// own. A start that was given up, or a full disk, concerns all.
func ownFault(ctx context.Context, err error) bool {
	return ctx.Err() == nil && vocab.ReasonOf(err) != vocab.ReasonStoreFull
}

// breaks notes that a tenant is broken. The operator's log says why; the
// tenant's own log, which is not opened, does not.
func (d *Daemon) breaks(file config.Tenant, err error) *broken {
	d.opts.Log.Error("the tenant is broken and not served",
		"tenant", file.ID, "reason", string(vocab.ReasonOf(err)), "error", err.Error()+causeOf(err))
	return &broken{file: file, err: err}
}

// allBroken returns every broken tenant.
func (r *registry) allBroken() map[string]*broken {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return maps.Clone(r.broken)
}

// told is what callers of the tenant are told: the reason, and none of the
// operator's own matters.
func (b *broken) told() *server.Broken {
	view := b.file.Identity()
	// Which guests come the settings say, and they may be what is broken.
	// Nobody learns more here than whoever asks for the tenant's trust.
	view.GuestDomain = func(string) bool { return true }
	reason := vocab.ReasonOf(b.err)
	if reason == vocab.ReasonConfigurationInvalid {
		// A file of the operator's. For a caller the key is away, as with a
		// Vault that is: the same call succeeds when it is back.
		reason = vocab.ReasonCustodianUnreachable
	}
	return &server.Broken{Identity: view, Err: vocab.Errorf(reason, "this tenant cannot be served until it is repaired").
		WithNext("Ask the service's operator").Because(fmt.Errorf("tenant %s: %w", b.file.ID, b.err))}
}

// brokenStatus is the status of a broken tenant: why, and what there is of it,
// as far as that can be read.
func (d *Daemon) brokenStatus(ctx context.Context, name string, b *broken) *rmsv1.TenantStatus {
	out := &rmsv1.TenantStatus{
		Tenant: "tenants/" + name, Custodian: kindsOf(b.file), Reason: string(vocab.ReasonOf(b.err)), Message: b.err.Error(),
	}
	var t *record.Tenant
	err := d.store.View(ctx, func(r store.Reader) (err error) {
		if t, err = record.GetTenant(r, name); err != nil || t == nil {
			return err
		}
		out.TenantId = t.ID.String()
		out.Licenses, err = record.CountLicenses(r, t.ID)
		return err
	})
	if err == nil && t != nil {
		events, _ := d.log.Size(ctx, t.ID)
		out.Events = int64(events)
	}
	return out
}
