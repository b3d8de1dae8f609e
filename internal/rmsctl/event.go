package rmsctl

import (
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// refused says whether an event records that something did not happen.
func refused(e *rmsv1.Event) bool { return e.GetOutcome() != "" && e.GetOutcome() != "OK" }

// eventWord is what happened in one word: refusals in capitals, so that they
// stand out in a column.
func eventWord(e *rmsv1.Event) string {
	switch {
	case e.GetAlarm():
		return "ALARM"
	case e.GetKind() == "operation-failed": // of its own kind: nobody was refused
		return e.GetKind()
	case refused(e):
		return "REFUSED"
	case e.GetKind() == "released":
		return "opened"
	}
	kind := e.GetKind()
	if rest, ok := strings.CutPrefix(kind, "license-"); ok {
		return rest
	}
	return kind
}

// eventTable prints events one to a line. subject adds what each is about, for
// events of more than one license.
func (a *app) eventTable(events []*rmsv1.Event, subject bool) {
	t := newTable(a.stdout)
	for _, e := range events {
		t.row(eventCells(e, subject)...)
	}
	t.flush()
}

func eventCells(e *rmsv1.Event, subject bool) []string {
	who := e.GetPrincipal()
	if e.GetActor() != "" {
		who += " (by " + e.GetActor() + ")"
	}
	right := ""
	if e.GetRight() != rmsv1.Right_RIGHT_UNSPECIFIED {
		right = strings.TrimPrefix(e.GetRight().String(), "RIGHT_")
	}
	return []string{showStamp(e.GetTime()), eventWord(e), who, right, e.GetPeer(), eventMore(e, subject), lastPart(e.GetName())}
}

// eventMore is what one should know beyond who and when.
func eventMore(e *rmsv1.Event, subject bool) string {
	var parts []string
	switch {
	case !subject:
	case e.GetLicense() != "":
		parts = append(parts, "license "+lastPart(e.GetLicense()))
	case e.GetTemplate() != "":
		parts = append(parts, "template "+lastPart(e.GetTemplate()))
	}
	if refused(e) {
		parts = append(parts, e.GetOutcome())
		if e.GetOutcome() == string(vocab.ReasonLicenseRevoked) && e.GetParent() != "" {
			parts = append(parts, "revocations/"+lastPart(e.GetParent()))
		}
	}
	if e.GetBreakGlass() {
		parts = append(parts, "BREAK-GLASS")
	}
	if e.GetOperation() != "" && !strings.Contains(e.GetDetail(), lastPart(e.GetOperation())) {
		parts = append(parts, "operation "+lastPart(e.GetOperation()))
	}
	if e.GetClient() != "" {
		parts = append(parts, e.GetClient())
	}
	if e.GetCached() && e.GetExpireTime() != nil {
		parts = append(parts, "cached until "+showDay(e.GetExpireTime()))
	}
	if e.GetDetail() != "" {
		parts = append(parts, e.GetDetail())
	}
	return strings.Join(parts, ", ")
}

func showDay(ts *timestamppb.Timestamp) string { return ts.AsTime().UTC().Format(time.DateOnly) }
