package bench

import (
	"context"
	"crypto/rand"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/openrms/rms/internal/config"
	"github.com/openrms/rms/internal/daemon"
	"github.com/openrms/rms/internal/vaulttest/realvault"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
	"github.com/openrms/rms/test/rmsdtest"
)

var (
	// inprocess is for profiles, which then hold the callers' work too.
	inprocess = flag.Bool("inprocess", false, "run the service inside the benchmark instead of as a process (for -cpuprofile)")
	// binary is for comparing versions under the same load.
	binary = flag.String("rmsd", "", "measure this rmsd instead of one built from the checkout")
)

func TestMain(m *testing.M) {
	flag.Parse()
	rmsdtest.Main(m)
}

const (
	documents   = 1000 // of each template, opened in turn
	recipients  = 1000 // keys to seal to, made before
	grants      = 100  // in each template; the caller's is the last
	callers     = 32   // at the same time
	connections = 4
	batch       = 1000
	// verifyEvery is how often an answer is verified and opened as a client
	// must: always would measure the client.
	verifyEvery = 64
	// minSync is less than any disk takes: below it, writes are not durable
	// here and the numbers would mean nothing.
	minSync = 50 * time.Microsecond
)

// BenchmarkService measures every case on the embedded keyring, and those in
// which the custodian matters on a real Vault.
func BenchmarkService(b *testing.B) {
	say("%s/%s, GOMAXPROCS %d here and in rmsd, %d callers on %d connections, %d documents of a template with %d grants, mean fdatasync %s",
		runtime.GOOS, runtime.GOARCH, runtime.GOMAXPROCS(0), callers, connections, documents, grants, syncTime(b))
	rates := map[string]float64{}
	run := func(custodian string, cases []measured, start func() *world) {
		var w *world // a service is started for the first case that is asked for
		for _, c := range cases {
			name := custodian + "/" + c.name
			b.Run(name, func(b *testing.B) {
				if w == nil {
					w = start()
				}
				rates[name] = w.measure(b, c)
			})
		}
		if w != nil {
			say("rmsd with %s: peak memory %s", custodian, w.peakMemory())
		}
	}
	run("embedded", all, func() *world { return newWorld(b, rmsdtest.Embedded) })
	if vault, err := realvault.Find(); err != nil {
		say("no Vault cases: %v", err)
	} else {
		run("vault", custody, func() *world { return newWorld(b, vaultCustodian(b, vault)) })
	}
	report(b, rates)
}

// say prints beside the benchmarks' own lines: what a benchmark with parts logs
// is shown only when it fails.
func say(format string, args ...any) { fmt.Printf("# "+format+"\n", args...) }

// measured is a case: one call, and how many decisions it asks for.
type measured struct {
	name  string
	items int
	call  func(ctx context.Context, w *world, n uint64) (reply, error)
}

func acquiring(template string) func(context.Context, *world, uint64) (reply, error) {
	return func(ctx context.Context, w *world, n uint64) (reply, error) { return w.acquire(ctx, template, n) }
}

func publishing(template string) func(context.Context, *world, uint64) (reply, error) {
	return func(ctx context.Context, w *world, n uint64) (reply, error) { return w.publish(ctx, template, n) }
}

func batching(template string) func(context.Context, *world, uint64) (reply, error) {
	return func(ctx context.Context, w *world, n uint64) (reply, error) { return w.acquireBatch(ctx, template, n) }
}

var (
	custody = []measured{
		{"publish-cached", 1, publishing("cached")},
		{"publish-strict", 1, publishing("strict")},
		{"acquire-cached", 1, acquiring("cached")},
		{"acquire-strict", 1, acquiring("strict")},
		{"batch1000-cached", batch, batching("cached")},
		{"batch1000-strict", batch, batching("strict")},
	}
	all = append([]measured{
		{"refused", 1, func(ctx context.Context, w *world, n uint64) (reply, error) { return w.refused(ctx, "cached", n) }},
	}, custody...)
)

// measure runs a case and returns decisions per second.
func (w *world) measure(b *testing.B, c measured) float64 {
	var n, req, resp atomic.Uint64
	cpu := w.cpu()
	b.SetParallelism(max(1, callers/runtime.GOMAXPROCS(0)))
	if c.items > 1 {
		b.SetParallelism(2)
	}
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			r, err := c.call(b.Context(), w, n.Add(1))
			if err != nil {
				b.Error(err)
				return
			}
			req.Add(uint64(r.request))
			resp.Add(uint64(r.response))
		}
	})
	b.StopTimer()
	calls := float64(n.Load())
	decisions := calls * float64(c.items)
	rate := decisions / b.Elapsed().Seconds()
	b.ReportMetric(0, "ns/op") // says nothing where callers are many
	b.ReportMetric(rate, "decisions/s")
	if !*inprocess {
		b.ReportMetric(float64((w.cpu()-cpu).Microseconds())/decisions, "rmsd-cpu-µs/decision")
	}
	b.ReportMetric(float64(req.Load())/calls, "request-B")
	b.ReportMetric(float64(resp.Load())/calls, "response-B")
	return rate
}

// report prints the ratios of one run.
func report(b *testing.B, rates map[string]float64) {
	var lines []string
	for _, r := range []struct{ what, of, to string }{
		{"a strict acquire on Vault is this part of a cached one", "vault/acquire-strict", "vault/acquire-cached"},
		{"a strict acquire on the keyring, of a cached one", "embedded/acquire-strict", "embedded/acquire-cached"},
		{"a cached acquire on Vault, of one on the keyring", "vault/acquire-cached", "embedded/acquire-cached"},
		{"a cached publish, of a cached acquire", "embedded/publish-cached", "embedded/acquire-cached"},
		{"a refusal, of a cached acquire", "embedded/refused", "embedded/acquire-cached"},
		{"an item of a batch of 1,000, of a single acquire, cached", "embedded/batch1000-cached", "embedded/acquire-cached"},
		{"the same, strict on Vault", "vault/batch1000-strict", "vault/acquire-strict"},
	} {
		if rates[r.of] > 0 && rates[r.to] > 0 {
			lines = append(lines, fmt.Sprintf("# %6.2f  %s", rates[r.of]/rates[r.to], r.what))
		}
	}
	say("decisions per second, as ratios:\n%s", strings.Join(lines, "\n"))
}

// newWorld starts the service on a custodian and protects documents.
func newWorld(b testing.TB, custodian string) *world {
	b.Helper()
	w := start(b, custodian)
	w.prepare(b)
	return w
}

// start starts the service on a custodian.
func start(b testing.TB, custodian string) *world {
	b.Helper()
	w := &world{site: rmsdtest.New(b, custodian)}
	if *inprocess {
		w.startInside(b)
	} else {
		w.startProcess(b)
	}
	return w
}

func (w *world) startProcess(b testing.TB) {
	b.Helper()
	path := *binary
	if path == "" {
		path = rmsdtest.Build(b, "")
	}
	w.daemon = w.site.Start(b, path)
	w.daemon.AwaitServing(b)
}

func (w *world) startInside(b testing.TB) {
	cfg, err := config.Load(w.site.Config)
	if err != nil {
		b.Fatal(err)
	}
	d, err := daemon.Start(b.Context(), cfg, daemon.Options{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = d.Close(context.Background()) })
	conn := w.site.Connect(b, nil)
	for {
		trust, err := rmsv1.NewProtectionServiceClient(conn).GetTrust(b.Context(), &rmsv1.GetTrustRequest{})
		if err == nil && len(trust.GetCertificate()) > 0 {
			return
		}
		select {
		case <-b.Context().Done():
			b.Fatal(err)
		case <-time.After(10 * time.Millisecond): // there is nothing to wait on
		}
	}
}

// vaultCustodian starts a Vault with the tenant's keys and returns the
// custodians' part of the tenant's file.
func vaultCustodian(b testing.TB, binary string) string {
	b.Helper()
	_, _, custodians := startVault(b, binary)
	return custodians
}

// startVault is vaultCustodian that returns the Vault as well.
func startVault(b testing.TB, binary string) (*realvault.Server, *realvault.Tenant, string) {
	b.Helper()
	s, err := realvault.Start(b.Context(), realvault.Options{Binary: binary, Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(s.Stop)
	t, err := s.AddTenant(b.Context(), rmsdtest.Tenant)
	if err != nil {
		b.Fatal(err)
	}
	return s, t, fmt.Sprintf("{contoso-vault: {vault: {address: %q, ca: %q, mount: %s, cluster_id: %s}, approle: {role: %s, role_id_file: %q, secret_id_file: %q, wrapped: true}}}",
		s.Address, s.CAFile, t.Mount, s.ClusterID, t.Role, t.RoleIDFile, t.SecretIDFile)
}

// syncTime is the mean time of a small durable write where the service's data
// will be. Where it is that of memory the benchmark ends.
func syncTime(b testing.TB) time.Duration {
	b.Helper()
	dir, err := os.MkdirTemp("", "rmsd-site-")
	if err != nil {
		b.Fatal(err)
	}
	defer os.RemoveAll(dir)
	f, err := os.Create(filepath.Join(dir, "sync"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	block := make([]byte, 4096)
	_, _ = rand.Read(block)
	const n = 200
	start := time.Now()
	for i := range n {
		if _, err := f.WriteAt(block, int64(i%8)*4096); err != nil {
			b.Fatal(err)
		}
		if err := syscall.Fdatasync(int(f.Fd())); err != nil {
			b.Fatal(err)
		}
	}
	mean := time.Since(start) / n
	if mean < minSync {
		b.Fatalf("a durable write takes %s in %s: that is memory, and the numbers would mean nothing; set TMPDIR to a directory on a disk", mean, dir)
	}
	return mean.Round(time.Microsecond)
}

// cpu is the time rmsd has had of the processors.
func (w *world) cpu() time.Duration {
	if w.daemon == nil {
		return 0
	}
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^w.daemon.PID)<<3|2, &t); err != nil { // clock_getcpuclockid(3) of the process
		return 0
	}
	return time.Duration(t.Nano())
}

func (w *world) peakMemory() string {
	if w.daemon == nil {
		return "unknown"
	}
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.daemon.PID))
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			return strings.TrimSpace(v)
		}
	}
	return "unknown"
}
