package controlplane

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/holdfast-mesh/holdfast/controlplane/admin"
	"github.com/holdfast-mesh/holdfast/controlplane/resolve"
	"github.com/holdfast-mesh/holdfast/internal/mesh"
	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	eventlogv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/eventlog/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
)

// History implements admin.Source: it asks one store after the other until one has answered to the end. Who follows is not
// told that a store went away: the next one goes on where that ended.
func (p *plane) History(ctx context.Context, r admin.HistoryRequest, send func(*admin.HistoryLine) error) error {
	v := p.view.Load()
	t := v.types[r.Type]
	switch {
	case t == nil:
		return fmt.Errorf("%w: no configured service has the entity type %s (configured: %v)", admin.ErrNotFound, r.Type, slices.Sorted(maps.Keys(v.types)))
	case t.GetModel() != configv1.Model_MODEL_EVENT_SOURCED:
		return fmt.Errorf("%w: entity type %s has no history: its model is not event_sourced", admin.ErrRefused, r.Type)
	}
	h := &historyReading{HistoryRequest: r, messages: resolve.NewMessages(v.descriptors[r.Type]), send: send}
	for {
		err := errors.New("the mesh has no nodes")
		for _, node := range slices.Sorted(maps.Keys(v.sockets)) {
			if err = h.read(ctx, mesh.EventLogSocket(v.sockets[node])); err == nil || ctx.Err() != nil || final(err) {
				return historyError(err)
			}
		}
		if !h.Follow || !h.begun {
			return historyError(err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(historyRetry):
		}
		v = p.view.Load()
	}
}

// final says that another store would say the same.
func final(err error) bool {
	switch status.Code(err) {
	case codes.OutOfRange, codes.FailedPrecondition, codes.InvalidArgument, codes.Internal:
		return true
	}
	return false
}

func historyError(err error) error {
	switch said := status.Convert(err); {
	case err == nil:
		return nil
	case final(err) && said.Code() != codes.Internal:
		return fmt.Errorf("%w: %s", admin.ErrRefused, said.Message())
	default:
		return errors.New(said.Message())
	}
}

// historyReading is a history under way, perhaps at the second store.
type historyReading struct {
	admin.HistoryRequest
	messages *resolve.Messages
	send     func(*admin.HistoryLine) error
	// begun: something was sent.
	begun bool
}

// read reads from one store, and moves From past what it sends.
func (h *historyReading) read(ctx context.Context, socket string) error {
	conn, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	stream, err := eventlogv1.NewEventLogClient(conn).Read(ctx, &eventlogv1.ReadRequest{Type: h.Type, Key: h.Key, From: h.From, Follow: h.Follow})
	if err != nil {
		return err
	}
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := h.relay(m); err != nil {
			return err
		}
	}
}

func (h *historyReading) relay(m *eventlogv1.ReadResponse) error {
	if len(m.GetEvents()) == 0 && !h.begun {
		h.begun = true
		return h.send(&admin.HistoryLine{LastSequence: m.GetLastSequence()})
	}
	for _, e := range m.GetEvents() {
		if err := h.send(&admin.HistoryLine{Event: h.event(e), LastSequence: m.GetLastSequence()}); err != nil {
			return err
		}
		h.begun, h.From = true, e.GetSequence()+1
	}
	return nil
}

func (h *historyReading) event(e *holdfastv1.Event) *admin.Event {
	out := &admin.Event{Sequence: e.GetSequence(), Type: e.GetType(), Time: e.GetTime().AsTime(), Payload: append([]byte{}, e.GetPayload()...)}
	if message, ok := h.messages.JSON(e.GetType(), e.GetPayload()); ok {
		out.Message = message
	} else if json.Valid(e.GetPayload()) {
		out.Message = e.GetPayload()
	}
	return out
}
