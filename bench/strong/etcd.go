package strong

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// raw is etcd as an application calls it that keeps its counters there by itself. It is the bare generated client: no client
// library costs less.
type raw struct {
	prefix string
	kv     []pb.KVClient
	conns  []*grpc.ClientConn
	// cached is what the owner of all keys knows of each.
	cached []*cell
}

// cell is one key's last known state.
type cell struct {
	mu    sync.Mutex
	rev   int64
	count uint64
	known bool
}

func dialEtcd(address, prefix string, connections, keys int) (*raw, error) {
	r := &raw{prefix: prefix, cached: make([]*cell, keys)}
	for i := range r.cached {
		r.cached[i] = &cell{}
	}
	for range connections {
		c, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			r.close()
			return nil, err
		}
		r.conns = append(r.conns, c)
		r.kv = append(r.kv, pb.NewKVClient(c))
	}
	return r, nil
}

func (r *raw) close() {
	for _, c := range r.conns {
		c.Close()
	}
}

func (r *raw) key(k int) []byte { return fmt.Appendf(nil, "/bench/%s/counter-%04d", r.prefix, k) }

// get reads a key, linearizably.
func (r *raw) get(ctx context.Context, caller, k int) (count uint64, rev int64, err error) {
	resp, err := r.kv[caller%len(r.kv)].Range(ctx, &pb.RangeRequest{Key: r.key(k)})
	if err != nil || len(resp.Kvs) == 0 {
		return 0, 0, err
	}
	count, _ = binary.Uvarint(resp.Kvs[0].Value)
	return count, resp.Kvs[0].ModRevision, nil
}

// put writes a count where the key has the revision still; 0 means that it does not.
func (r *raw) put(ctx context.Context, caller, k int, rev int64, count uint64) (int64, error) {
	resp, err := r.kv[caller%len(r.kv)].Txn(ctx, &pb.TxnRequest{
		Compare: []*pb.Compare{{Key: r.key(k), Target: pb.Compare_MOD, Result: pb.Compare_EQUAL, TargetUnion: &pb.Compare_ModRevision{ModRevision: rev}}},
		Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: r.key(k), Value: binary.AppendUvarint(nil, count)}}}},
	})
	if err != nil || !resp.Succeeded {
		return 0, err
	}
	return resp.Header.Revision, nil
}

var errContended = errors.New("another came between each time")

// getAndPut increments by a read and a transaction.
func (r *raw) getAndPut(ctx context.Context, caller, k int) error {
	for range maxTries {
		count, rev, err := r.get(ctx, caller, k)
		if err != nil {
			return err
		}
		if rev, err = r.put(ctx, caller, k, rev, count+1); rev != 0 || err != nil {
			return err
		}
	}
	return errContended
}

// compareAndPut increments by a transaction alone, as the only one who writes the key.
func (r *raw) compareAndPut(ctx context.Context, caller, k int) error {
	c := r.cached[k]
	c.mu.Lock()
	defer c.mu.Unlock()
	for range maxTries {
		if !c.known {
			var err error
			if c.count, c.rev, err = r.get(ctx, caller, k); err != nil {
				return err
			}
			c.known = true
		}
		rev, err := r.put(ctx, caller, k, c.rev, c.count+1)
		if err == nil && rev != 0 {
			c.rev, c.count = rev, c.count+1
			return nil
		}
		if c.known = false; err != nil {
			return err
		}
	}
	return errContended
}
