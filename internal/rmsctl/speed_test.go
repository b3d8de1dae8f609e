package rmsctl

import (
	"testing"
	"time"

	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// What a watch says of how fast work goes: nothing at first, nothing while it
// waits, and then the rate of the last half minute.
func TestSpeed(t *testing.T) {
	var v speed
	start := time.Date(2026, 11, 26, 9, 0, 0, 0, time.UTC)
	running, waiting := rmsv1.Operation_STATE_RUNNING, "CUSTODIAN_SEALED"
	for _, c := range []struct {
		at      int // seconds
		done    int64
		state   rmsv1.Operation_State
		waiting string
		want    string
	}{
		{0, 0, running, "", ""},
		{2, 2000, running, "", ""},
		{4, 4000, running, "", ", 1,000 a second, about 2 min left"},
		{10, 10_000, running, "", ", 1,000 a second, about 2 min left"},
		{20, 10_000, running, waiting, ""},
		{30, 10_000, running, "", ""}, // it goes on from here
		{40, 30_000, running, "", ", 1,000 a second, about 70 s left"},
		{60, 90_000, rmsv1.Operation_STATE_PAUSED, "", ""},
	} {
		o := &rmsv1.Operation{State: c.state, Waiting: c.waiting, Progress: &rmsv1.Operation_Progress{Total: 100_000, Done: c.done}}
		if got := v.see(o, start.Add(time.Duration(c.at)*time.Second)); got != c.want {
			t.Errorf("after %d s: %q, want %q", c.at, got, c.want)
		}
	}
	for d, want := range map[time.Duration]string{
		0: "about 0 s", 89 * time.Second: "about 89 s", 100 * time.Second: "about 2 min", 80 * time.Minute: "about 80 min", 3 * time.Hour: "about 3 h",
	} {
		if got := roughly(d); got != want {
			t.Errorf("%s is %q, want %q", d, got, want)
		}
	}
}
