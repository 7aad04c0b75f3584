package etcd

import (
	"context"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"
)

// KV is a key with its value and revisions.
type KV struct {
	Key               string
	Value             []byte
	CreateRev, ModRev int64
	Lease             int64
}

// Guard is a condition of a transaction: one revision of a key; 0 means that the key does not exist.
type Guard struct{ inner *pb.Compare }

// CreatedAt holds where the key was created at rev.
func CreatedAt(key string, rev int64) Guard {
	return Guard{&pb.Compare{
		Key: []byte(key), Result: pb.Compare_EQUAL, Target: pb.Compare_CREATE,
		TargetUnion: &pb.Compare_CreateRevision{CreateRevision: rev},
	}}
}

// ModifiedAt holds where the key was last changed at rev.
func ModifiedAt(key string, rev int64) Guard {
	return Guard{&pb.Compare{
		Key: []byte(key), Result: pb.Compare_EQUAL, Target: pb.Compare_MOD,
		TargetUnion: &pb.Compare_ModRevision{ModRevision: rev},
	}}
}

// Op is an operation of a transaction.
type Op struct{ inner *pb.RequestOp }

// Put writes a key. A lease other than 0 makes the key go with it.
func Put(key string, value []byte, lease int64) Op {
	return Op{&pb.RequestOp{Request: &pb.RequestOp_RequestPut{
		RequestPut: &pb.PutRequest{Key: []byte(key), Value: value, Lease: lease},
	}}}
}

// Delete removes a key.
func Delete(key string) Op {
	return Op{&pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{
		RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte(key)},
	}}}
}

// Read reads a key inside the transaction; revisionsOnly leaves its value out.
func Read(key string, revisionsOnly bool) Op {
	return Op{&pb.RequestOp{Request: &pb.RequestOp_RequestRange{
		RequestRange: &pb.RangeRequest{Key: []byte(key), KeysOnly: revisionsOnly},
	}}}
}

// TxnResult is a transaction's answer.
type TxnResult struct {
	// Held is true where every guard held and "then" was done; else "otherwise" was.
	Held bool
	// Rev is the store's revision after the transaction: for its puts, their modification revision.
	Rev int64
	// Reads has one entry for each Read of the branch that was done, in order; the zero KV where the key does not exist.
	Reads []KV
}

// Txn does "then" where all guards hold, else "otherwise", as one atomic step.
func (c *Client) Txn(ctx context.Context, guards []Guard, then, otherwise []Op) (TxnResult, error) {
	if !c.Up() {
		return TxnResult{}, &Error{Op: "txn", Err: ErrDown}
	}
	req := &pb.TxnRequest{}
	for _, g := range guards {
		req.Compare = append(req.Compare, g.inner)
	}
	for _, o := range then {
		req.Success = append(req.Success, o.inner)
	}
	for _, o := range otherwise {
		req.Failure = append(req.Failure, o.inner)
	}
	var p peer.Peer
	resp, err := c.kv.Txn(ctx, req, grpc.Peer(&p))
	if err != nil {
		return TxnResult{}, wrap("txn", p.Addr != nil, err)
	}
	out := TxnResult{Held: resp.Succeeded, Rev: resp.Header.GetRevision()}
	for _, r := range resp.Responses {
		if rr := r.GetResponseRange(); rr != nil {
			var kv KV
			if len(rr.Kvs) > 0 {
				kv = convert(rr.Kvs[0])
			}
			out.Reads = append(out.Reads, kv)
		}
	}
	return out, nil
}

// Get reads a key, linearizably. The KV is zero where the key does not exist.
func (c *Client) Get(ctx context.Context, key string) (KV, error) {
	if !c.Up() {
		return KV{}, &Error{Op: "get", Err: ErrDown}
	}
	var p peer.Peer
	resp, err := c.kv.Range(ctx, &pb.RangeRequest{Key: []byte(key)}, grpc.Peer(&p))
	if err != nil {
		return KV{}, wrap("get", p.Addr != nil, err)
	}
	if len(resp.Kvs) == 0 {
		return KV{}, nil
	}
	return convert(resp.Kvs[0]), nil
}

// List reads up to limit keys with the prefix, linearizably, in key order, and the revision they were read at.
func (c *Client) List(ctx context.Context, prefix string, limit int64) ([]KV, int64, error) {
	if !c.Up() {
		return nil, 0, &Error{Op: "list", Err: ErrDown}
	}
	var p peer.Peer
	resp, err := c.kv.Range(ctx, &pb.RangeRequest{
		Key: []byte(prefix), RangeEnd: []byte(clientv3.GetPrefixRangeEnd(prefix)), Limit: limit,
	}, grpc.Peer(&p))
	if err != nil {
		return nil, 0, wrap("list", p.Addr != nil, err)
	}
	out := make([]KV, len(resp.Kvs))
	for i, kv := range resp.Kvs {
		out[i] = convert(kv)
	}
	return out, resp.Header.GetRevision(), nil
}

// Grant makes a lease. Etcd may grant a longer one than asked for.
func (c *Client) Grant(ctx context.Context, ttl time.Duration) (lease int64, granted time.Duration, err error) {
	if !c.Up() {
		return 0, 0, &Error{Op: "grant", Err: ErrDown}
	}
	var p peer.Peer
	resp, err := c.lease.LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: int64((ttl + time.Second - 1) / time.Second)}, grpc.Peer(&p))
	if err != nil {
		return 0, 0, wrap("grant", p.Addr != nil, err)
	}
	return resp.ID, time.Duration(resp.TTL) * time.Second, nil
}

// KeepAlive renews a lease once, and answers its time to live counted from when etcd got the request. The error is
// ErrLeaseGone where the lease does not exist any more.
func (c *Client) KeepAlive(ctx context.Context, lease int64) (time.Duration, error) {
	if !c.Up() {
		return 0, &Error{Op: "keep alive", Err: ErrDown}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.lease.LeaseKeepAlive(ctx)
	if err != nil {
		return 0, wrap("keep alive", true, err)
	}
	if err := stream.Send(&pb.LeaseKeepAliveRequest{ID: lease}); err != nil {
		return 0, wrap("keep alive", true, err)
	}
	resp, err := stream.Recv()
	if err != nil {
		return 0, wrap("keep alive", true, err)
	}
	if resp.TTL <= 0 {
		return 0, &Error{Op: "keep alive", Err: ErrLeaseGone}
	}
	return time.Duration(resp.TTL) * time.Second, nil
}

// Revoke ends a lease and deletes its keys. A lease that is gone already is no error.
func (c *Client) Revoke(ctx context.Context, lease int64) error {
	if !c.Up() {
		return &Error{Op: "revoke", Err: ErrDown}
	}
	var p peer.Peer
	_, err := c.lease.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: lease}, grpc.Peer(&p))
	if err != nil {
		if e := wrap("revoke", p.Addr != nil, err); e.Err != ErrLeaseGone {
			return e
		}
	}
	return nil
}

func convert(kv *mvccpb.KeyValue) KV {
	return KV{Key: string(kv.Key), Value: kv.Value, CreateRev: kv.CreateRevision, ModRev: kv.ModRevision, Lease: kv.Lease}
}
