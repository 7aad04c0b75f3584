package stores

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
)

// Refused is a store's answer that it did not do what was asked, or does not know.
type Refused struct {
	Code    int32
	Message string
	Outcome storev1.Outcome
}

func (r *Refused) Error() string {
	return fmt.Sprintf("store answers code %d, %v: %s", r.Code, r.Outcome, r.Message)
}

// ErrLost says that the connection ended before the answer came: the outcome is unknown.
var ErrLost = errors.New("connection to the store lost")

// Applied tells what an error of a write means. Only a store's own word that it did not apply it is believed.
func Applied(err error) storev1.Outcome {
	if err == nil {
		return storev1.Outcome_OUTCOME_APPLIED
	}
	var r *Refused
	if errors.As(err, &r) && r.Outcome == storev1.Outcome_OUTCOME_NOT_APPLIED {
		return r.Outcome
	}
	return storev1.Outcome_OUTCOME_UNKNOWN
}

// Conn is a connection to a store's API socket. Calls are multiplexed; any number of goroutines may make them.
type Conn struct {
	net net.Conn
	// Pushed, where set before the first subscription, is told of every pushed state, on the reader's goroutine.
	Pushed func(*storev1.State)

	// mu guards the fields below, and orders writes.
	mu      sync.Mutex
	lost    error
	last    uint64
	buf     []byte
	pending map[uint64]func(*storev1.Response, error)

	// gone is closed when the reader has ended.
	gone chan struct{}
}

// Dial connects to store i.
func (c *Cluster) Dial(i int) (*Conn, error) { return Dial(c.stores[i].socket) }

// Dial connects to a store's API socket.
func Dial(socket string) (*Conn, error) {
	nc, err := net.Dial("unix", socket)
	if err != nil {
		return nil, err
	}
	c := &Conn{net: nc, pending: map[uint64]func(*storev1.Response, error){}, gone: make(chan struct{})}
	go c.read()
	return c, nil
}

// Close ends the connection; calls under way end with ErrLost before it returns. No callback may call it.
func (c *Conn) Close() {
	c.net.Close()
	<-c.gone
}

// Go sends a request and returns; done is told the end once, on the reader's goroutine or on the caller's own.
func (c *Conn) Go(req *storev1.Request, done func(*storev1.Response, error)) {
	c.mu.Lock()
	if c.lost != nil {
		err := c.lost
		c.mu.Unlock()
		done(nil, err)
		return
	}
	c.last++
	id := c.last
	req.Id = id
	buf, err := proto.MarshalOptions{}.MarshalAppend(append(c.buf[:0], 0, 0, 0, 0), req)
	if err != nil {
		c.mu.Unlock()
		done(nil, err)
		return
	}
	binary.BigEndian.PutUint32(buf, uint32(len(buf)-4))
	c.buf = buf
	c.pending[id] = done
	_, err = c.net.Write(buf)
	c.mu.Unlock()
	if err != nil {
		// The reader ends, and with it every pending call.
		c.net.Close()
	}
}

// Call sends a request and waits for its answer.
func (c *Conn) Call(ctx context.Context, req *storev1.Request) (*storev1.Response, error) {
	type answer struct {
		r   *storev1.Response
		err error
	}
	answered := make(chan answer, 1)
	c.Go(req, func(r *storev1.Response, err error) { answered <- answer{r, err} })
	select {
	case a := <-answered:
		return a.r, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Commit applies operations to an entity.
func (c *Conn) Commit(ctx context.Context, typ, key string, timeout time.Duration, ops ...*holdfastv1.Operation) (*storev1.State, error) {
	r, err := c.Call(ctx, CommitRequest(typ, key, timeout, ops...))
	if err != nil {
		return nil, err
	}
	return r.GetCommitted().GetState(), nil
}

// CommitRequest is the request of a commit.
func CommitRequest(typ, key string, timeout time.Duration, ops ...*holdfastv1.Operation) *storev1.Request {
	return &storev1.Request{Call: &storev1.Request_Commit{Commit: &storev1.Commit{
		Entity: &storev1.Entity{Type: typ, Key: key}, Operations: ops, TimeoutMs: uint32(timeout.Milliseconds()),
	}}}
}

// Get reads an entity; subscribe asks for pushes of it from now on.
func (c *Conn) Get(ctx context.Context, typ, key string, subscribe bool) (*storev1.State, error) {
	r, err := c.Call(ctx, &storev1.Request{Call: &storev1.Request_Get{Get: &storev1.Get{
		Entity: &storev1.Entity{Type: typ, Key: key}, Subscribe: subscribe, TimeoutMs: uint32(callTimeout.Milliseconds()),
	}}})
	if err != nil {
		return nil, err
	}
	return r.GetState(), nil
}

// Inspect looks at an entity.
func (c *Conn) Inspect(ctx context.Context, typ, key string) (*storev1.Inspection, error) {
	r, err := c.Call(ctx, &storev1.Request{Call: &storev1.Request_Inspect{Inspect: &storev1.Inspect{
		Entity: &storev1.Entity{Type: typ, Key: key},
	}}})
	if err != nil {
		return nil, err
	}
	return r.GetInspection(), nil
}

// Status asks for the store's status.
func (c *Conn) Status(ctx context.Context) (*storev1.StoreStatus, error) {
	r, err := c.Call(ctx, &storev1.Request{Call: &storev1.Request_GetStatus{GetStatus: &storev1.GetStatus{}}})
	if err != nil {
		return nil, err
	}
	return r.GetStatus(), nil
}

func (c *Conn) read() {
	defer close(c.gone)
	err := c.readAll()
	c.net.Close()
	c.mu.Lock()
	c.lost = fmt.Errorf("%w: %w", ErrLost, err)
	pending := c.pending
	c.pending = nil
	c.mu.Unlock()
	for _, done := range pending {
		done(nil, c.lost)
	}
}

func (c *Conn) readAll() error {
	r := bufio.NewReaderSize(c.net, 64<<10)
	var buf []byte
	for {
		var head [4]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return err
		}
		n := binary.BigEndian.Uint32(head[:])
		if n > maxFrame {
			return fmt.Errorf("frame of %d bytes", n)
		}
		if uint32(cap(buf)) < n {
			buf = make([]byte, n)
		}
		if _, err := io.ReadFull(r, buf[:n]); err != nil {
			return err
		}
		resp := &storev1.Response{}
		if err := proto.Unmarshal(buf[:n], resp); err != nil {
			return err
		}
		c.answered(resp)
	}
}

func (c *Conn) answered(r *storev1.Response) {
	if r.GetId() == 0 {
		if c.Pushed != nil {
			c.Pushed(r.GetState())
		}
		return
	}
	c.mu.Lock()
	done := c.pending[r.GetId()]
	delete(c.pending, r.GetId())
	c.mu.Unlock()
	if done == nil {
		return
	}
	if e := r.GetError(); e != nil {
		done(nil, &Refused{Code: e.GetCode(), Message: e.GetMessage(), Outcome: e.GetOutcome()})
		return
	}
	done(r, nil)
}
