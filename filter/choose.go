package filter

import (
	"iter"
	"strings"

	"github.com/holdfast-mesh/holdfast/internal/placement"
	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
)

// choose says where a key's request goes: whether this node serves it in this same pass, and the addresses that Envoy
// tries in order (one more at each retry). Strong and sticky types follow the slot's order. The others are served by the
// node that they entered, even where the placement does not name it: its store joins the slot for as long as the entity
// is active there. Routing makes it fast, never correct: any node that gets the request answers it right.
func (s *Stream) choose() (serve bool, hosts string) {
	c, m := s.cfg, s.method
	switch {
	case !c.edge:
		return true, ""
	case !c.serve && !m.typ.sticky:
		return false, s.rotated(s.start())
	}
	able := c.serve && len(m.service.addresses) > 0 && (s.host.StoreUp() || !s.wantsState())
	serve = able && !m.typ.sticky
	list, first := hostList{}, true
	for member := range s.placed() {
		if c.serve && member.GetName() == c.node {
			serve = serve || able && first
			// Our own serve listener would fail the same way as we do.
			if serve || !able {
				first = false
				continue
			}
		}
		first = false
		list.add(member.GetServeAddress())
	}
	if serve {
		return true, list.after(s.localAddress())
	}
	return false, list.String()
}

// placed calls yield for the key's placed replicas, in the slot's order.
func (s *Stream) placed() iter.Seq[*configv1.Member] {
	table, typ := s.cfg.table, s.method.typ
	order := table.Order(placement.Slot(typ.name, s.key))
	return func(yield func(*configv1.Member) bool) {
		left := s.replicas()
		for member := range order {
			if left--; left < 0 || !yield(member) {
				return
			}
		}
	}
}

// replicas is the number of the key's placed replicas.
func (s *Stream) replicas() int {
	n, all := s.method.typ.replicas, len(s.cfg.table.Members())
	if n <= 0 || n > all {
		return all
	}
	return n
}

// start is where in the list of replicas a request begins: it spreads the load, but a request that may be a repeated one
// goes where the first one went, because that store alone can know it again.
func (s *Stream) start() uint32 {
	if s.idempotency == "" {
		return s.host.Rotate()
	}
	h := uint32(2166136261) // FNV-1a
	for i := range len(s.requestID) {
		h = (h ^ uint32(s.requestID[i])) * 16777619
	}
	return h
}

// localAddress picks one of this node's replicas of the service, evenly.
func (s *Stream) localAddress() string {
	a := s.method.service.addresses
	if len(a) == 1 {
		return a[0]
	}
	return a[int(s.host.Rotate()%uint32(len(a)))]
}

// elsewhere lists the other replicas of the key's slot: where the request goes when this node turns out not to be able
// to serve it.
func (s *Stream) elsewhere() string {
	list := hostList{}
	for member := range s.placed() {
		if member.GetName() != s.cfg.node {
			list.add(member.GetServeAddress())
		}
	}
	return list.String()
}

// rotated lists the placed replicas from the i-th on, so that they share the load.
func (s *Stream) rotated(i uint32) string {
	skip := int(i % uint32(s.replicas()))
	var list, before hostList
	for member := range s.placed() {
		if skip--; skip >= 0 {
			before.add(member.GetServeAddress())
		} else {
			list.add(member.GetServeAddress())
		}
	}
	for _, address := range before.at[:before.n] {
		list.add(address)
	}
	return list.String()
}

// hostList is a list of at most MaxHosts addresses. It lives on the stack.
type hostList struct {
	at [MaxHosts]string
	n  int
}

func (l *hostList) add(a string) {
	if l.n < len(l.at) {
		l.at[l.n] = a
		l.n++
	}
}

// String joins the addresses as override_host reads them.
func (l *hostList) String() string { return strings.Join(l.at[:l.n], ",") }

// after is the list with first before it.
func (l *hostList) after(first string) string {
	if l.n == 0 {
		return first
	}
	return first + "," + l.String()
}
