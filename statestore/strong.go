package statestore

import (
	"context"

	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	"github.com/holdfast-mesh/holdfast/statestore/refusal"
	"github.com/holdfast-mesh/holdfast/statestore/strong"
)

// Caller is who begins strong commands; see strong.Caller.
type Caller = strong.Caller

// NewCaller is for one connection of the API.
func (e *Engine) NewCaller() *Caller { return &Caller{} }

// Gone ends all turns of a caller.
func (e *Engine) Gone(*Caller) {}

// StrongCall carries out a Get, Begin, Commit or Abort of a strong entity. forwarded calls come from another store.
func (e *Engine) StrongCall(_ context.Context, _ *Caller, _ bool, req *storev1.Request) *storev1.Response {
	return &storev1.Response{Id: req.GetId(), Error: refusal.From(errNoEtcd(), storev1.Outcome_OUTCOME_NOT_APPLIED).Proto()}
}

func (e *Engine) inspectStrong(context.Context, *storev1.Entity, *storev1.Inspection) (*storev1.Inspection, error) {
	return nil, errNoEtcd()
}
