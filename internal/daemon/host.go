package daemon

import (
	"context"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/config"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/tenant"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// Status implements [server.Host].
func (d *Daemon) Status(ctx context.Context) (*rmsv1.StatusResponse, error) {
	out := &rmsv1.StatusResponse{
		Version: Version(), StartTime: timestamppb.New(d.started), Listen: d.Addr(), Development: d.opts.Development,
	}
	if info, err := os.Stat(filepath.Join(d.cfg.DataDir, storeFile)); err == nil {
		out.StoreBytes = info.Size()
	}
	for _, t := range d.tenants.all() {
		state := t.State()
		found, _ := d.tenants.Find(t.Name())
		ts := &rmsv1.TenantStatus{
			Tenant: "tenants/" + t.Name(), TenantId: t.ID().String(), Serving: state.Err == nil && found != nil,
			Custodian: d.tenants.custodianKinds(t.Name()),
		}
		switch {
		case state.Err != nil:
			ts.Reason, ts.Message = string(vocab.ReasonOf(state.Err)), state.Err.Error()
		case found != nil && t.Hold() != nil:
			ts.Serving, ts.Reason = false, string(vocab.ReasonTenantHeld)
			ts.Message = "it was restored from a backup and waits for a tenant-admin: rmsctl tenant hold"
		case !ts.Serving:
			ts.Message = "its file is gone from tenants_dir"
		case t.Residence().Frozen != 0:
			ts.Serving, ts.Reason = false, string(vocab.ReasonTenantFrozen)
			ts.Message = "frozen for its move to another service"
		}
		licenses, events, err := t.Counts(ctx)
		if ctx.Err() != nil {
			return nil, err
		}
		ts.Licenses, ts.Events = licenses, int64(events)
		if err != nil && ts.GetMessage() == "" {
			// The others' numbers are wanted all the more.
			ts.Reason, ts.Message = string(vocab.ReasonOf(err)), "it cannot be counted: "+err.Error()
		}
		out.Tenants = append(out.Tenants, ts)
	}
	for name, b := range d.tenants.allBroken() {
		out.Tenants = append(out.Tenants, d.brokenStatus(ctx, name, b))
	}
	slices.SortFunc(out.Tenants, func(a, b *rmsv1.TenantStatus) int { return strings.Compare(a.GetTenant(), b.GetTenant()) })
	return out, nil
}

// Reload implements [server.Host]. Everything is looked at before anything is
// taken over.
func (d *Daemon) Reload(ctx context.Context) ([]string, error) {
	d.reloading.Lock()
	defer d.reloading.Unlock()
	next, err := config.Load(d.cfg.Path)
	if err != nil {
		return nil, err
	}
	takeTLS, err := d.certs.prepare()
	if err != nil {
		return nil, err
	}
	takeTenants, err := d.prepareTenants(ctx, next.Tenants)
	if err != nil {
		return nil, err
	}
	var changes []string
	if takeTLS() {
		changes = append(changes, "TLS files reloaded")
	}
	changes = append(changes, takeTenants()...)
	if !reflect.DeepEqual(next.File, d.cfg.File) {
		changes = append(changes, "rmsd.yaml itself changed, which takes effect at the next start")
	}
	return changes, nil
}

// CheckStore implements [server.Host].
func (d *Daemon) CheckStore(ctx context.Context) (*rmsv1.CheckStoreResponse, error) {
	r, err := checkStore(ctx, d.store, d.log, filepath.Join(d.cfg.DataDir, checkpointDir))
	if err != nil {
		return nil, err
	}
	return &rmsv1.CheckStoreResponse{Problems: r.problems, Records: r.records, Events: int64(r.events)}, nil
}

// checked is what a check of the store found.
type checked struct {
	problems []string
	records  int64
	events   uint64
}

// checkedStore is a store that can look for damage below its tables.
type checkedStore interface {
	store.Store
	store.Checker
}

// checkStore verifies the store's own structure, every record and index, and
// every tenant's log against its exported checkpoint.
func checkStore(ctx context.Context, s checkedStore, log *audit.Log, checkpoints string) (*checked, error) {
	out := &checked{}
	found := func(err error) { out.problems = append(out.problems, err.Error()) }
	if err := s.Check(ctx, found); err != nil {
		return nil, err
	}
	if len(out.problems) > 0 {
		// Pages that contradict each other can lead in circles: what is on
		// them is not read.
		return out, nil
	}
	tenants := map[string]record.Tenant{}
	if err := s.View(ctx, func(r store.Reader) (err error) {
		if tenants, err = record.ListTenants(r); err != nil {
			return err
		}
		for _, t := range tenants {
			n, err := record.Check(r, t.ID, found)
			if err != nil {
				return err
			}
			out.records += n
		}
		return nil
	}); err != nil {
		return nil, err
	}
	if err := log.CheckExported(ctx, checkpoints); err != nil {
		found(err)
	}
	for _, t := range tenants {
		report, err := log.Verify(ctx, t.ID)
		if report.Bad != nil {
			found(err)
		} else if err != nil {
			return nil, err
		}
		out.events += report.Size
		if report.Bad == nil {
			if err := tenant.CheckBinding(ctx, s, log, t.ID, found); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}
