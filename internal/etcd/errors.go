package etcd

import (
	"context"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

var (
	// ErrDown: there is no connection to etcd.
	ErrDown = errors.New("etcd is not reachable")
	// ErrNoLeader: the member in use knows no leader. It comes with ErrDown.
	ErrNoLeader = errors.New("etcd has no leader")
	// ErrLogin: etcd does not accept the user, or wants one.
	ErrLogin = errors.New("etcd refuses the login")
	// ErrLeaseGone: the lease expired or was revoked.
	ErrLeaseGone = errors.New("lease is gone")
	// ErrTooLarge: the request is over etcd's limits.
	ErrTooLarge = errors.New("request is over etcd's limits")
	// ErrWatchEnded: etcd ended a watch by itself.
	ErrWatchEnded = errors.New("etcd ended the watch")
	// ErrFull: etcd is over its quota and refuses writes until it is compacted and its alarm disarmed. This one it may have
	// carried out all the same.
	ErrFull = errors.New("etcd is full")
)

// Error is what every call of the client fails with.
type Error struct {
	Op string
	// Sent is true where the request may have reached etcd and it did not surely refuse it: a write's outcome is then unknown.
	// False proves that nothing was written.
	Sent bool
	Err  error
}

func (e *Error) Error() string { return fmt.Sprintf("etcd %s: %v", e.Op, e.Err) }

func (e *Error) Unwrap() error { return e.Err }

// sent reports whether err is that of a call that may have reached etcd.
func sent(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Sent
}

// wrap classifies err; reached says that a transport took the request.
func wrap(op string, reached bool, err error) *Error {
	kind := rpctypes.Error(err)
	switch {
	case errors.Is(kind, rpctypes.ErrLeaseNotFound):
		return &Error{Op: op, Err: ErrLeaseGone}
	case errors.Is(kind, rpctypes.ErrRequestTooLarge), errors.Is(kind, rpctypes.ErrTooManyOps):
		return &Error{Op: op, Err: fmt.Errorf("%w: %w", ErrTooLarge, err)}
	case errors.Is(kind, rpctypes.ErrNoSpace):
		// Etcd says so too of the transactions that it carried out after it found itself full and before its alarm was in
		// its log.
		return &Error{Op: op, Sent: true, Err: fmt.Errorf("%w: %w", ErrFull, err)}
	case errors.Is(kind, rpctypes.ErrNoLeader):
		// Said before anything else is done with a request.
		return &Error{Op: op, Err: fmt.Errorf("%w: %w: %w", ErrDown, ErrNoLeader, err)}
	case errors.Is(kind, rpctypes.ErrInvalidAuthToken), errors.Is(kind, rpctypes.ErrUserEmpty), errors.Is(kind, rpctypes.ErrAuthOldRevision):
		return &Error{Op: op, Err: fmt.Errorf("%w: %w", ErrLogin, err)}
	}
	if !reached {
		if code := status.Code(err); code == codes.Unavailable {
			err = fmt.Errorf("%w: %w", ErrDown, err)
		}
		return &Error{Op: op, Err: err}
	}
	var refusal rpctypes.EtcdError
	if errors.As(kind, &refusal) {
		switch refusal.Code() {
		case codes.InvalidArgument, codes.NotFound, codes.FailedPrecondition, codes.PermissionDenied, codes.Unauthenticated,
			codes.OutOfRange, codes.ResourceExhausted:
			// Etcd checks these before it proposes the request to the log, or rejects it when applying it as a whole.
			return &Error{Op: op, Err: err}
		}
	}
	if code := status.Code(err); code == codes.DeadlineExceeded {
		err = fmt.Errorf("%w: %w", context.DeadlineExceeded, err)
	}
	return &Error{Op: op, Sent: true, Err: err}
}
