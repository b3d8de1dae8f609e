package daemon

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// startDev runs a development daemon for one test.
func startDev(t *testing.T) *Dev {
	t.Helper()
	dir, err := os.MkdirTemp("", "rmsd-") // short: a socket's path is limited
	if err != nil {
		t.Fatal(err)
	}
	d, err := StartDev(t.Context(), DevOptions{Dir: dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := d.Close(ctx); err != nil {
			t.Error(err)
		}
		_ = os.RemoveAll(dir)
	})
	return d
}

const secondTenant = `id: fabrikam
domains: [fabrikam.test]
admins: ["user:dave@fabrikam.test"]
providers: [dev-fabrikam]
custodians: {keyring: {embedded: {}}}
`

func TestStatusSaysHowEachTenantIs(t *testing.T) {
	d := startDev(t)
	file := filepath.Join(d.dir, "tenants", "fabrikam.yaml")
	tenants := func() map[string]string {
		t.Helper()
		s, err := d.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if s.GetListen() != d.Addr() || !s.GetDevelopment() || s.GetStoreBytes() == 0 || s.GetStartTime() == nil || s.GetVersion() == "" {
			t.Errorf("status %v says too little", s)
		}
		out := map[string]string{}
		for _, ts := range s.GetTenants() {
			if ts.GetCustodian() != "embedded" || ts.GetTenantId() == "" || ts.GetEvents() == 0 {
				t.Errorf("tenant %v is described wrongly", ts)
			}
			switch {
			case ts.GetServing():
				out[ts.GetTenant()] = "serves"
			default:
				out[ts.GetTenant()] = ts.GetMessage()
			}
		}
		return out
	}
	reload := func() {
		t.Helper()
		if _, err := d.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got := tenants(); len(got) != 1 || got["tenants/contoso"] != "serves" {
		t.Errorf("at the start: %q", got)
	}
	if err := os.WriteFile(file, []byte(secondTenant), 0o600); err != nil {
		t.Fatal(err)
	}
	reload()
	if err := d.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := tenants(); len(got) != 2 || got["tenants/fabrikam"] != "serves" {
		t.Errorf("with a second tenant: %q", got)
	}
	if only, _ := d.tenants.Find(""); only != nil {
		t.Error("with two tenants one is taken for the only one")
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	reload()
	if got := tenants(); len(got) != 2 || !strings.Contains(got["tenants/fabrikam"], "file is gone") {
		t.Errorf("after its file vanished: %q", got)
	}
	gone, _ := d.tenants.Find("fabrikam")
	if only, _ := d.tenants.Find(""); gone != nil || only == nil {
		t.Error("the tenant is still found")
	}
}

// A tenant that cannot be counted keeps nobody from learning how the others are.
func TestStatusWithADamagedCount(t *testing.T) {
	d := startDev(t)
	if err := os.WriteFile(filepath.Join(d.dir, "tenants", "fabrikam.yaml"), []byte(secondTenant), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := d.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	contoso, _ := d.tenants.Find("contoso")
	id := contoso.ID()
	if err := d.store.Commit(t.Context(), func(tx store.Tx) error {
		return tx.Put("counts", append(id[:], "licenses-by-version\x00"...), []byte{1})
	}); err != nil {
		t.Fatal(err)
	}
	s, err := d.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, ts := range s.GetTenants() {
		damaged := ts.GetTenant() == "tenants/contoso"
		if told := strings.Contains(ts.GetMessage(), "cannot be counted"); told != damaged || !ts.GetServing() {
			t.Errorf("%v", ts)
		}
		if told := ts.GetReason() == string(vocab.ReasonStoreDamaged); told != damaged {
			t.Errorf("the reason is %q: %v", ts.GetReason(), ts)
		}
	}
	if len(s.GetTenants()) != 2 {
		t.Errorf("%d tenants, want 2", len(s.GetTenants()))
	}
}

// Reloads that come at once are one after the other: a tenant is opened once,
// and one of them says so.
func TestReloadsAtOnce(t *testing.T) {
	d := startDev(t)
	if err := os.WriteFile(filepath.Join(d.dir, "tenants", "fabrikam.yaml"), []byte(secondTenant), 0o600); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var all []string
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			changes, err := d.Reload(t.Context())
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, changes...)
		})
	}
	wg.Wait()
	if len(all) != 1 || all[0] != "tenant fabrikam is served" {
		t.Errorf("changes %q, want one", all)
	}
}

func TestCheckStoreWhileServing(t *testing.T) {
	d := startDev(t)
	sound, err := d.CheckStore(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(sound.GetProblems()) > 0 || sound.GetRecords() == 0 || sound.GetEvents() == 0 {
		t.Errorf("of a new store the check says %v", sound)
	}
	// Somebody with the file writes an entry that leads nowhere.
	contoso, _ := d.tenants.Find(DevTenant)
	id := contoso.ID()
	row := append(append(id[:], make([]byte, 16)...), make([]byte, 16)...)
	if err := d.store.Commit(t.Context(), func(tx store.Tx) error { return tx.Put("licenses-by-owner", row, nil) }); err != nil {
		t.Fatal(err)
	}
	damaged, err := d.CheckStore(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if p := damaged.GetProblems(); len(p) != 1 || !strings.Contains(p[0], "does not belong there") || !strings.Contains(p[0], id.String()) {
		t.Errorf("problems %q, want the one entry", p)
	}
}

// A second daemon on the same data is refused and does the first no harm.
func TestTwoDaemonsOnOneStore(t *testing.T) {
	d := startDev(t)
	before, err := os.Lstat(d.cfg.OperatorSocket)
	if err != nil {
		t.Fatal(err)
	}
	second := *d.cfg
	second.Listen = "127.0.0.1:0"
	if _, err := Start(t.Context(), &second, Options{Log: slog.New(slog.DiscardHandler), Development: true}); err == nil || vocab.ReasonOf(err) == vocab.ReasonInternal {
		t.Errorf("a second daemon on the same data: %v, want it refused", err)
	}
	after, err := os.Lstat(d.cfg.OperatorSocket)
	if err != nil || !os.SameFile(before, after) {
		t.Errorf("the first one's socket was touched (%v)", err)
	}
	if after != nil && after.Mode().Perm() != 0o660 {
		t.Errorf("the socket has mode %v, want 0660", after.Mode().Perm())
	}
}

// A daemon that cannot start leaves nothing open: the next one can.
func TestAStartThatFailsLeavesNothing(t *testing.T) {
	d := startDev(t)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	cfg := *d.cfg
	cfg.DataDir = t.TempDir()
	cfg.Listen = "127.0.0.1:0"
	cfg.OperatorSocket = filepath.Join(cfg.DataDir, strings.Repeat("s", 120)) // longer than a socket's path may be
	options := Options{Log: slog.New(slog.DiscardHandler), Development: true}
	if _, err := Start(ctx, &cfg, options); vocab.ReasonOf(err) != vocab.ReasonConfigurationInvalid || !strings.Contains(err.Error(), "operator_socket") {
		t.Fatalf("error %v, want CONFIGURATION_INVALID about operator_socket", err)
	}
	if _, err := os.Stat(filepath.Join(cfg.DataDir, storeFile)); err != nil {
		t.Fatalf("the start did not get as far as it should have: %v", err)
	}
	cfg.OperatorSocket = filepath.Join(d.dir, "second.sock")
	// The keyring belongs to the first daemon's tenant and is only read here.
	next, err := Start(ctx, &cfg, options)
	if err != nil {
		t.Fatalf("the next start: %v", err)
	}
	if err := next.Close(ctx); err != nil {
		t.Error(err)
	}
}
