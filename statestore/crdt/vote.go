package crdt

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"unicode/utf8"

	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
)

// vote is a DotMap of nodes to their last vote, each a last-writer-wins boolean as in lww: only a node's store casts its
// vote, so sets of one node are concurrent only when it lost some of its past. Which votes count is not in the state: the
// voters are an argument of Value, so that a vote comes back with its voter.
//
// Delete takes the votes that were seen; one that was cast concurrently stays.

func (s *shape) applyVote(c *change, live store, op *holdfastv1.Operation) (store, error) {
	o, ok := op.GetOperation().(*holdfastv1.Operation_Vote)
	if !ok {
		return store{}, s.unfit(op, "vote and delete")
	}
	if c.Node == "" || len(c.Node) > MaxNode || !utf8.ValidString(c.Node) {
		return store{}, fmt.Errorf("%w: vote of a node with the name %q: a name has 1 to %d bytes of UTF-8", ErrOperation, c.Node, MaxNode)
	}
	had, _ := live.members.get(c.Node)
	before, latest := ballot(had.dots)
	if !had.empty() && before == o.Vote.GetInFavour() {
		return store{}, nil
	}
	if latest == math.MaxUint64 {
		return store{}, fmt.Errorf("%w: the last vote's time is the last that there is: delete first", ErrOverflow)
	}
	c.replace(store{dots: live.dots})
	c.replace(had)
	payload := binary.AppendUvarint(nil, max(c.Now, latest+1))
	if o.Vote.GetInFavour() {
		payload = append(payload, 1)
	} else {
		payload = append(payload, 0)
	}
	var b builder
	b.add(member{c.Node, store{dots: one(c.dot(), payload)}})
	return store{members: b.build(true)}, nil
}

// ballot is a node's vote: its latest one, the greater dot's of two at one time.
func ballot(live dots) (inFavour bool, latest uint64) {
	for live != "" {
		_, payload, rest := live.next()
		if t, mark := cutUint(payload); t >= latest {
			latest, inFavour = t, mark[0] == 1
		}
		live = rest
	}
	return inFavour, latest
}

func voteValue(members *dotMap, v View) *holdfastv1.VoteValue {
	voters := slices.Clone(v.Voters)
	slices.Sort(voters)
	voters = slices.Compact(voters)
	out := &holdfastv1.VoteValue{TotalVoters: uint32(len(voters))}
	for it := members.iterate(); it.member() != nil; it.next() {
		m := it.member()
		if yes, _ := ballot(m.store.dots); yes {
			if _, counts := slices.BinarySearch(voters, m.name); counts {
				out.VotesFor++
			}
			out.SelfVote = out.SelfVote || m.name == v.Node
		}
	}
	return out
}
