package stateclient

import (
	"fmt"

	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
)

// The google.rpc codes that this package itself answers with. It must not import grpc, which would grow the module in
// Envoy by megabytes.
const (
	codeInvalidArgument   = 3
	codeDeadlineExceeded  = 4
	codeResourceExhausted = 8
	codeInternal          = 13
	codeUnavailable       = 14
)

// Error is why a call failed. Every error that this package hands out is one.
type Error struct {
	// Code is a google.rpc.Code.
	Code    int32
	Message string
	// Outcome says whether the call's effect has happened. It is never OUTCOME_UNSPECIFIED.
	Outcome storev1.Outcome
	// Precondition says that the request's own if_match or if_none_match refused it.
	Precondition bool
}

// Error describes e for a log.
func (e *Error) Error() string {
	return fmt.Sprintf("store: %s (code %d, %s)", e.Message, e.Code, e.Outcome)
}

func notApplied(code int32, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...), Outcome: storev1.Outcome_OUTCOME_NOT_APPLIED}
}

// fromStore is the store's own error. A store that doesn't say what became of a commit leaves it unknown.
func fromStore(e *storev1.Error, commit bool) *Error {
	out := &Error{Code: e.GetCode(), Message: e.GetMessage(), Outcome: e.GetOutcome(), Precondition: e.GetPrecondition()}
	if out.Code <= 0 || out.Code > 16 {
		out.Code = codeInternal
	}
	switch out.Outcome {
	case storev1.Outcome_OUTCOME_APPLIED, storev1.Outcome_OUTCOME_NOT_APPLIED, storev1.Outcome_OUTCOME_UNKNOWN:
	default:
		out.Outcome = lost(commit)
	}
	return out
}

// lost is the outcome of a call whose request may have reached the store and whose reply did not come.
func lost(commit bool) storev1.Outcome {
	if commit {
		return storev1.Outcome_OUTCOME_UNKNOWN
	}
	return storev1.Outcome_OUTCOME_NOT_APPLIED
}
