package operation

import (
	"time"

	"github.com/openrms/rms/internal/vocab"
)

// At returns the state at an instant. Two changes need nobody to write them
// down: a request that nobody approved in time has expired, and what was
// allowed until an instant is over from that instant on.
func (o *Operation) At(now time.Time) State {
	ms := Millis(now)
	switch {
	case o.State == AwaitingApproval && ms >= o.Expires:
		return Expired
	case o.State == Running && o.Ends != 0 && ms >= o.Ends:
		return Succeeded
	}
	return o.State
}

// Due returns when At changes by itself; zero for never.
func (o *Operation) Due() time.Time {
	switch {
	case o.State == AwaitingApproval:
		return Time(o.Expires)
	case o.State == Running && o.Ends != 0:
		return Time(o.Ends)
	}
	return time.Time{}
}

// Approve adds a person's approval of the parameters with the hash params. The
// last one that is needed makes it run. That the approver may, is not decided
// here.
//
// The error is SAME_PERSON for the requester and for whoever approved already,
// OPERATION_STATE if it does not wait for approval, and ETAG_MISMATCH if it was
// not this that the approver was shown.
func (o *Operation) Approve(by Person, params [32]byte, event vocab.EventID, now time.Time) error {
	if o.Quorum != nil {
		return Unsigned()
	}
	if o.Requester.Same(&by) {
		return vocab.Errorf(vocab.ReasonSamePerson, "who asks for something does not approve it").WithNext("Ask somebody else who may")
	}
	for _, a := range o.Approvals {
		if a.Same(&by) {
			return vocab.Errorf(vocab.ReasonSamePerson, "you approved this already").WithNext("Ask somebody else who may")
		}
	}
	if err := o.waits(now, "approved"); err != nil {
		return err
	}
	if params != o.ParamsHash() {
		return vocab.Errorf(vocab.ReasonEtagMismatch, "the operation is not the one you were shown").WithNext("Look at it again, and approve what you see")
	}
	o.Approvals = append(o.Approvals, Approval{Person: by, At: Millis(now), Event: event, Params: params})
	if len(o.Approvals) >= int(o.Needed) {
		o.State = Running
	}
	return nil
}

// Unsigned is the refusal of an approval without the signature that it takes:
// REQUEST_INVALID.
func Unsigned() error {
	return vocab.Errorf(vocab.ReasonRequestInvalid, "this is under dual control: an approval is signed with the approver's own key").
		WithNext("rmsctl operation approve --sign KEYFILE, or --sign agent")
}

// Approved reports whether all approvals that are needed are there, each by
// somebody else, none by the requester, and all of exactly these parameters.
func (o *Operation) Approved() bool {
	if o.Quorum != nil {
		return o.signedBy()
	}
	hash := o.ParamsHash()
	for i, a := range o.Approvals {
		if a.Params != hash || o.Requester.Same(&a.Person) {
			return false
		}
		for _, b := range o.Approvals[:i] {
			if a.Same(&b.Person) {
				return false
			}
		}
	}
	return len(o.Approvals) >= int(o.Needed)
}

// Reject ends a request. The requester takes it back with Cancel instead:
// SAME_PERSON.
func (o *Operation) Reject(by Person, why string, now time.Time) error {
	if o.Requester.Same(&by) {
		return vocab.Errorf(vocab.ReasonSamePerson, "your own request is cancelled, not rejected").WithNext("Cancel it")
	}
	if err := o.waits(now, "rejected"); err != nil {
		return err
	}
	o.end(Rejected, "", why, now)
	return nil
}

// Pause holds long work up; Resume lets it go on.
func (o *Operation) Pause(now time.Time) error {
	if !o.Kind.Long() {
		return vocab.Errorf(vocab.ReasonOperationState, "a %s is not paused", o.Kind).WithNext("Cancel it")
	}
	if o.At(now) != Running {
		return o.wrongState(now, "paused")
	}
	o.State = Paused
	return nil
}

// Resume lets paused work go on.
func (o *Operation) Resume(now time.Time) error {
	if o.At(now) != Paused {
		return o.wrongState(now, "resumed")
	}
	o.State = Running
	return nil
}

// Cancel ends it before it is done.
func (o *Operation) Cancel(why string, now time.Time) error {
	if o.At(now).Ended() {
		return o.wrongState(now, "cancelled")
	}
	o.end(Cancelled, "", why, now)
	return nil
}

// Lapse writes down what time alone has changed; OPERATION_STATE if nothing.
func (o *Operation) Lapse(now time.Time) error {
	state := o.At(now)
	if state == o.State {
		return o.wrongState(now, "ended by itself")
	}
	o.end(state, "", "", o.Due())
	return nil
}

// Succeed ends work that is done; result says what came of it.
func (o *Operation) Succeed(result string, now time.Time) error {
	if o.At(now) != Running {
		return o.wrongState(now, "finished")
	}
	o.Result = result
	o.end(Succeeded, "", "", now)
	return nil
}

// Fail ends what cannot be done.
func (o *Operation) Fail(why vocab.Reason, message string, now time.Time) error {
	if o.At(now) != Running {
		return o.wrongState(now, "ended")
	}
	o.end(Failed, why, message, now)
	return nil
}

// Void ends a request whose approval would be of nothing any more, for what it
// rests on has changed.
func (o *Operation) Void(why vocab.Reason, message string, now time.Time) error {
	if err := o.waits(now, "ended"); err != nil {
		return err
	}
	o.end(Failed, why, message, now)
	return nil
}

func (o *Operation) end(s State, why vocab.Reason, message string, now time.Time) {
	o.State, o.Why, o.Message, o.Ended = s, why, message, Millis(now)
}

func (o *Operation) waits(now time.Time, what string) error {
	if o.At(now) != AwaitingApproval {
		return o.wrongState(now, what)
	}
	return nil
}

func (o *Operation) wrongState(now time.Time, what string) error {
	return vocab.Errorf(vocab.ReasonOperationState, "the operation cannot be %s: it is %s", what, o.At(now))
}
