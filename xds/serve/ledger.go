package serve

import (
	"cmp"
	"slices"
	"sync"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/holdfast-mesh/holdfast/xds/translate"
)

// State says what an Envoy answered to the resources of one type.
type State string

// States of a type.
const (
	// Pending: sent, or to be sent; not answered yet.
	Pending State = "PENDING"
	Acked   State = "ACKED"
	// Nacked: refused. The Envoy goes on with what it had.
	Nacked State = "NACKED"
)

// ProxyStatus is what is known of one Envoy.
type ProxyStatus struct {
	Name string `json:"name"`
	// Known is false for an Envoy that asks and that nobody has resources for.
	Known bool `json:"known"`
	// Connected is true while it has a stream.
	Connected bool `json:"connected"`
	// Since is the time of the last connect or disconnect.
	Since time.Time `json:"since"`
	// Synced is true while every type is ACKED.
	Synced bool         `json:"synced"`
	Types  []TypeStatus `json:"types"`
}

// TypeStatus is what is known of the resources of one type at one Envoy.
type TypeStatus struct {
	// Type is LDS, RDS, CDS, EDS or ECDS.
	Type string `json:"type"`
	// Version that it should have.
	Version string    `json:"version"`
	State   State     `json:"state"`
	At      time.Time `json:"at"`
	// Reason of a refusal, in Envoy's words.
	Reason string `json:"error,omitempty"`
	// LastGood is the version that it took last: the one that it works with.
	LastGood string `json:"lastGood,omitempty"`
}

// ledger records what was sent to whom, and what came back.
type ledger struct {
	now func() time.Time

	// mu guards the fields below.
	mu sync.Mutex
	// +checklocks:mu
	proxies map[string]*proxy
	// streams maps an open stream to its Envoy.
	// +checklocks:mu
	streams map[int64]*proxy
	// changed is closed and replaced at each change.
	// +checklocks:mu
	changed chan struct{}
	// +checklocks:mu
	acks, nacks uint64
}

type proxy struct {
	name    string
	known   bool
	streams int
	since   time.Time
	types   map[string]*typeState
}

type typeState struct {
	TypeStatus
	// versions of the resources that it should have, by name.
	versions map[string]string
	// have is what an Envoy that came back said it has, until something is sent to it.
	have map[string]string
	// nonce and sent belong to the last response.
	nonce, sent string
}

// settle acknowledges what the Envoy has already: nothing will be sent for it to answer.
func (t *typeState) settle(now time.Time) {
	if t.have == nil || len(t.versions) == 0 {
		return
	}
	for name, v := range t.versions {
		if t.have[name] != v {
			return
		}
	}
	t.State, t.At, t.Reason, t.LastGood = Acked, now, "", t.Version
}

func newLedger(now func() time.Time) *ledger {
	return &ledger{now: now, proxies: map[string]*proxy{}, streams: map[int64]*proxy{}, changed: make(chan struct{})}
}

// +checklocks:l.mu
func (l *ledger) get(name string) *proxy {
	p := l.proxies[name]
	if p == nil && len(l.proxies) < maxProxies {
		p = &proxy{name: name, since: l.now(), types: map[string]*typeState{}}
		l.proxies[name] = p
	}
	return p
}

func (p *proxy) typ(url string) *typeState {
	t := p.types[url]
	if t == nil {
		t = &typeState{}
		t.Type, t.State = shortName(url), Pending
		p.types[url] = t
	}
	return t
}

// shortName is what people call a type.
func shortName(url string) string {
	switch url {
	case translate.TypeListener:
		return "LDS"
	case translate.TypeRoute:
		return "RDS"
	case translate.TypeCluster:
		return "CDS"
	case translate.TypeEndpoint:
		return "EDS"
	case translate.TypeExtension:
		return "ECDS"
	}
	return url
}

// +checklocks:l.mu
func (l *ledger) notify() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// want records the version of each type that a proxy should have from now on.
func (l *ledger) want(name string, versions map[string]string, resources map[string]map[string]string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.get(name)
	if p == nil {
		return
	}
	p.known = true
	for url, v := range versions {
		t := p.typ(url)
		t.versions = resources[url]
		if t.Version == v {
			continue
		}
		t.Version, t.At = v, l.now()
		// An Envoy asks for a type only where something refers to it.
		t.State, t.Reason = Pending, ""
		if v == t.LastGood || len(t.versions) == 0 && t.sent == "" {
			t.State = Acked
		}
		t.settle(l.now())
	}
	l.notify()
}

// forget drops a proxy, at once or when its last stream ends. It reports whether that is now.
func (l *ledger) forget(name string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.notify()
	if p := l.proxies[name]; p != nil && p.streams > 0 {
		p.known = false
		return false
	}
	delete(l.proxies, name)
	return true
}

// request records what an Envoy asked, acknowledged or refused. It returns the Envoy's name, which only the first request
// of a stream tells, and whether this is that one.
func (l *ledger) request(stream int64, req *discoveryv3.DeltaDiscoveryRequest) (name string, first bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.notify()
	p := l.streams[stream]
	if p == nil {
		if p = l.get(req.GetNode().GetId()); p == nil {
			return req.GetNode().GetId(), true
		}
		first = true
		l.streams[stream] = p
		p.streams++
		if p.streams == 1 {
			p.since = l.now()
		}
	}
	t := p.typ(req.GetTypeUrl())
	switch {
	case req.GetResponseNonce() == "":
		// Only the first request of a stream says it; the cache may know less than this yet, see want.
		if have := req.GetInitialResourceVersions(); len(have) > 0 {
			t.have = have
			t.settle(l.now())
		}
	case req.GetResponseNonce() != t.nonce:
		// The answer to an older response; the one to the last is still to come.
	case req.GetErrorDetail() != nil:
		l.nacks++
		t.State, t.At, t.Reason = Nacked, l.now(), clip(req.GetErrorDetail().GetMessage())
		t.nonce = ""
	default:
		l.acks++
		t.LastGood, t.nonce = t.sent, ""
		if t.sent == t.Version {
			t.State, t.At, t.Reason = Acked, l.now(), ""
		}
	}
	return p.name, first
}

// response records what is about to be sent.
func (l *ledger) response(stream int64, resp *discoveryv3.DeltaDiscoveryResponse) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.streams[stream]
	if p == nil {
		return
	}
	t := p.typ(resp.GetTypeUrl())
	t.nonce, t.sent, t.have = resp.GetNonce(), resp.GetSystemVersionInfo(), nil
	t.State, t.At = Pending, l.now()
	l.notify()
}

// closed records the end of a stream. It returns its Envoy's name, and whether that Envoy is forgotten with it.
func (l *ledger) closed(stream int64) (name string, forgotten bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.streams[stream]
	if p == nil {
		return "", false
	}
	delete(l.streams, stream)
	p.streams--
	if p.streams == 0 {
		p.since = l.now()
		for _, t := range p.types {
			t.nonce, t.have = "", nil
		}
		if !p.known {
			delete(l.proxies, p.name)
			forgotten = true
		}
	}
	l.notify()
	return p.name, forgotten
}

func (l *ledger) status() []ProxyStatus {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]ProxyStatus, 0, len(l.proxies))
	for _, p := range l.proxies {
		s := ProxyStatus{Name: p.name, Known: p.known, Connected: p.streams > 0, Since: p.since, Synced: p.known && p.streams > 0}
		for _, t := range p.types {
			s.Types = append(s.Types, t.TypeStatus)
			s.Synced = s.Synced && t.State == Acked
		}
		slices.SortFunc(s.Types, func(a, b TypeStatus) int { return cmp.Compare(a.Type, b.Type) })
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b ProxyStatus) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

func (l *ledger) wait() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed
}

func clip(s string) string {
	if len(s) > maxReason {
		return s[:maxReason] + "…"
	}
	return s
}
