// Package refusal is the one form of error that leaves the store: a gRPC code, the write's outcome and a message for
// people. The parts of the store make them where they decide; the API copies them onto the wire.
package refusal

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"

	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
)

// Error is a refusal. A write's outcome is never left open: it is not applied, or nobody knows.
type Error struct {
	Code    codes.Code
	Outcome storev1.Outcome
	Message string
	// Precondition says that the caller's own condition of the version does not hold.
	Precondition bool
}

func (e *Error) Error() string { return e.Message }

// Proto is the refusal on the wire.
func (e *Error) Proto() *storev1.Error {
	return &storev1.Error{Code: int32(e.Code), Message: e.Message, Outcome: e.Outcome, Precondition: e.Precondition}
}

// FromProto is the refusal that another store sent.
func FromProto(e *storev1.Error) *Error {
	return &Error{Code: codes.Code(e.GetCode()), Outcome: e.GetOutcome(), Message: e.GetMessage(), Precondition: e.GetPrecondition()}
}

// NotApplied refuses a request that changed nothing and never will.
func NotApplied(code codes.Code, format string, args ...any) *Error {
	return &Error{Code: code, Outcome: storev1.Outcome_OUTCOME_NOT_APPLIED, Message: fmt.Sprintf(format, args...)}
}

// Unmatched refuses a request whose own condition of the version does not hold.
func Unmatched(format string, args ...any) *Error {
	e := NotApplied(codes.FailedPrecondition, format, args...)
	e.Precondition = true
	return e
}

// Unknown reports a write that may have been applied, now or later.
func Unknown(format string, args ...any) *Error {
	return &Error{Code: codes.DeadlineExceeded, Outcome: storev1.Outcome_OUTCOME_UNKNOWN, Message: fmt.Sprintf(format, args...)}
}

// From makes any error a refusal. Errors that are none yet are taken for the given outcome's: a time-out, or our own fault.
func From(err error, outcome storev1.Outcome) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	code := codes.Internal
	switch {
	case errors.Is(err, context.DeadlineExceeded), outcome == storev1.Outcome_OUTCOME_UNKNOWN:
		code = codes.DeadlineExceeded
	case errors.Is(err, context.Canceled):
		code = codes.Canceled
	}
	return &Error{Code: code, Outcome: outcome, Message: err.Error()}
}
