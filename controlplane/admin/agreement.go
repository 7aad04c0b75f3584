package admin

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Roles of a copy.
const (
	// RolePlaced: the placement names its store.
	RolePlaced = "placed"
	// RoleJoined: it does not, but the entity is active there.
	RoleJoined = "joined"
	// RoleNone: the store keeps nothing of the entity.
	RoleNone = "none"
)

// Agreement says which replicas of an entity hold the same.
type Agreement struct {
	// Agree is true where all replicas answered and hold the same.
	Agree bool `json:"agree"`
	// Replicas is how many there are: the placed ones and those that joined.
	Replicas int `json:"replicas"`
	// Groups are the nodes of replicas that hold the same, the largest group first.
	Groups [][]string `json:"groups"`
	// Unreachable are the nodes of replicas that did not answer.
	Unreachable []string `json:"unreachable,omitempty"`
	// Summary says it in a sentence.
	Summary string `json:"summary"`
}

// agree compares copies by their hash.
func agree(copies []Copy) *Agreement {
	a := &Agreement{Groups: [][]string{}}
	groups := map[string][]string{}
	var order []string
	for _, c := range copies {
		switch {
		case c.Role == RoleNone || c.Role == "":
			continue
		case c.Error != "":
			a.Unreachable = append(a.Unreachable, c.Node)
		default:
			if groups[c.Hash] == nil {
				order = append(order, c.Hash)
			}
			groups[c.Hash] = append(groups[c.Hash], c.Node)
		}
		a.Replicas++
	}
	for _, hash := range order {
		slices.SortFunc(groups[hash], byName)
		a.Groups = append(a.Groups, groups[hash])
	}
	slices.SortFunc(a.Unreachable, byName)
	slices.SortStableFunc(a.Groups, func(x, y []string) int { return len(y) - len(x) })
	a.Agree = len(a.Groups) == 1 && len(a.Unreachable) == 0
	a.Summary = a.summary()
	return a
}

// byName puts node-2 before node-10.
func byName(a, b string) int { return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b)) }

func (a *Agreement) summary() string {
	away := ""
	if len(a.Unreachable) > 0 {
		away = fmt.Sprintf("; no answer from %s", strings.Join(a.Unreachable, ", "))
	}
	switch {
	case a.Replicas == 0:
		return "no replica is known"
	case len(a.Groups) == 0:
		return "no replica answers"
	case a.Agree && a.Replicas == 1:
		return "the only replica answers"
	case a.Agree:
		return fmt.Sprintf("all %d replicas agree", a.Replicas)
	case len(a.Groups) == 1:
		return fmt.Sprintf("the %d replicas that answer agree%s", len(a.Groups[0]), away)
	}
	sides := make([]string, len(a.Groups))
	for i, g := range a.Groups {
		sides[i] = strings.Join(g, ", ")
	}
	return fmt.Sprintf("%d replicas hold %d different states: %s%s", a.Replicas, len(a.Groups), strings.Join(sides, " | "), away)
}

// Compare fills in the agreement. A strong entity has none: its state is in etcd, and what stores hold are copies of it.
func (k *Key) Compare() {
	if k.Consistency != "strong" {
		k.Agreement = agree(k.Copies)
	}
}
