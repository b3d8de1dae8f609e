package bench

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/keys/embedded"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vaulttest/realvault"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
	"github.com/openrms/rms/test/rmsdtest"
)

const (
	openEvery       = 20 * time.Millisecond // 50 a second, whatever the answers do
	quietPhase      = time.Minute
	busyPhase       = 3 * time.Minute
	manyGenerations = 1000
	strictDocuments = 2000
)

// BenchmarkReseal seals -licenses licenses anew, away from a generation. At first
// documents are opened meanwhile, and it says what that does to the openings; then
// it is alone.
func BenchmarkReseal(b *testing.B) {
	if *licenses == 0 {
		b.Skip("-licenses says of how many; see its help")
	}
	say("mean fdatasync %s", syncTime(b))
	w := seededWith(b, *licenses, true)
	w.protectAll(b, followed, documents)
	w.opensFor(b, 2*time.Second) // the first openings find nothing ready
	quiet := w.opensFor(b, quietPhase)
	say("quiet:  %s", quiet)
	w.rotated(b)
	b.ResetTimer()
	cpu, began := w.cpu(), time.Now()
	name := w.reseal(b, 1)
	during := w.opensFor(b, busyPhase)
	done := w.progress(b, name).GetDone()
	busy := time.Since(began)
	say("during: %s", during)
	w.await(b, name)
	alone := time.Since(began) - busy
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(during.at(0.99).Seconds()/quiet.at(0.99).Seconds(), "p99-during/quiet")
	b.ReportMetric(float64(done)/busy.Seconds(), "licenses/s-during")
	b.ReportMetric(float64(int64(*licenses)-done)/alone.Seconds(), "licenses/s-alone")
	say("%d licenses sealed anew in %s, %s of processor of rmsd: %d in %s in which documents were opened, the others in %s; peak memory of rmsd %s",
		*licenses, (busy + alone).Round(time.Second), (w.cpu() - cpu).Round(time.Second), done, busy.Round(time.Second), alone.Round(time.Second), w.peakMemory())
	after := w.opensFor(b, 5*time.Second) // and all of it opens
	say("after:  %s", after)
}

// BenchmarkRewrap moves 1,000 generations and some strict documents to a new
// version of the key, on a real Vault if there is one.
func BenchmarkRewrap(b *testing.B) {
	vault, err := realvault.Find()
	if err != nil {
		b.Skip(err)
	}
	server, v, custodians := startVault(b, vault)
	w := start(b, custodians)
	w.prepare(b)
	for range strictDocuments/documents - 1 {
		w.protectAll(b, "strict", documents)
	}
	// The first rotation's rewrap is held, so that nothing is moved before there
	// is all of it.
	w.rotateIn(b, v)
	name := w.rewrap(b)
	if name != "" {
		w.pause(b, name)
	}
	for i := range manyGenerations - 2 {
		w.rotateIn(b, v)
		if i%100 == 99 {
			say("%d generations", i+3)
		}
	}
	if name == "" {
		b.Fatal("the first rewrap was over before it could be held")
	}
	before := vaultCalls(b, server, v)
	cpu, began := w.cpu(), time.Now()
	w.resume(b, name)
	o := w.await(b, name)
	took := time.Since(began)
	after := vaultCalls(b, server, v)
	say("%s: %s, in %s, %s of processor of rmsd; calls of Vault: %d rewrap, %d decrypt; peak memory of rmsd %s",
		o.GetMessage(), o.GetState(), took.Round(time.Millisecond), (w.cpu() - cpu).Round(time.Millisecond),
		after["rewrap"]-before["rewrap"], after["decrypt"]-before["decrypt"], w.peakMemory())
}

// latencies are how long calls took.
type latencies []time.Duration

func (l latencies) at(part float64) time.Duration {
	sorted := slices.Sorted(slices.Values(l))
	return sorted[min(int(part*float64(len(sorted))), len(sorted)-1)]
}

func (l latencies) String() string {
	return fmt.Sprintf("%d openings, median %s, p99 %s, longest %s", len(l), l.at(0.5).Round(10*time.Microsecond), l.at(0.99).Round(10*time.Microsecond), l.at(1).Round(10*time.Microsecond))
}

// opens opens documents, one every [openEvery] whether or not the one before has
// ended, until ctx ends.
func (w *world) opens(ctx context.Context, b testing.TB) (all latencies) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	tick := time.NewTicker(openEvery)
	defer tick.Stop()
	for n := uint64(0); ; n++ {
		select {
		case <-ctx.Done():
			wg.Wait()
			return all
		case <-tick.C:
		}
		wg.Go(func() {
			began := time.Now()
			if _, err := w.acquire(b.Context(), followed, n); err != nil {
				b.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, time.Since(began))
		})
	}
}

func (w *world) opensFor(b testing.TB, d time.Duration) latencies {
	ctx, cancel := context.WithTimeout(b.Context(), d)
	defer cancel()
	return w.opens(ctx, b)
}

// progress is how far an operation is.
func (w *world) progress(b testing.TB, name string) *rmsv1.Operation_Progress {
	b.Helper()
	c := w.carla(b)
	o, err := rmsv1.NewOperationServiceClient(c.conn).GetOperation(b.Context(), &rmsv1.GetOperationRequest{Name: name}, c.sign)
	if err != nil {
		b.Fatal(err)
	}
	return o.GetProgress()
}

// carla keeps the keys.
func (w *world) carla(b testing.TB) *client { return w.client(b, "carla") }

func (w *world) rotated(b testing.TB) {
	b.Helper()
	c := w.carla(b)
	if _, err := rmsv1.NewCustodyServiceClient(c.conn).RotateKey(b.Context(), &rmsv1.RotateKeyRequest{Name: rmsdtest.Parent + "/keys/root"}, c.sign); err != nil {
		b.Fatal(err)
	}
	if name := w.rewrap(b); name != "" {
		w.await(b, name)
	}
}

// rewrap returns the rewrap that goes on, and starts one if there is something to
// move.
func (w *world) rewrap(b testing.TB) string {
	b.Helper()
	c := w.carla(b)
	r, err := rmsv1.NewCustodyServiceClient(c.conn).Rewrap(b.Context(), &rmsv1.RewrapRequest{Parent: rmsdtest.Parent}, c.sign)
	if err != nil {
		b.Fatal(err)
	}
	return r.GetOperation().GetName()
}

func (w *world) reseal(b testing.TB, generation int) string {
	b.Helper()
	c := w.carla(b)
	r, err := rmsv1.NewCustodyServiceClient(c.conn).Reseal(b.Context(), &rmsv1.ResealRequest{Name: fmt.Sprintf("%s/generations/%d", rmsdtest.Parent, generation)}, c.sign)
	if err != nil {
		b.Fatal(err)
	}
	return r.GetOperation().GetName()
}

func (w *world) pause(b testing.TB, name string) {
	b.Helper()
	c := w.carla(b)
	if _, err := rmsv1.NewOperationServiceClient(c.conn).PauseOperation(b.Context(), &rmsv1.PauseOperationRequest{Name: name}, c.sign); err != nil {
		b.Fatal(err)
	}
}

func (w *world) resume(b testing.TB, name string) {
	b.Helper()
	c := w.carla(b)
	if _, err := rmsv1.NewOperationServiceClient(c.conn).ResumeOperation(b.Context(), &rmsv1.ResumeOperationRequest{Name: name}, c.sign); err != nil {
		b.Fatal(err)
	}
}

// await waits for an operation to succeed.
func (w *world) await(b testing.TB, name string) *rmsv1.Operation {
	c := w.carla(b)
	var o *rmsv1.Operation
	for {
		stream, err := rmsv1.NewOperationServiceClient(c.conn).WatchOperation(b.Context(), &rmsv1.WatchOperationRequest{Name: name}, c.sign)
		var shown time.Time
		for err == nil {
			var r *rmsv1.WatchOperationResponse
			if r, err = stream.Recv(); err != nil {
				break
			}
			o = r.GetOperation()
			if p := o.GetProgress(); time.Since(shown) > 30*time.Second {
				shown = time.Now()
				say("%d of %d", p.GetDone(), p.GetTotal())
			}
		}
		if o.GetState() == rmsv1.Operation_STATE_RUNNING && b.Context().Err() == nil {
			continue // a stream does not last for ever
		}
		if o.GetState() != rmsv1.Operation_STATE_SUCCEEDED {
			b.Errorf("it is %s: %s %s (%v)", o.GetState(), o.GetFailure(), o.GetMessage(), err)
		}
		return o
	}
}

// rotateIn rotates the key in Vault and says that it was meant.
func (w *world) rotateIn(b testing.TB, v *realvault.Tenant) {
	b.Helper()
	if err := v.Rotate(b.Context(), "root"); err != nil {
		b.Fatal(err)
	}
	c := w.carla(b)
	if _, err := rmsv1.NewCustodyServiceClient(c.conn).SyncKey(b.Context(), &rmsv1.SyncKeyRequest{Name: rmsdtest.Parent + "/keys/root"}, c.sign); err != nil {
		b.Fatal(err)
	}
}

// vaultCalls counts what Vault was asked to do with the root key.
func vaultCalls(b testing.TB, s *realvault.Server, v *realvault.Tenant) map[string]int {
	b.Helper()
	entries, err := s.ReadAudit()
	if err != nil {
		b.Fatal(err)
	}
	out := map[string]int{}
	for _, e := range entries {
		if op, ok := strings.CutPrefix(e.Request.Path, v.Mount+"/"); ok && e.Type == "response" {
			out[strings.TrimSuffix(op, "/root")]++
		}
	}
	return out
}

// sealing makes what [seeder] makes such that it opens: with content keys that
// are sealed under the tenant's generation. It has the keyring, which no daemon
// has meanwhile.
type sealing struct {
	id     vocab.GenerationID
	secret *vocab.Secret
}

func newSealing(ctx context.Context, data string, s store.Store, t vocab.TenantID) (*sealing, error) {
	paths, err := filepath.Glob(filepath.Join(data, "keyring-*"))
	if err != nil || len(paths) == 0 {
		return nil, fmt.Errorf("no keyring in %s: %w", data, os.ErrNotExist)
	}
	var g *record.Generation
	if err := s.View(ctx, func(r store.Reader) error {
		return record.ListGenerations(r, t, func(one *record.Generation) error { g = one; return nil })
	}); err != nil {
		return nil, err
	}
	w, err := license.ParseWrap(g.Wrap)
	if err != nil {
		return nil, err
	}
	ring, err := embedded.Open(embedded.Config{ID: w.Custodian, Path: paths[0], KeyFile: paths[1]})
	if err != nil {
		return nil, err
	}
	defer ring.Close()
	signed, err := license.ParseGeneration(g.Signed)
	if err != nil {
		return nil, err
	}
	secret, _, err := keys.Unwrap(ctx, ring, keys.UnwrapItem{Binding: keys.TenantBinding(t, signed.ID), Wrap: *w}, &signed.Commitment)
	return &sealing{id: signed.ID, secret: secret}, err
}

// seal gives a license a content key of its own.
func (s *sealing) seal(t vocab.TenantID, l *record.License) error {
	ck := vocab.NewSecret()
	defer ck.Zero()
	l.Commitment = canon.Commitment(ck, t, l.Content, l.ContentSuite)
	box := l.Box(t)
	var err error
	l.KeyBox, err = box.Seal(s.secret, ck)
	return err
}
