package filter

import (
	"strings"

	"github.com/holdfast-mesh/holdfast/internal/placement"
)

// choose says where a key's request goes: whether this node serves it in this same pass, and the addresses that Envoy
// tries in order (one more at each retry). Strong and sticky types follow the slot's order; the others are served by
// the node that they entered. Routing makes it fast, never correct: any node that gets the request answers it right.
func (s *Stream) choose() (serve bool, hosts string) {
	c, m := s.cfg, s.method
	if !c.edge {
		return true, ""
	}
	if !c.serve && !m.typ.sticky && m.typ.replicas == 0 {
		return false, c.rotated(s.start())
	}
	able := c.serve && len(m.service.addresses) > 0 && (s.host.StoreUp() || !s.wantsState())
	slot, n := placement.Slot(m.typ.name, s.key), m.typ.replicas
	if n <= 0 {
		n = len(c.table.Members())
	}
	list := hostList{}
	first := true
	for member := range c.table.Order(slot) {
		if n--; n < 0 {
			break
		}
		if c.serve && member.GetName() == c.node {
			serve = serve || able && (first || !m.typ.sticky)
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

// start is where in the list of members a request begins: it spreads the load, but a request that may be a repeated one
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
	c, m := s.cfg, s.method
	list := hostList{}
	n := m.typ.replicas
	if n <= 0 {
		n = len(c.table.Members())
	}
	for member := range c.table.Order(placement.Slot(m.typ.name, s.key)) {
		if n--; n < 0 {
			break
		}
		if member.GetName() != c.node {
			list.add(member.GetServeAddress())
		}
	}
	return list.String()
}

// rotated lists the members from the i-th on.
func (c *Config) rotated(i uint32) string {
	members := c.table.Members()
	list := hostList{}
	for k := range members {
		list.add(members[(int(i%uint32(len(members)))+k)%len(members)].GetServeAddress())
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
