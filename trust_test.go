package rms

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// signed returns a bundle of a tenant with one root.
func signed(t *testing.T, root *license.DaemonKey, tenant vocab.TenantID, seq uint64, at time.Time) *license.Bundle {
	t.Helper()
	b, err := license.SignBundle(t.Context(), license.Bundle{
		Tenant: tenant, IssuedAt: at, Seq: seq, NextUpdate: at.Add(30 * 24 * time.Hour), Suites: license.DefaultSuites(),
		Roots: []license.Root{{Key: root.PublicKey(), Version: 1, State: license.RootCurrent}},
	}, root)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A client that lives long looks for a newer bundle, and does without while the
// server is away.
func TestKeeperStaysFresh(t *testing.T) {
	root, err := license.NewDaemonKey()
	if err != nil {
		t.Fatal(err)
	}
	tenant, start := vocab.NewTenantID(), time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	now := start
	away := errors.New("away")
	var answer *license.Bundle
	var answerErr error
	var asked atomic.Int64
	k, err := newKeeper(Trust{
		TenantID: tenant, RootKeyIDs: [][32]byte{license.KeyIDOf(root.PublicKey())}, Bundle: signed(t, root, tenant, 5, start).Raw(), BundleSeq: 5,
	}, func() time.Time { return now }, func(context.Context) (*rmsv1.GetTrustResponse, error) {
		asked.Add(1)
		if answerErr != nil {
			return nil, answerErr
		}
		return &rmsv1.GetTrustResponse{TenantId: tenant.String(), TrustBundle: answer.Raw()}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := license.NewDaemonKey()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		after  time.Duration
		answer *license.Bundle
		err    error
		asked  int64
		seq    uint64 // 0: refused
	}{
		{"at once", 0, nil, nil, 0, 5},
		{"within the hour", 59 * time.Minute, nil, nil, 0, 5},
		{"after an hour, the server being away", 61 * time.Minute, nil, away, 1, 5},
		{"not again at once", 62 * time.Minute, nil, away, 1, 5},
		{"after another, nothing new", 122 * time.Minute, signed(t, root, tenant, 5, start), nil, 2, 5},
		{"after another, a newer one", 183 * time.Minute, signed(t, root, tenant, 8, start), nil, 3, 8},
		{"after another, an older one", 244 * time.Minute, signed(t, root, tenant, 7, start), nil, 4, 0},
		{"still an older one", 245 * time.Minute, signed(t, root, tenant, 7, start), nil, 5, 0},
		{"a stranger's", 246 * time.Minute, signed(t, stranger, tenant, 9, start), nil, 6, 0},
		{"the true one again", 247 * time.Minute, signed(t, root, tenant, 8, start), nil, 7, 8},
		{"when it has ended, the server being away", 31 * 24 * time.Hour, nil, away, 8, 0},
		{"still", 31*24*time.Hour + time.Minute, nil, away, 9, 0},
		{"when the server is back", 31*24*time.Hour + time.Hour, signed(t, root, tenant, 9, start.Add(31*24*time.Hour)), nil, 10, 9},
		{"the clock set back", 0, nil, away, 10, 9},
	} {
		now, answer, answerErr = start.Add(c.after), c.answer, c.err
		v, err := k.verifier(t.Context())
		switch {
		case asked.Load() != c.asked:
			t.Errorf("%s: asked %d times, want %d", c.name, asked.Load(), c.asked)
		case c.seq == 0 && err == nil:
			t.Errorf("%s: accepted", c.name)
		case c.seq != 0 && (err != nil || v.Bundle().Seq != c.seq):
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if got := k.time(); !got.Equal(start.Add(31*24*time.Hour + time.Hour)) {
		t.Errorf("the highest time seen is %s", got)
	}
}

// Only one caller asks; the others wait for it, but no longer than they may.
func TestKeeperAsksOneAtATime(t *testing.T) {
	root, err := license.NewDaemonKey()
	if err != nil {
		t.Fatal(err)
	}
	tenant, now := vocab.NewTenantID(), time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	inside, proceed := make(chan struct{}), make(chan struct{})
	var asked atomic.Int64
	k, err := newKeeper(Trust{TenantID: tenant, RootKeyIDs: [][32]byte{license.KeyIDOf(root.PublicKey())}}, func() time.Time { return now },
		func(context.Context) (*rmsv1.GetTrustResponse, error) {
			asked.Add(1)
			close(inside)
			<-proceed
			return &rmsv1.GetTrustResponse{TenantId: tenant.String(), TrustBundle: signed(t, root, tenant, 1, now).Raw()}, nil
		})
	if err != nil {
		t.Fatal(err)
	}
	results := make(chan error)
	ask := func() { _, err := k.verifier(t.Context()); results <- err }
	go ask()
	<-inside
	impatient, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := k.verifier(impatient); !errors.Is(err, ReasonServerUnreachable) || !errors.Is(err, context.Canceled) {
		t.Errorf("an impatient caller: %v", err)
	}
	go ask()
	close(proceed)
	for range 2 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	if asked.Load() != 1 {
		t.Errorf("asked %d times", asked.Load())
	}
}

func TestReadTrust(t *testing.T) {
	root, err := license.NewDaemonKey()
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := license.NewDaemonKey()
	if err != nil {
		t.Fatal(err)
	}
	tenant := vocab.NewTenantID()
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	id, strange := license.KeyIDOf(root.PublicKey()), license.KeyIDOf(stranger.PublicKey())
	for _, c := range []struct {
		name   string
		change func(*rmsv1.GetTrustResponse)
		want   Reason
	}{
		{"true", func(*rmsv1.GetTrustResponse) {}, ""},
		{"another tenant", func(r *rmsv1.GetTrustResponse) { r.Tenant = "tenants/other" }, ReasonTrustRootMismatch},
		{"no tenant", func(r *rmsv1.GetTrustResponse) { r.Tenant = "" }, ReasonTrustRootMismatch},
		{"no tenant ID", func(r *rmsv1.GetTrustResponse) { r.TenantId = "x" }, ReasonTrustRootMismatch},
		{"another tenant ID", func(r *rmsv1.GetTrustResponse) { r.TenantId = vocab.NewTenantID().String() }, ReasonTrustRootMismatch},
		{"no roots", func(r *rmsv1.GetTrustResponse) { r.RootKeyIds = nil }, ReasonTrustRootMismatch},
		{"half a root", func(r *rmsv1.GetTrustResponse) { r.RootKeyIds[0] = r.RootKeyIds[0][:16] }, ReasonTrustRootMismatch},
		{"another root", func(r *rmsv1.GetTrustResponse) { r.RootKeyIds[0] = strange[:] }, ReasonTrustRootMismatch},
		{"one root too many", func(r *rmsv1.GetTrustResponse) { r.RootKeyIds = append(r.RootKeyIds, strange[:]) }, ReasonTrustRootMismatch},
		{"no bundle", func(r *rmsv1.GetTrustResponse) { r.TrustBundle = nil }, ReasonLicenseMalformed},
		{"a forged bundle", func(r *rmsv1.GetTrustResponse) { r.TrustBundle[len(r.TrustBundle)-1] ^= 1 }, ReasonLicenseSignature},
	} {
		t.Run(c.name, func(t *testing.T) {
			answer := &rmsv1.GetTrustResponse{
				Tenant: "tenants/contoso", TenantId: tenant.String(), RootKeyIds: [][]byte{append([]byte(nil), id[:]...)},
				TrustBundle: append([]byte(nil), signed(t, root, tenant, 3, now).Raw()...),
			}
			c.change(answer)
			got, err := readTrust(answer, "contoso")
			if ReasonOf(err) != c.want || err == nil && got.BundleSeq != 3 {
				t.Errorf("%+v, %v; want %q", got, err, c.want)
			}
		})
	}
}
