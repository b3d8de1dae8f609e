package tenant

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// How long to wait before a custodian that failed is looked at again. One that
// is merely away is asked often, for people wait for it, and the first of the
// questions costs it nothing; one that refuses does so on purpose.
const (
	firstPause   = time.Second
	outagePause  = 4 * time.Second
	refusalPause = 30 * time.Second
)

// run keeps the tenant in touch with its custodian until ctx ends.
func (t *Tenant) run(ctx context.Context) {
	pause := firstPause
	for first := true; ; first = false {
		err := t.bringUp(ctx)
		if ctx.Err() == nil {
			t.tell(err, first)
			t.noteUses(ctx)
		}
		select { // what the look itself set off
		case <-t.nudge:
		default:
		}
		if first {
			close(t.ready)
		}
		wait := t.syncEvery
		if err == nil {
			pause = firstPause
		} else {
			longest := refusalPause
			if keys.IsOutage(err) {
				longest = outagePause
			}
			wait = min(pause, longest, wait)
			// Tenants of one custodian must not come all at once.
			wait = wait/2 + rand.N(wait/2+1) //nolint:gosec // jitter, not a secret
			pause = min(2*pause, refusalPause)
		}
		if !t.pause(ctx, wait) {
			return
		}
	}
}

// pause waits until the next look is due, or a call of the custodian says that
// it is due now, and records alarms meanwhile. It returns false when ctx ends.
func (t *Tenant) pause(ctx context.Context, wait time.Duration) bool {
	end := time.Now().Add(wait)
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
			return true
		case <-t.nudge:
			// Not at once, so that failing calls do not add their number of looks.
			timer.Reset(min(time.Until(end), firstPause))
		case a := <-t.alarms:
			if err := t.raise(ctx, a.custodian, a.err); err != nil {
				t.logger.Error("an alarm was not recorded", "tenant", t.name, "error", err)
			}
		}
	}
}

// tell takes over how a look ended, and says so where that is news.
func (t *Tenant) tell(err error, first bool) {
	switch news := t.setState(err); {
	case !news && !first:
	case err != nil:
		t.logger.Warn("the tenant cannot serve", "tenant", t.name, "reason", string(vocab.ReasonOf(err)), "error", err)
	default:
		t.logger.Info("the tenant serves", "tenant", t.name)
	}
}

// saw hears of every call of the custodian that the ring makes.
func (t *Tenant) saw(c keys.Call) {
	t.logCustodian(c)
	if c.Op == "describe" {
		return // that was the look itself
	}
	state, reason := t.State().Err, vocab.ReasonOf(c.Err)
	switch {
	case c.Err == nil && (keys.IsOutage(state) || vocab.ReasonOf(state) == vocab.ReasonCustodianRefused),
		state == nil && (keys.IsOutage(c.Err) || reason == vocab.ReasonCustodianRefused || reason == vocab.ReasonCustodianChanged):
		// What the last look found is no longer so.
		select {
		case t.nudge <- struct{}{}:
		default: // it is known already
		}
	}
	// A caller that waits gets an event that is an alarm; for a refresh nobody
	// waits.
	if c.Op == "refresh" && alarming[reason] {
		select {
		case t.alarms <- custodianAlarm{c.Custodian, c.Err}:
		default: // the log above has it
		}
	}
}

// logCustodian writes one line for a call of the custodian, with the
// custodian's own IDs of it, by which it is found in the custodian's log.
func (t *Tenant) logCustodian(c keys.Call) {
	level := slog.LevelDebug
	switch {
	case alarming[vocab.ReasonOf(c.Err)]:
		level = slog.LevelError
	case c.Err != nil:
		level = slog.LevelInfo
	}
	ctx := context.Background()
	if !t.logger.Enabled(ctx, level) {
		return
	}
	attrs := []slog.Attr{
		slog.String("tenant", t.name), slog.String("op", c.Op), slog.String("custodian", c.Custodian.String()),
		slog.Int("items", c.Items), slog.Duration("took", c.Duration), slog.Any("requests", c.RequestIDs),
	}
	if c.Err != nil {
		attrs = append(attrs, slog.String("reason", string(vocab.ReasonOf(c.Err))), slog.String("error", c.Err.Error()))
		if v, ok := asVocab(c.Err); ok && v.Unwrap() != nil {
			attrs = append(attrs, slog.String("cause", v.Unwrap().Error()))
		}
	}
	t.logger.LogAttrs(ctx, level, "custodian call", attrs...)
}

// custodianAlarm is what a call of a custodian found.
type custodianAlarm struct {
	custodian vocab.CustodianID
	err       error
}

// alarm records what can only come from damage or an exchange, once for each
// time it begins, and returns it.
func (t *Tenant) alarm(ctx context.Context, c vocab.CustodianID, err error) error {
	if !alarmingOf(err) || sameTrouble(t.State().Err, err) {
		return err
	}
	if recErr := t.raise(ctx, c, err); recErr != nil {
		return recErr
	}
	return err
}

// sameTrouble reports whether two states of the tenant, nil being good, are the
// same to whoever hears of them. A login with too much power has the reason of
// one with too little, and is something else.
func sameTrouble(a, b error) bool {
	return (a == nil) == (b == nil) && vocab.ReasonOf(a) == vocab.ReasonOf(b) &&
		errors.Is(a, keys.ErrTooMuchPower) == errors.Is(b, keys.ErrTooMuchPower)
}

// alarmingOf reports whether what a look at a custodian found is an alarm.
func alarmingOf(err error) bool {
	r := vocab.ReasonOf(err)
	return alarming[r] || r == vocab.ReasonKeyAttributesUnsafe || errors.Is(err, keys.ErrTooMuchPower) || errors.Is(err, errVanished)
}

// noteFault notes how a look at a key that is not the active one ended, with an
// alarm when what is one begins. The error is one of the log's.
func (t *Tenant) noteFault(ctx context.Context, c vocab.CustodianID, err error) error {
	t.opened.mu.Lock()
	before := t.opened.faults[c]
	if t.opened.faults == nil {
		t.opened.faults = map[vocab.CustodianID]error{}
	}
	t.opened.faults[c] = err
	t.opened.mu.Unlock()
	if sameTrouble(before, err) {
		return nil
	}
	if err == nil {
		t.logger.Info("a registered key is in order again", "tenant", t.name, "key", t.keyNameOf(c))
		return nil
	}
	t.logger.Warn("a registered key cannot be used", "tenant", t.name, "key", t.keyNameOf(c), "reason", string(vocab.ReasonOf(err)), "error", err)
	if !alarmingOf(err) {
		return nil
	}
	return t.raise(ctx, c, err)
}

// raise records an alarm about a custodian.
func (t *Tenant) raise(ctx context.Context, c vocab.CustodianID, err error) error {
	e := t.newEvent(audit.KindAlarm, Call{}, t.now())
	e.Custodian, e.Reason, e.Alarm = c, vocab.ReasonOf(err), true
	if v, ok := asVocab(err); ok {
		e.Detail = v.Message
	}
	return t.commit(ctx, func(store.Tx) error { return nil }, e)
}
