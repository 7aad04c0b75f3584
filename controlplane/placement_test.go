package controlplane

import (
	"errors"
	"testing"

	"github.com/holdfast-mesh/holdfast/internal/mesh"
	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
)

func members(names ...string) []*configv1.Member {
	t := &mesh.Topology{}
	for _, n := range names {
		t.Nodes = append(t.Nodes, mesh.Node{Name: n, ServeSocket: "/" + n, Peer: "unix:/p" + n})
	}
	return membersOf(t)
}

func TestNextPlacement(t *testing.T) {
	ab := members("b", "a")
	if ab[0].Name != "a" || ab[0].PeerAddress != "unix:/pa" || ab[0].ServeAddress != "/a" || ab[0].Weight != 1 {
		t.Errorf("got %v", ab)
	}
	for _, tc := range []struct {
		name    string
		current *configv1.Placement
		members []*configv1.Member
		atLeast uint64
		want    uint64 // 0: none
	}{
		{"nobody", nil, nil, 0, 0},
		{"the first", nil, ab, 0, 1},
		{"the first, but stores have seen 7", nil, ab, 7, 8},
		{"the same", &configv1.Placement{Epoch: 3, Members: ab}, members("a", "b"), 3, 0},
		{"one more", &configv1.Placement{Epoch: 3, Members: ab}, members("a", "b", "c"), 3, 4},
		{"all gone", &configv1.Placement{Epoch: 3, Members: ab}, nil, 3, 0},
		{"kept one went back", &configv1.Placement{Epoch: 3, Members: ab}, ab, 9, 10},
		{"changed, and went back", &configv1.Placement{Epoch: 3, Members: ab}, members("a"), 9, 10},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.current != nil {
				tc.current.Seed = 42
			}
			got := nextPlacement(tc.current, tc.members, tc.atLeast, 5)
			if got.GetEpoch() != tc.want {
				t.Errorf("got %v, want epoch %d", got, tc.want)
			}
			if tc.current != nil && got != nil && got.Seed != 42 {
				t.Error("the seed changed: every slot would move")
			}
		})
	}
}

func TestFilePlacements(t *testing.T) {
	f := filePlacements{placementPath(t.TempDir())}
	if p, r, err := f.Load(t.Context()); p != nil || r != 0 || err != nil {
		t.Fatal(p, r, err)
	}
	p := &configv1.Placement{Epoch: 1, Seed: 1 << 63, Members: members("a")}
	r, err := f.Save(t.Context(), p, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Save(t.Context(), p, 0); !errors.Is(err, ErrConflict) {
		t.Errorf("got %v", err)
	}
	got, have, err := f.Load(t.Context())
	if err != nil || have != r || got.Seed != p.Seed || len(got.Members) != 1 {
		t.Errorf("got %v %d %v", got, have, err)
	}
}
