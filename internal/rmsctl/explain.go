package rmsctl

import (
	"context"
	"errors"

	"github.com/openrms/rms/internal/vocab"
)

// explain returns the person's error in a chain, nil if there is none. The
// errors of calls have been made into such by the SDK.
func explain(err error) *vocab.Error {
	if e, ok := errors.AsType[*vocab.Error](err); ok {
		return e
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return vocab.Errorf(vocab.ReasonServerUnreachable, "the server did not answer in time").
			WithNext("Try again").Because(err)
	}
	return nil
}
