package strong

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/genproto/googleapis/rpc/code"

	"github.com/holdfast-mesh/holdfast/internal/etcd"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
)

// The kinds of refusal. An Error wraps one of them, or what etcd said.
var (
	ErrDown     = errors.New("etcd is gone")
	ErrNotOwner = errors.New("this store does not own the slot (any more)")
	ErrConflict = errors.New("the entity was changed meanwhile")
	ErrBusy     = errors.New("too many commits wait for etcd")
	ErrTooLarge = errors.New("too large for one transaction of etcd")
	ErrFull     = errors.New("etcd has no room for more")
	ErrInvalid  = errors.New("not a commit")
	ErrClosed   = errors.New("closed")
	errUnknown  = errors.New("etcd did not answer in time")
)

// Error says what became of a write, and how to answer its caller. The methods let a caller that cannot import this
// package tell the kinds apart.
type Error struct {
	outcome storev1.Outcome
	code    code.Code
	err     error
	index   int
}

func (e *Error) Error() string { return e.err.Error() }

func (e *Error) Unwrap() error { return e.err }

// Outcome of the write that failed: not applied or unknown.
func (e *Error) Outcome() storev1.Outcome { return e.outcome }

// Code is the google.rpc.Code to answer with.
func (e *Error) Code() int32 { return int32(e.code) }

// NotOwner is true where another store may own the slot: ask Owner.
func (e *Error) NotOwner() bool { return errors.Is(e.err, ErrNotOwner) }

// Conflict is true where the entity's revision was not the expected one: load it again. With an unknown outcome the
// writes may have been applied before it was changed again: what the entity remembers of them tells.
func (e *Error) Conflict() bool { return errors.Is(e.err, ErrConflict) }

// Index is which of a commit's writes was refused, where it is one of them: the first.
func (e *Error) Index() int { return e.index }

func (e *Error) unknown() bool { return e.outcome == storev1.Outcome_OUTCOME_UNKNOWN }

func (e *Error) at(i int) *Error {
	e.index = i
	return e
}

func refused(c code.Code, err error) *Error {
	return &Error{outcome: storev1.Outcome_OUTCOME_NOT_APPLIED, code: c, err: err}
}

// unsettled is a refusal of an attempt whose predecessor may have been applied.
func unsettled(c code.Code, err error) *Error {
	return &Error{outcome: storev1.Outcome_OUTCOME_UNKNOWN, code: c, err: err}
}

func unknown(err error) *Error {
	return &Error{outcome: storev1.Outcome_OUTCOME_UNKNOWN, code: code.Code_DEADLINE_EXCEEDED, err: fmt.Errorf("%w: %w", errUnknown, err)}
}

// writeError turns the error of a transaction that carries a write.
func writeError(err error) *Error {
	var e *etcd.Error
	switch {
	case !errors.As(err, &e):
		return unknown(err)
	case errors.Is(err, etcd.ErrDown):
		if e.Sent {
			return unknown(err)
		}
		return refused(code.Code_UNAVAILABLE, fmt.Errorf("%w: %w", ErrDown, err))
	case e.Sent:
		return unknown(err)
	case errors.Is(err, etcd.ErrTooLarge):
		return refused(code.Code_RESOURCE_EXHAUSTED, fmt.Errorf("%w: %w", ErrTooLarge, err))
	}
	return refused(code.Code_UNAVAILABLE, err)
}

// readError turns the error of a call that changes no entity: nothing was applied, whatever became of it.
func readError(err error) *Error {
	e := writeError(err)
	e.outcome = storev1.Outcome_OUTCOME_NOT_APPLIED
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		e.code = code.Code_DEADLINE_EXCEEDED
	case errors.Is(err, etcd.ErrFull):
		e.code = code.Code_RESOURCE_EXHAUSTED
	case e.code == code.Code_DEADLINE_EXCEEDED:
		e.code = code.Code_UNAVAILABLE
	}
	return e
}
