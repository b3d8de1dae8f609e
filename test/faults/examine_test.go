package faults_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/store/bolt"
	"github.com/openrms/rms/internal/vocab"
	"github.com/openrms/rms/test/rmsdtest"
)

// findings is what is wrong with a data directory.
type findings struct {
	problems []error
	lost     int // acknowledged calls that left no trace, or another one
	events   uint64
	released int // events that say a content key left
}

func (f *findings) found(err error) { f.problems = append(f.problems, err) }

func (f *findings) loss(format string, args ...any) {
	f.lost++
	f.problems = append(f.problems, fmt.Errorf(format, args...))
}

// err returns the first few problems as one, nil if there are none.
func (f *findings) err() error {
	if len(f.problems) == 0 {
		return nil
	}
	return fmt.Errorf("%d problems, %d acknowledged calls lost; the first: %w", len(f.problems), f.lost, errors.Join(f.problems[:min(5, len(f.problems))]...))
}

// examine opens the data directory as the daemon would, looks at everything in
// it as fsck does, and compares it with what the callers know. acknowledged
// says which calls had been answered; of the others anything may be true, but
// at most once. checkpoints were exported earlier and must still hold.
func examine(ctx context.Context, data string, tenant vocab.TenantID, calls []*call, acknowledged func(*call) bool, checkpoints ...audit.Checkpoint) *findings {
	f := &findings{}
	lostAll := func(err error) *findings {
		f.found(err)
		for _, c := range calls {
			if acknowledged(c) {
				f.lost++
			}
		}
		return f
	}
	s, err := bolt.Open(bolt.Options{Path: filepath.Join(data, "rms.db"), Stamp: store.Production, Schema: record.Schema, MinFree: -1})
	if err != nil {
		return lostAll(fmt.Errorf("the store does not open: %w", err))
	}
	defer s.Close()
	log := audit.New(s)
	if err := s.Check(ctx, f.found); err != nil {
		return lostAll(err)
	}
	if len(f.problems) > 0 {
		return lostAll(errors.New("its pages contradict each other")) // and cannot be followed
	}
	if err := log.CheckExported(ctx, filepath.Join(data, "checkpoints")); err != nil {
		f.found(fmt.Errorf("the exported checkpoint: %w", err))
	}
	if _, err := log.Verify(ctx, tenant, checkpoints...); err != nil {
		f.found(fmt.Errorf("the log: %w", err))
	}
	if err := s.View(ctx, func(r store.Reader) error {
		if _, err := record.Check(r, tenant, f.found); err != nil {
			return err
		}
		return f.compare(ctx, r, log, tenant, calls, acknowledged)
	}); err != nil {
		return lostAll(err)
	}
	return f
}

// compare holds the log against the callers' memory. Each call was made with a
// recipient key of its own, so an event belongs to exactly one call; of a batch
// each item does, by its event.
func (f *findings) compare(ctx context.Context, r store.Reader, log *audit.Log, tenant vocab.TenantID, calls []*call, acknowledged func(*call) bool) (err error) {
	if f.events, err = log.Size(ctx, tenant); err != nil {
		return err
	}
	byKey, byID := map[[32]byte][]audit.Entry{}, map[vocab.EventID]audit.Entry{}
	for e, err := range log.Range(ctx, tenant, 0, f.events) {
		if err != nil {
			return err
		}
		switch e.Event.Kind {
		case audit.KindPublished, audit.KindReleased:
			f.released++
		case audit.KindRefused:
		default:
			continue
		}
		byKey[e.Event.RecipientKey] = append(byKey[e.Event.RecipientKey], e)
		byID[e.Event.ID] = e
	}
	used := map[[32]byte]bool{}
	for _, c := range calls {
		events := byKey[c.Recipient]
		used[c.Recipient] = true
		if e, ok := byID[c.Event]; c.batch && ok {
			events = []audit.Entry{e}
			delete(byID, c.Event) // nobody else was told of it
		}
		if len(events) > 1 {
			f.found(fmt.Errorf("one call has %d events: %s, %s, …", len(events), events[0].Event.ID, events[1].Event.ID))
		}
		if !acknowledged(c) || c.Outcome == rmsdtest.Refused && c.Event.IsZero() {
			continue // whether it happened, nobody knows
		}
		if len(events) == 0 {
			f.loss("event %s, which a caller was told of, is not in the log", c.Event)
			continue
		}
		if err := c.matches(events[0]); err != nil {
			f.loss("event %s: %w", c.Event, err)
			continue
		}
		if c.Document != nil {
			switch l, err := record.GetLicense(r, tenant, c.Content); {
			case err != nil:
				f.loss("license %s: %w", c.Content, err)
			case l == nil:
				f.loss("license %s, which was acknowledged, is not there", c.Content)
			case l.Commitment != c.Document.Commitment:
				f.loss("license %s is another one", c.Content)
			}
		}
	}
	for key, events := range byKey {
		if used[key] {
			continue
		}
		f.found(fmt.Errorf("event %s (%s) belongs to no call that was made", events[0].Event.ID, events[0].Event.Kind))
	}
	return nil
}

// matches compares an event with what its caller was told.
func (c *call) matches(e audit.Entry) error {
	want := audit.KindReleased
	switch {
	case c.Outcome == rmsdtest.Refused:
		want = audit.KindRefused
	case c.Publish:
		want = audit.KindPublished
	}
	switch {
	case e.Event.ID != c.Event:
		return fmt.Errorf("the log has event %s for the call", e.Event.ID)
	case e.Event.Kind != want:
		return fmt.Errorf("it is of kind %s, its caller was told %s", e.Event.Kind, want)
	case e.Event.Reason != c.Reason:
		return fmt.Errorf("it says %q, its caller was told %q", e.Event.Reason, c.Reason)
	case c.Outcome == rmsdtest.Received && e.Event.Content != c.Content:
		return errors.New("it is about another document")
	case c.Leaf != [32]byte{} && c.Leaf != e.LeafHash():
		return errors.New("the use license promises another leaf")
	}
	return nil
}
