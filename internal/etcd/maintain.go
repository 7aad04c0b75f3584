package etcd

import (
	"cmp"
	"context"
	"errors"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
)

// MemberUsage is what one member says.
type MemberUsage struct {
	Endpoint string
	Usage
	Version string
	Leader  bool
	// Rev is the store's revision there.
	Rev int64
	// Err is why there is no answer.
	Err error
}

// Usage asks the member in use.
func (c *Client) Usage(ctx context.Context) (Usage, error) {
	var out MemberUsage
	err := c.do(ctx, "status", false, func(ctx context.Context, m *member, opts ...grpc.CallOption) (h header, err error) {
		out, h, err = m.usage(ctx, opts...)
		return h, err
	})
	return out.Usage, err
}

// Members asks each endpoint.
func (c *Client) Members(ctx context.Context) []MemberUsage {
	out := make([]MemberUsage, len(c.targets))
	for i, t := range c.targets {
		out[i].Endpoint = t.name
		out[i].Err = c.at(ctx, t, "status", func(ctx context.Context, m *member, opts ...grpc.CallOption) (h header, err error) {
			out[i], h, err = m.usage(ctx, opts...)
			return h, err
		})
	}
	return out
}

// at makes one call at one endpoint, by a connection of its own.
func (c *Client) at(ctx context.Context, t target, op string, call callFunc) error {
	m, err := c.newMember(t)
	if err != nil {
		return err
	}
	defer m.end()
	if err := m.probe(ctx, tryTimeout); err != nil {
		return err
	}
	return m.do(ctx, op, c.login.current(), true, call)
}

func (m *member) usage(ctx context.Context, opts ...grpc.CallOption) (MemberUsage, header, error) {
	s, err := m.maintenance.Status(ctx, &pb.StatusRequest{}, opts...)
	if err != nil {
		return MemberUsage{Endpoint: m.target.name}, nil, err
	}
	alarms, err := m.maintenance.Alarm(ctx, &pb.AlarmRequest{Action: pb.AlarmRequest_GET, Alarm: pb.AlarmType_NOSPACE}, opts...)
	if err != nil {
		return MemberUsage{Endpoint: m.target.name}, nil, err
	}
	return MemberUsage{
		Endpoint: m.target.name, Version: s.Version, Leader: s.Leader == s.Header.GetMemberId(), Rev: s.Header.GetRevision(),
		Usage: Usage{Size: s.DbSize, InUse: s.DbSizeInUse, Quota: cmp.Or(s.DbSizeQuota, DefaultQuota), Full: len(alarms.Alarms) > 0},
	}, s.Header, nil
}

// compact forgets what was before rev.
func (c *Client) compact(ctx context.Context, rev int64) error {
	err := c.do(ctx, "compact", false, func(ctx context.Context, m *member, opts ...grpc.CallOption) (header, error) {
		resp, err := m.kv.Compact(ctx, &pb.CompactionRequest{Revision: rev}, opts...)
		return resp.GetHeader(), err
	})
	var e *Error
	if errors.As(err, &e) && errors.Is(rpctypes.Error(e.Err), rpctypes.ErrCompacted) {
		return nil
	}
	return err
}

// disarm lets etcd take writes again.
func (c *Client) disarm(ctx context.Context) error {
	return c.do(ctx, "disarm", false, func(ctx context.Context, m *member, opts ...grpc.CallOption) (header, error) {
		list, err := m.maintenance.Alarm(ctx, &pb.AlarmRequest{Action: pb.AlarmRequest_GET, Alarm: pb.AlarmType_NOSPACE}, opts...)
		if err != nil {
			return nil, err
		}
		for _, a := range list.Alarms {
			req := &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, Alarm: a.Alarm, MemberID: a.MemberID}
			if _, err := m.maintenance.Alarm(ctx, req, opts...); err != nil {
				return nil, err
			}
		}
		return list.Header, nil
	})
}

// defragment rewrites the file of each member, the one in use last: a member answers nobody meanwhile.
func (c *Client) defragment(ctx context.Context) error {
	targets := slices.Clone(c.targets)
	if m := c.current.Load(); m != nil {
		slices.SortStableFunc(targets, func(a, b target) int {
			return cmp.Compare(btoi(a.name == m.target.name), btoi(b.name == m.target.name))
		})
	}
	for _, t := range targets {
		err := c.at(ctx, t, "defragment", func(ctx context.Context, m *member, opts ...grpc.CallOption) (header, error) {
			resp, err := m.maintenance.Defragment(ctx, &pb.DefragmentRequest{}, opts...)
			return resp.GetHeader(), err
		})
		if err != nil {
			return err // The others go on serving: not two of them at a time.
		}
	}
	return nil
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}
