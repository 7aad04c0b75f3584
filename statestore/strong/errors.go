package strong

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"

	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	"github.com/holdfast-mesh/holdfast/statestore/refusal"
)

// The Committer's and the Forwarder's errors are known by their methods, since neither side imports the other.
type (
	outcomer interface{ Outcome() storev1.Outcome }
	coder    interface{ Code() int32 }
)

// guardFailed says that nothing of the transaction can be carried out any more, and which write's guard said so: that of
// its slot where moved, else that of its head.
func guardFailed(err error) (write int, moved, failed bool) {
	var slot interface{ NotOwner() bool }
	var head interface{ Conflict() bool }
	var index interface{ Index() int }
	if errors.As(err, &index) {
		write = index.Index()
	}
	moved = errors.As(err, &slot) && slot.NotOwner()
	return write, moved, moved || errors.As(err, &head) && head.Conflict()
}

// writeRefusal is a failed write's refusal: not applied where the error says so, else unknown.
func writeRefusal(op string, err error) *refusal.Error {
	var known *refusal.Error
	if errors.As(err, &known) {
		return known
	}
	var o outcomer
	if !errors.As(err, &o) || o.Outcome() != storev1.Outcome_OUTCOME_NOT_APPLIED {
		return refusal.Unknown("%s: %v", op, err)
	}
	return refusal.NotApplied(codeOf(err), "%s: %v", op, err)
}

// readRefusal is a failed read's refusal.
func readRefusal(op string, err error) *refusal.Error {
	var known *refusal.Error
	if errors.As(err, &known) {
		return known
	}
	return refusal.NotApplied(codeOf(err), "%s: %v", op, err)
}

func codeOf(err error) codes.Code {
	var c coder
	switch {
	case errors.As(err, &c):
		return codes.Code(c.Code())
	case errors.Is(err, context.DeadlineExceeded):
		return codes.DeadlineExceeded
	case errors.Is(err, context.Canceled):
		return codes.Canceled
	}
	return codes.Unavailable
}
