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

	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	"github.com/holdfast-mesh/holdfast/statestore/refusal"
	"github.com/holdfast-mesh/holdfast/statestore/slots"
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
	// Now is the wall clock, for hybrid times and what is kept; nil means time.Now. Deadlines and idleness go by time.Now.
	Now func() time.Time
	// SegmentBytes is the log's segment size; 0 means its default.
	SegmentBytes int64
}

// Engine is an open store.
type Engine struct {
	cfg     Config
	log     *wal.Log
	replica uint64
	started time.Time
	links   atomic.Pointer[Links]
	// config is the accepted configuration; nil before the first.
	config atomic.Pointer[configuration]

	index      *slots.Index
	identities registry
	subs       subscriptions
	joins      joins
	fresh      atomic.Pointer[fresh]

	// queueMu lets Close wait for senders; closed is under it.
	queueMu sync.RWMutex
	closed  bool
	queue   chan item

	// The committer's.
	ids      *requestIDs
	lastTime uint64
	backlog  backlog
	sweep    sweep
	parking  parking

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
		cfg:     cfg,
		replica: newReplica(),
		started: time.Now(),
		index:   slots.NewIndex(),
		queue:   make(chan item, maxQueue),
		ids:     newRequestIDs(),
		done:    make(chan struct{}),
	}
	e.subs.init()
	e.joins.init()
	e.parking.init()
	e.backlog.init()
	e.counters.init()
	e.strong = newCommands(e)
	e.Connect(Links{})
	if err := e.load(); err != nil {
		e.strong.Close()
		return nil, fmt.Errorf("open store: %w", err)
	}
	e.begin()
	go e.commitLoop()
	return e, nil
}

// newReplica draws the identity of this incarnation. It is never used again.
func newReplica() uint64 {
	for {
		var b [8]byte
		_, _ = rand.Read(b[:])
		if r := binary.BigEndian.Uint64(b[:]); r != 0 {
			return r
		}
	}
}

// load reads log and configuration.
func (e *Engine) load() error {
	e.identities.init()
	replayer := &slots.Replayer{Index: e.index, Request: e.replayRequest, Identity: e.identities.replay, Retired: e.identities.retire}
	loader := slots.NewLoader(e.index, replayer.Record)
	// Records may be of entities that only a section has.
	options := wal.Options{FS: e.cfg.FS, SegmentBytes: e.cfg.SegmentBytes, Loaded: func(l *wal.Log) { e.index.Attach(l) }}
	log, err := wal.Open(filepath.Join(e.cfg.Dir, "log"), options, loader.Section, replayer.Record)
	if err != nil {
		return err
	}
	e.log = log
	if err := replayer.Finish(); err != nil {
		log.Close()
		return err
	}
	e.lastTime = max(loader.Time, replayer.Time)
	if err := e.loadConfiguration(); err != nil {
		log.Close()
		return err
	}
	return nil
}

// Connect sets what the engine calls; later calls replace earlier ones.
func (e *Engine) Connect(l Links) {
	if l.Publisher == nil {
		l.Publisher = noPublisher{}
	}
	if l.Replicas == nil {
		l.Replicas = noReplicas{}
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
	e.closeJoins()
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

// do runs f on the committer, between batches: everything it sees is durable, but for changes of LOCAL_MEM.
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

// offer is enqueue that never waits.
func (e *Engine) offer(it item) error {
	e.queueMu.RLock()
	defer e.queueMu.RUnlock()
	if e.closed {
		return errClosed
	}
	select {
	case e.queue <- it:
		return nil
	default:
		return refusal.NotApplied(codes.Unavailable, "%d commits are waiting for the disk already", maxQueue)
	}
}

// uptime is in seconds, from 1 on, by the clock that nobody sets.
func (e *Engine) uptime() uint32 { return uint32(time.Since(e.started)/time.Second) + 1 }
