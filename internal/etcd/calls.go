package etcd

import (
	"context"
	"errors"
	"io"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc"
)

// KV is a key with its value and revisions.
type KV struct {
	Key               string
	Value             []byte
	CreateRev, ModRev int64
	Lease             int64
}

// Guard is a condition of a transaction: one revision of a key; 0 means that the key does not exist.
type Guard struct {
	key    string
	target pb.Compare_CompareTarget
	rev    int64
}

// CreatedAt holds where the key was created at rev.
func CreatedAt(key string, rev int64) Guard { return Guard{key, pb.Compare_CREATE, rev} }

// ModifiedAt holds where the key was last changed at rev.
func ModifiedAt(key string, rev int64) Guard { return Guard{key, pb.Compare_MOD, rev} }

func (g Guard) compare(prefix string) *pb.Compare {
	out := &pb.Compare{Key: []byte(prefix + g.key), Result: pb.Compare_EQUAL, Target: g.target}
	if g.target == pb.Compare_CREATE {
		out.TargetUnion = &pb.Compare_CreateRevision{CreateRevision: g.rev}
	} else {
		out.TargetUnion = &pb.Compare_ModRevision{ModRevision: g.rev}
	}
	return out
}

// Op is an operation of a transaction. It does not copy what it is made of.
type Op struct {
	kind          opKind
	key, end      string
	value         []byte
	lease         int64
	revisionsOnly bool
}

type opKind int

const (
	opPut opKind = iota
	opDelete
	opRead
)

// Put writes a key. A lease other than 0 makes the key go with it.
func Put(key string, value []byte, lease int64) Op {
	return Op{kind: opPut, key: key, value: value, lease: lease}
}

// Delete removes a key.
func Delete(key string) Op { return Op{kind: opDelete, key: key} }

// DeleteRange removes the keys of [from, to), by their bytes. It is one operation, however many keys go. An empty to means
// the one key from.
func DeleteRange(from, to string) Op { return Op{kind: opDelete, key: from, end: to} }

// DeletePrefix removes the keys that begin with prefix.
func DeletePrefix(prefix string) Op { return DeleteRange(prefix, PrefixEnd(prefix)) }

// Read reads a key inside the transaction; revisionsOnly leaves its value out.
func Read(key string, revisionsOnly bool) Op {
	return Op{kind: opRead, key: key, revisionsOnly: revisionsOnly}
}

func (o Op) request(prefix string) *pb.RequestOp {
	key := []byte(prefix + o.key)
	switch o.kind {
	case opPut:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{
			RequestPut: &pb.PutRequest{Key: key, Value: o.value, Lease: o.lease},
		}}
	case opDelete:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{
			RequestDeleteRange: &pb.DeleteRangeRequest{Key: key, RangeEnd: rangeEnd(prefix, o.end)},
		}}
	default:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{
			RequestRange: &pb.RangeRequest{Key: key, KeysOnly: o.revisionsOnly},
		}}
	}
}

// endOfAll is etcd's end of a range that has none.
const endOfAll = "\x00"

// PrefixEnd returns the end of the range of all keys that begin with prefix, for Range and DeleteRange.
func PrefixEnd(prefix string) string {
	for i := len(prefix) - 1; i >= 0; i-- {
		if prefix[i] < 0xff {
			return prefix[:i] + string([]byte{prefix[i] + 1})
		}
	}
	return endOfAll
}

// rangeEnd is a range's end under the client's prefix: never beyond it.
func rangeEnd(prefix, end string) []byte {
	switch end {
	case "":
		return nil
	case endOfAll:
		return []byte(PrefixEnd(prefix))
	}
	return []byte(prefix + end)
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
func (c *Client) Txn(ctx context.Context, guards []Guard, then, otherwise []Op) (out TxnResult, err error) {
	req := &pb.TxnRequest{}
	for _, g := range guards {
		req.Compare = append(req.Compare, g.compare(c.cfg.Prefix))
	}
	for _, o := range then {
		req.Success = append(req.Success, o.request(c.cfg.Prefix))
	}
	for _, o := range otherwise {
		req.Failure = append(req.Failure, o.request(c.cfg.Prefix))
	}
	err = c.do(ctx, "txn", false, func(ctx context.Context, m *member, opts ...grpc.CallOption) (header, error) {
		resp, err := m.kv.Txn(ctx, req, opts...)
		if err != nil {
			return resp.GetHeader(), err
		}
		out = TxnResult{Held: resp.Succeeded, Rev: resp.Header.GetRevision()}
		for _, r := range resp.Responses {
			if rr := r.GetResponseRange(); rr != nil {
				var kv KV
				if len(rr.Kvs) > 0 {
					kv = c.convert(rr.Kvs[0])
				}
				out.Reads = append(out.Reads, kv)
			}
		}
		return resp.Header, nil
	})
	return out, err
}

// Get reads a key, linearizably. The KV is zero where the key does not exist.
func (c *Client) Get(ctx context.Context, key string) (KV, error) {
	page, err := c.read(ctx, "get", key, "", 0)
	if err != nil || len(page.KVs) == 0 {
		return KV{}, err
	}
	return page.KVs[0], nil
}

// Page is what Range read.
type Page struct {
	// KVs are in the order of their keys' bytes.
	KVs []KV
	// More says that the range has keys behind the last of these.
	More bool
	// Rev is the store's revision that all of it is of.
	Rev int64
}

// Range reads the keys of [from, to), linearizably: at most limit of them, 0 for no limit. An empty to means the one key from.
func (c *Client) Range(ctx context.Context, from, to string, limit int) (Page, error) {
	return c.read(ctx, "range", from, to, limit)
}

func (c *Client) read(ctx context.Context, op, from, to string, limit int) (out Page, err error) {
	req := &pb.RangeRequest{Key: []byte(c.cfg.Prefix + from), RangeEnd: rangeEnd(c.cfg.Prefix, to), Limit: int64(limit)}
	err = c.do(ctx, op, false, func(ctx context.Context, m *member, opts ...grpc.CallOption) (header, error) {
		resp, err := m.kv.Range(ctx, req, opts...)
		if err != nil {
			return resp.GetHeader(), err
		}
		out = Page{KVs: make([]KV, len(resp.Kvs)), More: resp.More, Rev: resp.Header.GetRevision()}
		for i, kv := range resp.Kvs {
			out.KVs[i] = c.convert(kv)
		}
		return resp.Header, nil
	})
	return out, err
}

// List reads up to limit keys with the prefix, linearizably, in key order, and the revision they were read at.
func (c *Client) List(ctx context.Context, prefix string, limit int64) ([]KV, int64, error) {
	page, err := c.Range(ctx, prefix, PrefixEnd(prefix), int(limit))
	return page.KVs, page.Rev, err
}

// Grant makes a lease. Etcd may grant a longer one than asked for.
func (c *Client) Grant(ctx context.Context, ttl time.Duration) (lease int64, granted time.Duration, err error) {
	req := &pb.LeaseGrantRequest{TTL: int64((ttl + time.Second - 1) / time.Second)}
	err = c.do(ctx, "grant", false, func(ctx context.Context, m *member, opts ...grpc.CallOption) (header, error) {
		resp, err := m.lease.LeaseGrant(ctx, req, opts...)
		lease, granted = resp.GetID(), time.Duration(resp.GetTTL())*time.Second
		return resp.GetHeader(), err
	})
	return lease, granted, err
}

// KeepAlive renews a lease once, and answers its time to live counted from when etcd got the request. The error is
// ErrLeaseGone where the lease does not exist any more.
func (c *Client) KeepAlive(ctx context.Context, lease int64) (ttl time.Duration, err error) {
	err = c.do(ctx, "keep alive", false, func(ctx context.Context, m *member, opts ...grpc.CallOption) (header, error) {
		stream, err := m.lease.LeaseKeepAlive(ctx, opts...)
		if err != nil {
			return nil, err
		}
		if err := stream.Send(&pb.LeaseKeepAliveRequest{ID: lease}); err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		resp, err := stream.Recv() // Tells why, where Send failed.
		ttl = time.Duration(resp.GetTTL()) * time.Second
		return resp.GetHeader(), err
	})
	if err == nil && ttl <= 0 {
		err = &Error{Op: "keep alive", Err: ErrLeaseGone}
	}
	return ttl, err
}

// Revoke ends a lease and deletes its keys. A lease that is gone already is no error.
func (c *Client) Revoke(ctx context.Context, lease int64) error {
	err := c.do(ctx, "revoke", false, func(ctx context.Context, m *member, opts ...grpc.CallOption) (header, error) {
		resp, err := m.lease.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: lease}, opts...)
		return resp.GetHeader(), err
	})
	if errors.Is(err, ErrLeaseGone) {
		return nil
	}
	return err
}

func (c *Client) convert(kv *mvccpb.KeyValue) KV {
	return KV{
		Key: strings.TrimPrefix(string(kv.Key), c.cfg.Prefix), Value: kv.Value,
		CreateRev: kv.CreateRevision, ModRev: kv.ModRevision, Lease: kv.Lease,
	}
}
