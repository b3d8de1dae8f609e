package audit

import (
	"encoding/base64"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/openrms/rms/internal/vocab"
)

// exportOf writes events as rmsctl does.
func exportOf(tb testing.TB, from uint64, events ...*Event) string {
	tb.Helper()
	var b strings.Builder
	for i, e := range events {
		leaf, err := e.Encode()
		if err != nil {
			tb.Fatal(err)
		}
		fmt.Fprintf(&b, `{"index":%d,"leaf":%q,"event":{"name":"shown"}}`+"\n", from+uint64(i), base64.StdEncoding.EncodeToString(leaf))
	}
	return b.String()
}

func exportedEvent(kind Kind) *Event {
	return &Event{ID: vocab.NewEventID(), Tenant: vocab.NewTenantID(), Time: time.UnixMilli(1_800_000_000_000).UTC(), Kind: kind}
}

func TestReadExport(t *testing.T) {
	t.Parallel()
	a, b := exportedEvent(KindRead), exportedEvent(KindLicenseRevoked)
	good := exportOf(t, 7, a, b)
	var got []string
	for e, err := range ReadExport(strings.NewReader(good)) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprint(e.Index, e.Event.ID))
	}
	if want := []string{fmt.Sprint(7, a.ID), fmt.Sprint(8, b.ID)}; strings.Join(got, ";") != strings.Join(want, ";") {
		t.Errorf("%v, want %v", got, want)
	}
	for name, text := range badExports(good) {
		var last error
		for _, err := range ReadExport(strings.NewReader(text)) {
			last = err
		}
		if vocab.ReasonOf(last) != vocab.ReasonLogDamaged {
			t.Errorf("%s: %v", name, last)
		}
	}
}

func badExports(good string) map[string]string {
	line, _, _ := strings.Cut(good, "\n")
	return map[string]string{
		"not JSON":     "hello\n",
		"no position":  strings.Replace(line, `"index":7,`, "", 1),
		"a far one":    strings.Replace(line, `"index":7`, `"index":999999999999999999`, 1),
		"not base64":   strings.Replace(line, `"leaf":"`, `"leaf":"*`, 1),
		"no leaf":      `{"index":1}`,
		"a cut leaf":   `{"index":1,"leaf":"oQ=="}`,
		"a cut line":   line[:len(line)-20],
		"a long line":  strings.Repeat("x", maxExportLine+1),
		"one good one": line + "\n" + "hello",
	}
}

// Whatever a file holds, what is read of it are events.
func FuzzReadExport(f *testing.F) {
	good := exportOf(f, 0, exportedEvent(KindRead), exportedEvent(KindPublished))
	f.Add(good)
	f.Add("\n\n" + good)
	for name, text := range badExports(exportOf(f, 7, exportedEvent(KindRead))) {
		if name != "a long line" {
			f.Add(text)
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		for e, err := range ReadExport(io.LimitReader(strings.NewReader(text), 1<<16)) {
			if err != nil {
				return
			}
			if again, err := e.Event.Encode(); e.Event.Kind.Known() && (err != nil || string(again) != string(e.Leaf)) {
				t.Fatalf("an event that is another when written: %v", err)
			}
		}
	})
}
