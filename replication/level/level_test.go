package level_test

import (
	"testing"

	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	"github.com/holdfast-mesh/holdfast/replication/level"
)

const (
	unset    = configv1.WriteLevel_WRITE_LEVEL_UNSPECIFIED
	mem      = configv1.WriteLevel_WRITE_LEVEL_LOCAL_MEM
	local    = configv1.WriteLevel_WRITE_LEVEL_LOCAL
	majority = configv1.WriteLevel_WRITE_LEVEL_MAJORITY
	all      = configv1.WriteLevel_WRITE_LEVEL_ALL
)

func TestOthers(t *testing.T) {
	for _, c := range []struct {
		level  configv1.WriteLevel
		placed int
		here   bool
		want   int
	}{
		{unset, 5, true, 0},
		{mem, 5, true, 0},
		{local, 5, false, 0},
		// Nothing is placed: there is nobody to wait for, and nobody promised anything.
		{all, 0, false, 0},
		{majority, 0, false, 1},
		{majority, 1, true, 0},
		{majority, 1, false, 1},
		{majority, 2, true, 1},
		{majority, 2, false, 2},
		{majority, 3, true, 1},
		{majority, 3, false, 2},
		{majority, 4, true, 2},
		{majority, 5, true, 2},
		{majority, 5, false, 3},
		{majority, 6, true, 3},
		{majority, 7, true, 3},
		{all, 1, true, 0},
		{all, 1, false, 1},
		{all, 3, true, 2},
		{all, 3, false, 3},
		{configv1.WriteLevel(99), 3, true, 2},
	} {
		if got := level.Others(c.level, c.placed, c.here); got != c.want {
			t.Errorf("%s of %d placed, here %t: %d others, want %d", c.level, c.placed, c.here, got, c.want)
		}
	}
}

// Two majorities always share a replica, and a majority survives the loss of any minority.
func TestMajoritiesMeet(t *testing.T) {
	for n := 1; n <= 20; n++ {
		need := level.Others(majority, n, false)
		if 2*need <= n {
			t.Errorf("%d placed: two sets of %d may be apart", n, need)
		}
		if minority := (n - 1) / 2; need <= minority {
			t.Errorf("%d placed: a minority of %d holds all %d", n, minority, need)
		}
	}
}

func TestAcked(t *testing.T) {
	for _, number := range configv1.WriteLevel_value {
		l := configv1.WriteLevel(number)
		if got, want := level.Acked(l), l == majority || l == all; got != want {
			t.Errorf("%s waits for others: %t, want %t", l, got, want)
		}
	}
}
