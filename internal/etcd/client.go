package etcd

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
)

// Client talks to one etcd cluster. It is safe for concurrent use.
type Client struct {
	inner *clientv3.Client
	conn  *grpc.ClientConn
	kv    pb.KVClient
	lease pb.LeaseClient
	up    atomic.Bool

	cancel context.CancelFunc
	done   sync.WaitGroup
	// changed is closed and replaced at each change of up. Guarded by mu.
	mu      sync.Mutex
	changed chan struct{}
}

// Dial makes a client; it connects in the background and reconnects for ever, until Close.
func Dial(endpoints []string) (*Client, error) {
	inner, err := clientv3.New(clientv3.Config{
		Endpoints:            endpoints,
		DialKeepAliveTime:    pingAfter,
		DialKeepAliveTimeout: pingTimeout,
		Logger:               zap.NewNop(),
		DialOptions: []grpc.DialOption{
			grpc.WithConnectParams(grpc.ConnectParams{
				Backoff:           backoff.Config{BaseDelay: reconnectMin, Multiplier: 1.6, Jitter: 0.2, MaxDelay: reconnectMax},
				MinConnectTimeout: connectTimeout,
			}),
			grpc.WithDefaultCallOptions(
				grpc.MaxCallSendMsgSize(maxSendBytes),
				grpc.MaxCallRecvMsgSize(maxReceiveBytes),
				grpc.WaitForReady(false),
			),
		},
	})
	if err != nil {
		return nil, fmt.Errorf("dial etcd %v: %w", endpoints, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	c := &Client{inner: inner, conn: inner.ActiveConnection(), cancel: cancel, changed: make(chan struct{})}
	c.kv = pb.NewKVClient(c.conn)
	c.lease = pb.NewLeaseClient(c.conn)
	c.done.Add(1)
	go func() {
		defer c.done.Done()
		c.observe(ctx)
	}()
	return c, nil
}

// Close ends the client's connection and goroutines.
func (c *Client) Close() error {
	c.cancel()
	err := c.inner.Close()
	c.done.Wait()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// Up is false while there is no connection: etcd is known to be gone, or was not reached yet.
func (c *Client) Up() bool { return c.up.Load() }

// Changed returns a channel that is closed when Up changes after this call.
func (c *Client) Changed() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed
}

// observe keeps up in step with the connection, and never lets it stay idle.
func (c *Client) observe(ctx context.Context) {
	for {
		state := c.conn.GetState()
		if up := state == connectivity.Ready; c.up.Swap(up) != up {
			c.mu.Lock()
			close(c.changed)
			c.changed = make(chan struct{})
			c.mu.Unlock()
		}
		if state == connectivity.Idle {
			c.conn.Connect()
		}
		if !c.conn.WaitForStateChange(ctx, state) {
			return
		}
	}
}
