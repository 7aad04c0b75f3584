package etcd

import (
	"errors"
	"fmt"
)

// Usage is what a member says of its database file.
type Usage struct {
	// Size is the file's, in bytes; InUse what of it is not free to be used again: live data, and history until it is
	// compacted.
	Size, InUse int64
	// Quota is the size from which the member refuses every write. A member older than 3.6 does not tell: DefaultQuota.
	Quota int64
	// Full is true while some member refuses writes because it was over its quota.
	Full bool
}

// Share is the part of the quota that is in use.
func (u Usage) Share() float64 { return float64(u.InUse) / float64(u.Quota) }

// ErrNoRoom: writes that need more room are refused, long before etcd itself stops.
var ErrNoRoom = errors.New("etcd is nearly full")

// crowded says whether writes that need more room are to be refused; they were until now.
//
// What counts is what is in use: etcd looks at the file's size, but a file's free pages are used before it grows. Only a
// file that is close to the quota by itself is trouble whatever is in it: pages that are free but scattered do not help a
// large value.
func (u Usage) crowded(were bool) bool {
	limit := refuseFrom
	if were {
		limit = admitBelow
	}
	return u.Full || u.Share() >= limit || float64(u.Size) >= refuseFileFrom*float64(u.Quota)
}

// RefuseFrom is what may be in use, in bytes, until writes that need more room are refused.
func (u Usage) RefuseFrom() int64 { return int64(refuseFrom * float64(u.Quota)) }

// Refusal is why writes that need more room would be refused if they were not yet; nil: they would not.
func (u Usage) Refusal() error {
	if u.crowded(false) {
		return u.refusal()
	}
	return nil
}

// shrink says whether defragmenting would win back so much that it is worth stopping the members for it, one by one.
func (u Usage) shrink() bool {
	return float64(u.Size) >= defragmentFrom*float64(u.Quota) && u.Size-u.InUse >= u.Size/4
}

// refusal is what callers are told.
func (u Usage) refusal() error {
	const knob = "delete entities, or raise the quota (--quota-bytes of holdfast etcd, --etcd-quota-bytes of holdfast up, --quota-backend-bytes of another etcd)"
	switch {
	case u.Full:
		return fmt.Errorf("%w: it refuses all writes, %s of its quota of %s are in use: %s; where others run it, they then have to defragment it and to disarm its alarm (`etcdctl defrag`, `etcdctl alarm disarm`)", ErrNoRoom, Bytes(u.InUse), Bytes(u.Quota), knob)
	case u.Share() >= admitBelow:
		return fmt.Errorf("%w: %s of its quota of %s are in use (%.0f %%), and writes that need more room are refused from %.0f %% until it is below %.0f %%: %s",
			ErrNoRoom, Bytes(u.InUse), Bytes(u.Quota), 100*u.Share(), 100*refuseFrom, 100*admitBelow, knob)
	default:
		return fmt.Errorf("%w: its file has %s of its quota of %s, though only %s are in use: defragment it (`etcdctl defrag`), or raise the quota", ErrNoRoom, Bytes(u.Size), Bytes(u.Quota), Bytes(u.InUse))
	}
}

// Bytes prints a number of bytes for people.
func Bytes(n int64) string {
	const k = 1024
	switch {
	case n < k:
		return fmt.Sprintf("%d B", n)
	case n < k*k:
		return fmt.Sprintf("%.1f KiB", float64(n)/k)
	case n < k*k*k:
		return fmt.Sprintf("%.1f MiB", float64(n)/k/k)
	}
	return fmt.Sprintf("%.2f GiB", float64(n)/k/k/k)
}

// Room is nil, or why a write that needs more room is to be refused; errors.Is says ErrNoRoom. It costs nothing. Without
// Keep it is always nil.
func (c *Client) Room() error {
	if why := c.room.Load(); why != nil {
		return *why
	}
	return nil
}
