package strong

import (
	"context"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/code"

	"github.com/holdfast-mesh/holdfast/internal/etcd"
	"github.com/holdfast-mesh/holdfast/internal/fenced"
)

// Load reads an entity's head and its modification revision, linearizably; nil and 0 where it was never written, or was
// forgotten. Errors are *Error.
func (c *Committer) Load(ctx context.Context, entityType string, slot uint32, key string) (head []byte, rev int64, err error) {
	kv, err := c.get(ctx, headKey(fenced.Slot{Type: entityType, Number: slot}, key))
	return kv.Value, kv.ModRev, err
}

// Cells reads up to limit of an entity's cells, 0 for all, whose names are in [from, to), in their order; an empty to has
// no end. more says that there are others. They are of one moment, but not of the moment in which the head was loaded:
// load it again to be sure. Errors are *Error.
func (c *Committer) Cells(ctx context.Context, entityType string, slot uint32, key, from, to string, limit int) (cells []fenced.Cell, more bool, err error) {
	prefix := cellsKey(fenced.Slot{Type: entityType, Number: slot}, key)
	end := prefix + to
	if to == "" {
		end = etcd.PrefixEnd(prefix)
	}
	page, err := c.scan(ctx, prefix+from, end, limit)
	if err != nil {
		return nil, false, err
	}
	for _, kv := range page.KVs {
		cells = append(cells, fenced.Cell{Name: strings.TrimPrefix(kv.Key, prefix), Value: kv.Value})
	}
	return cells, page.More, nil
}

// Due lists up to limit marks of the type, 0 for all, that are due before or at a time, the oldest first. Errors are *Error.
func (c *Committer) Due(ctx context.Context, entityType string, before time.Time, limit int) ([]fenced.Mark, error) {
	page, err := c.scan(ctx, dueKey(entityType), dueTime(entityType, before.Unix()+1), limit)
	if err != nil {
		return nil, err
	}
	var marks []fenced.Mark
	for _, kv := range page.KVs {
		if m, ok := parseMark(entityType, kv.Key); ok {
			marks = append(marks, m)
		}
	}
	return marks, nil
}

// Changed waits until the head's modification revision is above rev or, with a rev above 0, until the head is gone. It
// waits out etcd's absence: the only error is ctx's end.
func (c *Committer) Changed(ctx context.Context, entityType string, slot uint32, key string, rev int64) error {
	_, err := c.cfg.Etcd.WaitChange(ctx, headKey(fenced.Slot{Type: entityType, Number: slot}, key), rev)
	return err
}

// Vacated waits until the slot is not owner's any more, because it was given back or its lease ended; nil at once where
// it is not. Errors are *Error, or ctx's end.
func (c *Committer) Vacated(ctx context.Context, entityType string, slot uint32, owner string) error {
	key := slotKey(fenced.Slot{Type: entityType, Number: slot})
	kv, err := c.get(ctx, key)
	if err != nil || string(kv.Value) != owner {
		return err
	}
	_, err = c.cfg.Etcd.WaitChange(ctx, key, kv.ModRev)
	return err
}

func (c *Committer) get(ctx context.Context, key string) (etcd.KV, error) {
	if !c.Up() {
		return etcd.KV{}, refused(code.Code_UNAVAILABLE, ErrDown)
	}
	kv, err := c.cfg.Etcd.Get(ctx, key)
	if err != nil {
		return etcd.KV{}, readError(err)
	}
	return kv, nil
}

func (c *Committer) scan(ctx context.Context, from, to string, limit int) (etcd.Page, error) {
	if !c.Up() {
		return etcd.Page{}, refused(code.Code_UNAVAILABLE, ErrDown)
	}
	page, err := c.cfg.Etcd.Range(ctx, from, to, limit)
	if err != nil {
		return etcd.Page{}, readError(err)
	}
	return page, nil
}
