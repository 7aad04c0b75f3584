package crdt

import (
	"fmt"
	"slices"

	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
)

// orset is the observed-remove set, add wins (Almeida et al. 2018, figure 9; without tombstones since Bieniusa et al.
// 2012), as a DotMap of elements to the dots of their adds: an add's dot replaces those of the element that were seen, a
// remove takes them and leaves its own dot as presence, so that an emptied set still is there. An element is in while it
// has a dot: an add that a remove did not see wins. Clear removes all that were seen. History leaves nothing behind.
//
// gset is the same without remove and clear, and adding what is in changes nothing.
//
// Delete takes all dots that were seen, those of presence included; what was added concurrently stays, and the set with
// it.

func (s *shape) applySet(c *change, live store, op *holdfastv1.Operation) (store, error) {
	grows := s.kind == configv1.Model_MODEL_GSET
	switch o := op.GetOperation().(type) {
	case *holdfastv1.Operation_Add:
		names, err := elements(op, o.Add.GetElements())
		if err != nil {
			return store{}, err
		}
		return s.add(c, live, names, grows), nil
	case *holdfastv1.Operation_Remove:
		if grows {
			break
		}
		names, err := elements(op, o.Remove.GetElements())
		if err != nil {
			return store{}, err
		}
		return s.removeMembers(c, live, names), nil
	case *holdfastv1.Operation_Clear:
		if grows {
			break
		}
		return s.clear(c, live), nil
	}
	if grows {
		return store{}, s.unfit(op, "add and delete")
	}
	return store{}, s.unfit(op, "add, remove, clear and delete")
}

// elements is what an operation names, in order and each once.
func elements(op *holdfastv1.Operation, list [][]byte) ([]string, error) {
	names := make([]string, 0, len(list))
	for _, e := range list {
		if len(e) > MaxElement {
			return nil, fmt.Errorf("%w: %s of an element of %d bytes, at most %d: keep large things in entities of their own",
				ErrOperation, OperationName(op), len(e), MaxElement)
		}
		names = append(names, string(e))
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

func (s *shape) add(c *change, live store, names []string, grows bool) store {
	var b builder
	for _, name := range names {
		had, _ := live.members.get(name)
		if grows && !had.empty() {
			continue
		}
		c.replace(had)
		b.add(member{name, store{dots: one(c.dot(), nil)}})
	}
	out := store{members: b.build(true)}
	switch {
	case c.taken > 0:
		c.replace(store{dots: live.dots})
	case live.empty():
		out.dots = one(c.dot(), nil)
	}
	return out
}

// removeMembers takes the members out, and leaves its dot as presence.
func (s *shape) removeMembers(c *change, live store, names []string) store {
	var b builder
	for _, name := range names {
		if had, _ := live.members.get(name); !had.empty() {
			c.replace(had)
			b.add(member{name: name})
		}
	}
	if len(b.last) == 0 {
		return store{}
	}
	return s.present(c, live, b.build(true))
}

// clear takes all members out. Its delta names none: whoever gets it has to look at all.
func (s *shape) clear(c *change, live store) store {
	if live.members.live() == 0 {
		return store{}
	}
	c.replace(store{members: live.members})
	return s.present(c, live, nil)
}

func (s *shape) present(c *change, live store, members *dotMap) store {
	c.replace(store{dots: live.dots})
	return store{dots: one(c.dot(), nil), members: members}
}

func setValue(members *dotMap) *holdfastv1.SetValue {
	out := &holdfastv1.SetValue{}
	for it := members.iterate(); it.member() != nil; it.next() {
		if m := it.member(); !m.store.empty() {
			out.Elements = append(out.Elements, []byte(m.name))
		}
	}
	return out
}
