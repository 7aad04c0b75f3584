package eventlog_test

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-mesh/holdfast/internal/fenced"
	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
	"github.com/holdfast-mesh/holdfast/statestore/strong/entity"
)

// etcd has one event-sourced entity, as its owner writes it.
type etcd struct {
	t   testing.TB
	typ *entity.Type
	// between is called, where it is set, before cells are read.
	between func()

	// mu guards the fields below.
	mu      sync.Mutex
	record  *entity.Record
	rev     int64
	cells   map[string][]byte
	changed chan struct{}
	// fails is what reads return, where it is set.
	fails error
	// loads and reads count.
	loads, reads int
}

func newEtcd(t testing.TB) *etcd {
	t.Helper()
	typ, err := entity.NewType(&configv1.EntityType{
		Type: "cart.Cart", Model: configv1.Model_MODEL_EVENT_SOURCED, MaxStateBytes: entity.MaxStateBytes,
		Consistency: configv1.Consistency_CONSISTENCY_STRONG,
	})
	if err != nil {
		t.Fatal(err)
	}
	return &etcd{t: t, typ: typ, record: &entity.Record{}, cells: map[string][]byte{}, changed: make(chan struct{})}
}

// commit carries out a command of these operations.
func (e *etcd) commit(ops ...*holdfastv1.Operation) {
	e.t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	next, w, err := e.typ.Apply(e.record, "", ops, time.Unix(1_700_000_000, 0))
	if err != nil {
		e.t.Error(err)
		return
	}
	e.rev++
	next.Revision = e.rev
	e.record = next
	for _, prefix := range w.Drop {
		for name := range e.cells {
			if strings.HasPrefix(name, prefix) {
				delete(e.cells, name)
			}
		}
	}
	for _, c := range w.Put {
		e.cells[c.Name] = c.Value
	}
	close(e.changed)
	e.changed = make(chan struct{})
}

// append appends n events in one commit; their payloads are their sequences.
func (e *etcd) append(n int) {
	e.t.Helper()
	e.commit(appendOp(e.last(), n))
}

func (e *etcd) last() uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.record.Sequence()
}

func appendOp(last uint64, n int) *holdfastv1.Operation {
	a := &holdfastv1.AppendEvents{}
	for i := range n {
		a.Events = append(a.Events, &holdfastv1.Event{Type: "happened", Payload: fmt.Appendf(nil, "%d", last+uint64(i)+1)})
	}
	return &holdfastv1.Operation{Operation: &holdfastv1.Operation_Append{Append: a}}
}

var (
	deleteOp   = &holdfastv1.Operation{Operation: &holdfastv1.Operation_Delete{Delete: &holdfastv1.Delete{}}}
	snapshotOp = &holdfastv1.Operation{Operation: &holdfastv1.Operation_Snapshot{Snapshot: &holdfastv1.SaveSnapshot{Snapshot: []byte("all")}}}
)

func (e *etcd) Load(context.Context, string, uint32, string) ([]byte, int64, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.loads++
	return e.record.Head(), e.record.Revision, e.fails
}

func (e *etcd) Cells(_ context.Context, _ string, _ uint32, _, from, to string, limit int) ([]fenced.Cell, bool, error) {
	if e.between != nil {
		e.between()
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.reads++
	var out []fenced.Cell
	for name, value := range e.cells {
		if name >= from && name < to {
			out = append(out, fenced.Cell{Name: name, Value: value})
		}
	}
	slices.SortFunc(out, func(a, b fenced.Cell) int { return cmp.Compare(a.Name, b.Name) })
	if len(out) > limit {
		return out[:limit], true, e.fails
	}
	return out, false, e.fails
}

func (e *etcd) Changed(ctx context.Context, _ string, _ uint32, _ string, rev int64) error {
	for {
		e.mu.Lock()
		now, changed := e.record.Revision, e.changed
		e.mu.Unlock()
		if now > rev {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
