package crdt

import (
	"fmt"
	"unicode/utf8"

	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
)

// ormap is the observed-remove map (Almeida et al. 2018, section 7.4), as a DotMap of keys to the stores of their values,
// which may be of any shape but value and bcounter, maps included. All dots of a map are of one sequence and one context, so
// removing an entry takes exactly what was seen of it, however deep, and leaves nothing behind; a key exists while it has
// a live dot.
//
// What a remove does to concurrent changes is what a delete of the value would do to them: they stay, and the key with
// them. Clear removes the entries that were seen; the map stays, as it does after a remove of its last entry. Delete takes
// the map, too.

func (s *shape) applyMap(c *change, live store, op *holdfastv1.Operation) (store, error) {
	switch o := op.GetOperation().(type) {
	case *holdfastv1.Operation_MapUpdate:
		key := o.MapUpdate.GetKey()
		if err := checkMapKey(key); err != nil {
			return store{}, err
		}
		entry, err := s.update(c, live, key, o.MapUpdate.GetOperation())
		if err != nil {
			return store{}, fmt.Errorf("entry %q: %w", key, err)
		}
		if c.taken == 0 {
			return store{}, nil
		}
		c.replace(store{dots: live.dots})
		var b builder
		b.add(member{key, entry})
		return store{members: b.build(true)}, nil
	case *holdfastv1.Operation_MapRemove:
		return s.removeMembers(c, live, []string{o.MapRemove.GetKey()}), nil
	case *holdfastv1.Operation_Clear:
		return s.clear(c, live), nil
	}
	return store{}, s.unfit(op, "map_update, map_remove, clear and delete")
}

func checkMapKey(key string) error {
	switch {
	case key == "":
		return fmt.Errorf("%w: map_update without a key: name one", ErrOperation)
	case len(key) > MaxMapKey:
		return fmt.Errorf("%w: map key of %d bytes, at most %d: keys are names", ErrOperation, len(key), MaxMapKey)
	case !utf8.ValidString(key):
		return fmt.Errorf("%w: map key is not UTF-8: encode it", ErrOperation)
	}
	return nil
}

// update is the delta of one entry, which is created where it is missing and the operation alone does not do it.
func (s *shape) update(c *change, live store, key string, op *holdfastv1.Operation) (store, error) {
	had, _ := live.members.get(key)
	if op != nil {
		if _, ok := op.GetOperation().(*holdfastv1.Operation_Delete); ok {
			return store{}, fmt.Errorf("%w: an entry is deleted by map_remove", ErrOperation)
		}
		entry, err := s.member.apply(c, had, op)
		if err != nil || c.taken > 0 {
			return entry, err
		}
	}
	if !had.empty() {
		return store{}, nil
	}
	return s.member.create(c), nil
}
