package bolt

import (
	"path/filepath"
	"testing"

	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/store/storetest"
)

func options(dir string) Options {
	return Options{Path: filepath.Join(dir, "rms.db"), Stamp: store.Development, Schema: store.Schema{Version: 1}, MinFree: -1}
}

func openIn(tb testing.TB, dir string) *Store {
	tb.Helper()
	s, err := Open(options(dir))
	if err != nil {
		tb.Fatalf("Open: %v", err)
	}
	return s
}

func TestConformance(t *testing.T) {
	storetest.Run(t, func(tb testing.TB, dir string) store.Store { return openIn(tb, dir) })
}

func TestCopierConformance(t *testing.T) {
	storetest.RunCopier(t, func(tb testing.TB, dir string) store.Store { return openIn(tb, dir) }, "rms.db")
}
