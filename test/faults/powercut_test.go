package faults_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/openrms/rms/test/rmsdtest"
)

// TestPowerCut runs the daemon under strace, records every write and sync, and
// puts its data directory back together as a power cut at hundreds of points
// would have left it: with nothing that was not synced, with a random half of
// it, with a torn page. In each of them everything must be that a caller had
// been told of before that point, and nothing may be damaged.
//
// The same harness must find losses in a build that does not sync: a test that
// cannot fail shows nothing.
func TestPowerCut(t *testing.T) {
	points, answers := 240, 1500
	if testing.Short() {
		points, answers = points/4, answers/4
		t.Logf("-short: %d points instead of four times as many", points)
	}
	seed := rand.Uint64()
	t.Run("synced", func(t *testing.T) {
		rec := watch(t, "", answers)
		sum := rec.cutAt(t, points, rand.New(rand.NewPCG(seed, 1)), 3, []survival{nothing, half, torn}, func(p point, f *findings) {
			if err := f.err(); err != nil {
				t.Errorf("seed %d, power cut at step %d of %d (%s), %d answers before: %v", seed, p.step, len(rec.steps), p.left, p.answered, err)
			}
		})
		t.Logf("%d steps, %d commits; %s", len(rec.steps), rec.syncs, sum)
	})
	t.Run("not synced", func(t *testing.T) {
		rec := watch(t, "rms_nosync_for_fault_test", 200)
		images, missed := 0, 0
		sum := rec.cutAt(t, 30, rand.New(rand.NewPCG(seed, 2)), 0, []survival{nothing}, func(p point, f *findings) {
			if p.answered == 0 {
				return
			}
			images++
			if f.lost != p.answered {
				missed++
				t.Errorf("seed %d, power cut at step %d: of %d answers without a sync only %d were found to be lost: %v",
					seed, p.step, p.answered, f.lost, f.err())
			}
		})
		if images < 5 {
			t.Errorf("only %d images after the first answer", images)
		}
		t.Logf("every answer was found to be lost in %d of %d images; %s", images-missed, images, sum)
	})
}

// recording is a life of a daemon as strace and its callers saw it.
type recording struct {
	site  *rmsdtest.Site
	calls []*call
	sent  map[*call]int // the step at which the answer left the daemon
	steps []step
	disk  []int // steps that concern the disk or are an answer
	syncs int
}

// watch runs a daemon built with tags under strace until its callers have so
// many answers, and then kills it.
func watch(t *testing.T, tags string, answers int) *recording {
	t.Helper()
	binary := rmsdtest.Build(t, tags)
	site := rmsdtest.New(t, rmsdtest.Embedded)
	trace := filepath.Join(site.Dir, "trace")
	p := site.Start(t, binary, straceCommand(t, trace, "-e", "trace="+traced, "-xx", "-ttt", "-s", strconv.Itoa(maxString))...)
	p.AwaitServing(t)
	p.PID = traceePID(t, trace)
	l := &ledger{}
	c := gather(t, site, l, 16, answers)
	c.done()
	p.Kill()
	if t.Failed() {
		t.FailNow()
	}
	rec := &recording{site: site, calls: l.calls, sent: map[*call]int{}}
	var err error
	if rec.steps, err = readTrace(trace); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(trace); err != nil {
		t.Fatal(err)
	}
	rec.order(t)
	return rec
}

// traceePID reads the daemon's own process ID, which strace writes first.
func traceePID(t *testing.T, trace string) int {
	t.Helper()
	f, err := os.Open(trace)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var pid int
	if _, err := fmt.Fscan(f, &pid); err != nil {
		t.Fatal(err)
	}
	return pid
}

// order finds out at which step each answer left the daemon. Every caller had a
// connection of its own with one call at a time on it, so the last write to the
// connection before the caller had the answer is not earlier than the answer.
func (rec *recording) order(t *testing.T) {
	t.Helper()
	ports := map[int64]int{} // of the connections, by descriptor
	sends := map[int][]int{} // steps that send, by port
	model := newDisk(rec.site.Data)
	for i, s := range rec.steps {
		relevant := model.apply(s)
		switch {
		case s.name == "accept4" && s.exit && !s.failed:
			if _, port, ok := strings.Cut(strings.Join(s.args, ","), "htons("); ok {
				port, _, _ = strings.Cut(port, ")")
				n, err := strconv.Atoi(port)
				if err != nil {
					t.Fatal(err)
				}
				ports[s.result] = n
			}
		case s.name == "close" && !s.exit:
			delete(ports, s.number(0))
		case s.name == "write" && !s.exit && ports[s.number(0)] != 0:
			port := ports[s.number(0)]
			sends[port] = append(sends[port], i)
			relevant = true
		case s.name == "fdatasync" && s.exit:
			rec.syncs++
		}
		if relevant {
			rec.disk = append(rec.disk, i)
		}
	}
	if model.err != nil {
		t.Fatal(model.err)
	}
	for _, c := range rec.calls {
		if c.Outcome == rmsdtest.Unknown {
			continue
		}
		for _, i := range sends[c.port] {
			if rec.steps[i].at.Before(c.returned) {
				rec.sent[c] = i
			}
		}
		if rec.sent[c] == 0 {
			t.Fatalf("the trace does not show the answer to the call of event %s", c.Event)
		}
	}
}

// point is where and how the power was cut.
type point struct {
	step     int
	left     survival
	answered int // calls whose answers had left by then
}

// cutAt cuts the power at n points, spread over what happened, in each of the
// ways, and has report look at each image. At some of the points the real daemon is
// started on an image, and must open every document.
func (rec *recording) cutAt(t *testing.T, n int, rng *rand.Rand, restarts int, ways []survival, report func(point, *findings)) string {
	t.Helper()
	points := rec.points(n, rng)
	revive := map[int]bool{}
	for i := range restarts {
		revive[points[len(points)-1-i*len(points)/(2*max(restarts, 1))]] = true
	}
	var (
		wg     sync.WaitGroup
		mu     sync.Mutex
		slots  = make(chan struct{}, 2)
		images int
		keep   []revival
		model  = newDisk(rec.site.Data)
		next   = 0
		most   = 0
	)
	for i, s := range rec.steps {
		model.apply(s)
		if next == len(points) || points[next] != i {
			continue
		}
		next++
		unsynced := model.unsynced()
		most = max(most, unsynced)
		for _, left := range ways {
			if left != nothing && unsynced == 0 {
				continue
			}
			slots <- struct{}{}
			dir := imageDir(t)
			if err := model.cut(dir, left, rng); err != nil {
				t.Fatal(err)
			}
			p := point{step: i, left: left}
			for _, at := range rec.sent {
				if at <= i {
					p.answered++
				}
			}
			images++
			if revive[i] {
				keep = append(keep, revival{dir, i})
			}
			wg.Go(func() {
				defer func() { <-slots }()
				if !revive[i] {
					defer os.RemoveAll(dir)
				}
				f := examine(context.WithoutCancel(t.Context()), dir, rec.site.TenantID, rec.calls, func(c *call) bool {
					at, answered := rec.sent[c]
					return answered && at <= i
				})
				mu.Lock()
				defer mu.Unlock()
				report(p, f)
			})
		}
	}
	wg.Wait()
	opened := 0
	for _, r := range keep {
		opened += rec.revive(t, r.dir, r.at)
		_ = os.RemoveAll(r.dir)
	}
	if next < len(points) || len(points) < n {
		t.Errorf("only %d of %d points", next, n)
	}
	return fmt.Sprintf("%d images of %d points, up to %d unsynced writes each, %d documents opened by daemons started on images", images, next, most, opened)
}

// revival is an image to start a daemon on, and its point.
type revival struct {
	dir string
	at  int
}

// points chooses n steps: some of the daemon's first start, the others spread
// over everything after its first answer.
func (rec *recording) points(n int, rng *rand.Rand) []int {
	first := len(rec.steps)
	for _, at := range rec.sent {
		first = min(first, at)
	}
	begin := slices.IndexFunc(rec.disk, func(i int) bool { return i >= first })
	starting, serving := slices.Clone(rec.disk[:begin]), slices.Clone(rec.disk[begin:])
	var out []int
	for _, part := range []struct {
		steps []int
		n     int
	}{{starting, n / 6}, {serving, n - n/6}} {
		rng.Shuffle(len(part.steps), func(i, j int) { part.steps[i], part.steps[j] = part.steps[j], part.steps[i] })
		out = append(out, part.steps[:min(part.n, len(part.steps))]...)
	}
	out = append(out, rec.disk[len(rec.disk)-1])
	slices.Sort(out)
	return slices.Compact(out)
}

// revive has rmsd fsck look at an image, starts a daemon on it, and opens every
// document whose publisher had the answer. It returns how many.
func (rec *recording) revive(t *testing.T, image string, at int) int {
	site := rec.site.On(t, image)
	if out, err := exec.CommandContext(t.Context(), rmsdtest.Build(t, ""), "fsck", "-c", site.Config).CombinedOutput(); err != nil {
		t.Errorf("rmsd fsck: %v\n%s", err, out)
	}
	p := site.Start(t, rmsdtest.Build(t, ""))
	defer p.Kill()
	p.AwaitServing(t)
	var docs []*rmsdtest.Document
	for _, c := range rec.calls {
		if sent, answered := rec.sent[c]; answered && sent <= at && c.Document != nil {
			docs = append(docs, c.Document)
		}
	}
	new(rechecks).open(t, site, "bob", docs)
	return len(docs)
}

// imageDir makes a directory for an image, in memory where there is room for
// it: images are many, and nobody needs them on a disk.
func imageDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "rmsd-image-")
	if err != nil {
		if dir, err = os.MkdirTemp("", "rmsd-image-"); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
