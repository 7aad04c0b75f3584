package etcd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
)

// WaitChange waits until the key's modification revision is above rev, or, with a rev above 0, until the key is gone; it
// returns what it then is, the zero KV where it is gone. rev 0 waits until the key exists. A key that was removed and
// written again counts as changed, but changes that follow each other closely may be seen as one. Etcd's absence is waited
// out: the only error is ctx's.
func (c *Client) WaitChange(ctx context.Context, key string, rev int64) (KV, error) {
	for {
		changed := c.Changed()
		kv, from, err := c.look(ctx, key)
		if err == nil && (kv.ModRev > rev || kv.ModRev == 0 && rev > 0) {
			return kv, nil
		}
		if err == nil {
			err = c.await(ctx, key, from+1)
		}
		if ctx.Err() != nil {
			return KV{}, fmt.Errorf("wait for %s: %w", key, ctx.Err())
		}
		if err == nil {
			continue
		}
		// The look failed or the watch ended without an event: the connection or the member is gone.
		pause := time.NewTimer(waitRetry)
		select {
		case <-pause.C:
		case <-changed:
		case <-ctx.Done():
		}
		pause.Stop()
	}
}

// look reads a key and the revision of the store that it was read at.
func (c *Client) look(ctx context.Context, key string) (KV, int64, error) {
	page, err := c.Range(ctx, key, "", 1)
	if err != nil || len(page.KVs) == 0 {
		return KV{}, page.Rev, err
	}
	return page.KVs[0], page.Rev, nil
}

// await returns nil at the first change of the key at the revision from or above it.
func (c *Client) await(ctx context.Context, key string, from int64) error {
	req := &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{
		CreateRequest: &pb.WatchCreateRequest{Key: []byte(c.cfg.Prefix + key), StartRevision: from},
	}}
	return c.do(ctx, "watch", true, func(ctx context.Context, m *member, opts ...grpc.CallOption) (header, error) {
		stream, err := m.watch.Watch(ctx, opts...)
		if err != nil {
			return nil, err
		}
		if err := stream.Send(req); err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		for {
			resp, err := stream.Recv()
			switch {
			case err != nil:
				return nil, err
			case resp.Canceled:
				// Also where from was compacted already: the next look starts at a newer revision.
				return nil, fmt.Errorf("%w: %s", ErrWatchEnded, resp.CancelReason)
			case len(resp.Events) > 0:
				return resp.Header, nil
			}
		}
	})
}
