package controlplane

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-mesh/holdfast/internal/mesh"
	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
)

// ErrConflict says that somebody else saved a placement first.
var ErrConflict = errors.New("the placement was changed by another")

// Placements keeps the placement. It is one value with a revision; only who knows the revision may replace it.
type Placements interface {
	// Load returns the placement and its revision: nil and 0 where there is none.
	Load(ctx context.Context) (*configv1.Placement, int64, error)
	// Save replaces the placement at the given revision (0: there is none) and returns the new revision. ErrConflict
	// says that the revision is another.
	Save(ctx context.Context, p *configv1.Placement, revision int64) (int64, error)
}

// membersOf makes a mesh's nodes the members of a placement, by name.
func membersOf(t *mesh.Topology) []*configv1.Member {
	out := make([]*configv1.Member, 0, len(t.Nodes))
	for _, n := range t.Nodes {
		out = append(out, &configv1.Member{Name: n.Name, Weight: 1, ServeAddress: n.ServeSocket, PeerAddress: n.Peer})
	}
	slices.SortFunc(out, func(a, b *configv1.Member) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// nextPlacement is the placement after current for these members, or nil where current will do. The epoch is above
// current's and not below atLeast: an epoch that anybody has seen never comes back with other members.
func nextPlacement(current *configv1.Placement, members []*configv1.Member, atLeast, newSeed uint64) *configv1.Placement {
	if len(members) == 0 {
		return nil
	}
	if current == nil {
		return &configv1.Placement{Epoch: atLeast + 1, Seed: newSeed, Members: members}
	}
	same := slices.EqualFunc(current.GetMembers(), members, func(a, b *configv1.Member) bool { return proto.Equal(a, b) })
	if same && current.GetEpoch() >= atLeast {
		return nil
	}
	return &configv1.Placement{Epoch: max(current.GetEpoch(), atLeast) + 1, Seed: current.GetSeed(), Members: members}
}

// placer keeps the placement in step with the members. It is the only one of this process that writes it.
type placer struct {
	store Placements
	log   *slog.Logger
	seed  uint64
	// publish hands on each placement that is kept, and the reason why a new one can't be.
	publish func(*configv1.Placement, error)
	// wants carries the latest wish only.
	wants chan placementWish
}

type placementWish struct {
	members []*configv1.Member
	atLeast uint64
}

func (p *placer) want(w placementWish) {
	for {
		select {
		case p.wants <- w:
			return
		case <-p.wants:
		}
	}
}

func (p *placer) run(ctx context.Context) {
	var wish placementWish
	var current *configv1.Placement
	var revision int64
	loaded, wished, failed := false, false, time.Duration(0)
	for {
		var retry <-chan time.Time
		if wished && failed > 0 {
			retry = time.After(failed)
		}
		select {
		case <-ctx.Done():
			return
		case wish = <-p.wants:
			wished = true
		case <-retry:
		}
		err := p.step(ctx, wish, &current, &revision, &loaded)
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, ErrConflict) {
			loaded = false
		}
		if err != nil {
			failed = min(max(2*failed, placementRetry), placementRetryMax)
			p.log.Warn("placement can't be kept, the last one stays", "error", err)
			p.publish(nil, err)
			continue
		}
		failed = 0
		p.publish(current, nil)
	}
}

// step brings the kept placement to what is wished.
func (p *placer) step(ctx context.Context, wish placementWish, current **configv1.Placement, revision *int64, loaded *bool) error {
	ctx, cancel := context.WithTimeout(ctx, placementTimeout)
	defer cancel()
	if !*loaded {
		c, r, err := p.store.Load(ctx)
		if err != nil {
			return fmt.Errorf("load placement: %w", err)
		}
		*current, *revision, *loaded = c, r, true
	}
	next := nextPlacement(*current, wish.members, wish.atLeast, p.seed)
	if next == nil {
		return nil
	}
	r, err := p.store.Save(ctx, next, *revision)
	if err != nil {
		// Whether it was saved is not known: what is there must be read before the next try.
		*loaded = false
		return fmt.Errorf("save placement: %w", err)
	}
	*current, *revision = next, r
	p.log.Info("placement changed", "epoch", next.GetEpoch(), "members", len(next.GetMembers()))
	return nil
}

// filePlacements keeps the placement in a file, where there is no etcd. The revision is the epoch: one process writes it.
type filePlacements struct{ path string }

func (f filePlacements) Load(context.Context) (*configv1.Placement, int64, error) {
	raw, err := os.ReadFile(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	p := &configv1.Placement{}
	if err := protojson.Unmarshal(raw, p); err != nil {
		return nil, 0, fmt.Errorf("%s: %w", f.path, err)
	}
	return p, int64(p.GetEpoch()), nil
}

func (f filePlacements) Save(ctx context.Context, p *configv1.Placement, revision int64) (int64, error) {
	_, have, err := f.Load(ctx)
	if err != nil {
		return 0, err
	}
	if have != revision {
		return 0, ErrConflict
	}
	raw, err := protojson.Marshal(p)
	if err != nil {
		return 0, err
	}
	return int64(p.GetEpoch()), replaceFile(f.path, raw)
}

// replaceFile writes a file so that after a crash there is the old content or the new, whole.
func replaceFile(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(data)
	if err == nil {
		err = tmp.Sync()
	}
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}
