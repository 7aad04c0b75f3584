package statestore

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/holdfast-mesh/holdfast/internal/placement"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	"github.com/holdfast-mesh/holdfast/statestore/crdt"
	"github.com/holdfast-mesh/holdfast/statestore/refusal"
	"github.com/holdfast-mesh/holdfast/statestore/strong"
	"github.com/holdfast-mesh/holdfast/statestore/wal"
)

// Config is what an engine needs to open.
type Config struct {
	// Node is this node's name, as in the placement.
	Node string
	// Dir is the data folder, this process's alone.
	Dir string
	// FS is the disk; nil means the operating system's.
	FS wal.FS
	// Logger; nil means the default one.
	Logger *slog.Logger
	// Now is the wall clock; nil means time.Now.
	Now func() time.Time
	// SegmentBytes is the log's segment size; 0 means its default.
	SegmentBytes int64
}

// Engine is an open store.
type Engine struct {
	cfg     Config
	log     *wal.Log
	replica uint64
	links   atomic.Pointer[Links]
	// config is the accepted configuration; nil before the first.
	config atomic.Pointer[configuration]

	// mu guards entities; only the committer writes to it.
	mu       sync.RWMutex
	entities map[entityID]*entity
	subs     subscriptions

	// queueMu lets Close wait for senders; closed is under it.
	queueMu sync.RWMutex
	closed  bool
	queue   chan item

	// The committer's.
	types    map[string]*entities
	ids      *requestIDs
	lastTime uint64
	versions uint64

	counters    counters
	strong      *strong.Commands
	snapshotBad atomic.Pointer[error]
	snapshots   sync.WaitGroup
	snapshot    atomic.Bool
	done        chan struct{}
}

// Open opens the data folder: takes its lock, loads the configuration and replays the log.
func Open(cfg Config) (*Engine, error) {
	if cfg.Node == "" || cfg.Dir == "" {
		return nil, errors.New("open store: node and folder must be set")
	}
	if cfg.FS == nil {
		cfg.FS = wal.OS{}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	e := &Engine{
		cfg:      cfg,
		replica:  newReplica(),
		entities: map[entityID]*entity{},
		queue:    make(chan item, maxQueue),
		types:    map[string]*entities{},
		ids:      newRequestIDs(),
		done:     make(chan struct{}),
	}
	e.subs.init()
	log, err := wal.Open(filepath.Join(cfg.Dir, "log"), wal.Options{FS: cfg.FS, SegmentBytes: cfg.SegmentBytes}, e.replay)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	e.log = log
	if err := e.loadConfiguration(); err != nil {
		log.Close()
		return nil, fmt.Errorf("open store: %w", err)
	}
	for _, ent := range e.entities {
		e.versions++
		ent.show(e.replica, e.versions)
	}
	e.strong = newCommands(e)
	e.Connect(Links{})
	go e.commitLoop()
	return e, nil
}

// newReplica draws the identity of this incarnation. It is never stored.
func newReplica() uint64 {
	for {
		var b [8]byte
		_, _ = rand.Read(b[:])
		if r := binary.BigEndian.Uint64(b[:]); r != 0 {
			return r
		}
	}
}

// replay takes one record of the log, before the committer runs.
func (e *Engine) replay(b []byte) error {
	r, err := decodeRecord(b)
	if err != nil {
		return err
	}
	e.ids.add(appliedID{r.entityID, r.requestID}, r.at, e.cfg.Now())
	if len(r.state) == 0 {
		return nil
	}
	state, err := crdt.DecodeOwn(r.state)
	if err != nil {
		return fmt.Errorf("record of %s: %w", r.entityID, err)
	}
	ent := e.entities[r.entityID]
	if ent == nil {
		ent = e.newEntity(r.entityID, state)
		ent.size = len(r.state)
		e.keep(ent)
		return nil
	}
	if _, err := ent.state.Merge(state); err != nil {
		return fmt.Errorf("record of %s: %w", r.entityID, err)
	}
	ent.size += len(r.state)
	return nil
}

func (e *Engine) newEntity(id entityID, state crdt.State) *entity {
	return &entity{id: id, slot: placement.Slot(id.typ, id.key), state: state}
}

// keep puts a new entity where others find it. The committer's, or before it runs.
func (e *Engine) keep(ent *entity) {
	e.mu.Lock()
	e.entities[ent.id] = ent
	e.mu.Unlock()
	t := e.types[ent.id.typ]
	if t == nil {
		t = newEntities()
		e.types[ent.id.typ] = t
	}
	t.add(ent)
}

func (e *Engine) lookup(id entityID) *entity {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.entities[id]
}

// Connect sets what the engine calls; later calls replace earlier ones.
func (e *Engine) Connect(l Links) {
	if l.Publisher == nil {
		l.Publisher = noPublisher{}
	}
	if l.Committer == nil {
		l.Committer = noCommitter{}
	}
	if l.Forwarder == nil {
		l.Forwarder = noForwarder{}
	}
	if l.Peers == nil {
		l.Peers = func() []*storev1.Peer { return nil }
	}
	if l.Configured == nil {
		l.Configured = func(*storev1.Configure) {}
	}
	e.links.Store(&l)
	if c := e.config.Load(); c != nil {
		l.Configured(c.raw)
	}
}

// Replica is this incarnation's identity.
func (e *Engine) Replica() uint64 { return e.replica }

// Node is this node's name.
func (e *Engine) Node() string { return e.cfg.Node }

// Close carries out what waits, stops and releases the folder. Later calls are refused.
func (e *Engine) Close() error {
	e.queueMu.Lock()
	if e.closed {
		e.queueMu.Unlock()
		<-e.done
		return nil
	}
	e.closed = true
	close(e.queue)
	e.queueMu.Unlock()
	e.strong.Close()
	<-e.done
	e.snapshots.Wait()
	return e.log.Close()
}

// Ready is nil where this store can take writes.
func (e *Engine) Ready() error {
	if err := e.log.Err(); err != nil {
		return err
	}
	if e.config.Load() == nil {
		return errors.New("no configuration yet")
	}
	return nil
}

// do runs f on the committer, between batches: everything it sees is durable.
func (e *Engine) do(ctx context.Context, f func()) error {
	done := make(chan struct{})
	if err := e.enqueue(ctx, item{call: f, done: done}); err != nil {
		return err
	}
	<-done
	return nil
}

var errClosed = refusal.NotApplied(codes.Unavailable, "store is shutting down")

// enqueue waits for room.
func (e *Engine) enqueue(ctx context.Context, it item) error {
	e.queueMu.RLock()
	defer e.queueMu.RUnlock()
	if e.closed {
		return errClosed
	}
	select {
	case e.queue <- it:
		return nil
	case <-ctx.Done():
		return refusal.From(ctx.Err(), storev1.Outcome_OUTCOME_NOT_APPLIED)
	}
}
