package rmsctl

import (
	"bytes"
	"sync"
	"testing"
	"time"
)

// The line is written over, at most every progressEvery, and is gone at the end.
func TestProgressLine(t *testing.T) {
	var out bytes.Buffer
	now := noon
	p := newProgress(&out, func() time.Time { return now }, "%s of %s templates checked", 1500)
	for range 1000 {
		now = now.Add(time.Millisecond / 10)
		p.step()
	}
	if want := "\r1,000 of 1,500 templates checked\x1b[K"; out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
	p.end()
	if want := "\r1,000 of 1,500 templates checked\x1b[K\r\x1b[K"; out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
}

func TestShortWorkShowsNoProgress(t *testing.T) {
	var out bytes.Buffer
	p := newProgress(&out, func() time.Time { return noon }, "%s of %s", 10)
	var all sync.WaitGroup
	for range 10 {
		all.Go(p.step)
	}
	all.Wait()
	p.end()
	if out.Len() != 0 {
		t.Errorf("%q", out.String())
	}
}

// What is not a terminal gets no line, and no sign of one.
func TestNoTerminalNoProgress(t *testing.T) {
	var out bytes.Buffer
	a := &app{stderr: &out, now: func() time.Time { return noon }}
	p := a.progress("%s of %s", 10)
	if p != nil {
		t.Error("there is a line although nobody watches")
	}
	p.step()
	p.end()
	if out.Len() != 0 {
		t.Errorf("%q", out.String())
	}
}
