package statestore

import (
	"context"

	"google.golang.org/grpc/codes"

	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	"github.com/holdfast-mesh/holdfast/statestore/eventlog"
	"github.com/holdfast-mesh/holdfast/statestore/refusal"
)

// History reads an event-sourced entity's events from etcd, whoever owns it; see eventlog.History. NOT_FOUND: the type is
// not configured here. FAILED_PRECONDITION: it is not event_sourced.
func (e *Engine) History(ctx context.Context, h eventlog.History) error {
	if err := checkEntity(&storev1.Entity{Type: h.Type, Key: h.Key}); err != nil {
		return err
	}
	c := e.config.Load()
	if c == nil || c.types[h.Type] == nil {
		return refusal.NotApplied(codes.NotFound, "entity type %q is not configured at this store (yet)", h.Type)
	}
	if c.types[h.Type].GetModel() != configv1.Model_MODEL_EVENT_SOURCED {
		return refusal.NotApplied(codes.FailedPrecondition, "entity type %q has no history: its model is not event_sourced", h.Type)
	}
	return h.Read(ctx, e.links.Load().Committer)
}
