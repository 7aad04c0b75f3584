package controlplane

import (
	"bytes"
	"context"
	"crypto/sha256"
	"maps"
	"regexp"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/holdfast-mesh/holdfast/controlplane/resolve"
	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
)

// rollout is how far a change has come: stores first, Envoys second, then what is left over goes from the stores.
type rollout struct {
	// in is the input that target was made from, as a hash: nothing is assembled twice.
	in     [32]byte
	target *output
	stage  stage
	since  time.Time
	// refused tells, by StatefulService, what the filter's parser or a store had against it; broken, what is wrong with
	// all of it.
	refused map[string]error
	broken  error
	// byStores holds the types that a store refused, with its word, for the form that it refused.
	byStores map[string]storeRefusal

	// applied is what Envoys have been given last.
	applied *output
	// members that applied was made from, by StatefulService.
	members map[string]*resolve.Service
	at      time.Time
}

type stage int

const (
	idle stage = iota
	tellingStores
	tellingEnvoys
)

type storeRefusal struct {
	form []byte
	err  error
}

// reconcile brings everything a step closer to what is wanted. It never waits.
func (p *plane) reconcile(ctx context.Context) {
	if p.config == nil || p.topology == nil {
		return
	}
	now := time.Now()
	p.startFetches(ctx, now)
	p.followStores(ctx)
	atLeast := p.placement.GetEpoch()
	for _, s := range p.stores {
		atLeast = max(atLeast, s.get().status.GetEpoch())
	}
	p.wantPlacement(placementWish{members: membersOf(p.topology), atLeast: atLeast})
	if p.placement == nil || p.waitsForFirst(now) {
		return
	}
	p.noteRefusals()
	if !p.waitsForPlacement(now) {
		p.aim(now)
	}
	p.advance(now)
}

// wantPlacement tells the placer what is wanted where that differs from what is there.
func (p *plane) wantPlacement(w placementWish) {
	// An epoch that this process has confirmed needs no asking; until then etcd's word is missing. The placer tries
	// again by itself.
	same := p.wished.atLeast == w.atLeast && slices.EqualFunc(p.wished.members, w.members, func(a, b *configv1.Member) bool { return proto.Equal(a, b) })
	if same || p.confirmed && nextPlacement(p.placement, w.members, w.atLeast, 0) == nil {
		return
	}
	p.wished, p.wishedAt = w, time.Now()
	p.place.want(w)
}

// waitsForPlacement holds a change of the nodes back for as long as it takes to keep their placement, so that the two come
// together. Where that can't be kept, the change goes ahead with the last one.
func (p *plane) waitsForPlacement(now time.Time) bool {
	return nextPlacement(p.placement, p.wished.members, p.wished.atLeast, 0) != nil && p.placementErr == nil && now.Sub(p.wishedAt) < 2*placementTimeout
}

// waitsForFirst holds the very first configuration back while services are starting up.
func (p *plane) waitsForFirst(now time.Time) bool {
	if p.rollout.applied != nil || now.Sub(p.started) > firstGrace {
		return false
	}
	return slices.ContainsFunc(slices.Collect(maps.Values(p.services)), func(r *resolution) bool { return r.service == nil && r.err == nil })
}

// followStores has one goroutine for each node's store.
func (p *plane) followStores(ctx context.Context) {
	here := map[string]bool{}
	for i := range p.topology.Nodes {
		n := &p.topology.Nodes[i]
		here[n.Name] = true
		if h := p.stores[n.Name]; h != nil && h.socket == n.StoreSocket {
			continue
		} else if h != nil {
			h.stop()
		}
		sctx, stop := context.WithCancel(ctx)
		s := newStore(n, p.cfg.Stores, func() { p.post(sctx, func() {}) })
		p.stores[n.Name] = &storeHandle{s, stop}
		p.group.Go(func() { s.run(sctx) })
	}
	for name, h := range p.stores {
		if !here[name] {
			h.stop()
			delete(p.stores, name)
		}
	}
}

var quotedType = regexp.MustCompile(`entity type "([^"]+)"`)

// noteRefusals remembers which type a store refused: the others must not wait for it.
func (p *plane) noteRefusals() {
	if p.rollout.target == nil {
		return
	}
	for _, s := range p.stores {
		err := s.get().refusal
		if err == nil {
			continue
		}
		m := quotedType.FindStringSubmatch(err.Error())
		if m == nil {
			continue
		}
		for _, t := range p.rollout.target.configure.GetTypes() {
			if t.GetType() == m[1] {
				if p.rollout.byStores == nil {
					p.rollout.byStores = map[string]storeRefusal{}
				}
				p.rollout.byStores[m[1]] = storeRefusal{encode(t), err}
			}
		}
	}
}

// aim makes the target where its input changed.
func (p *plane) aim(now time.Time) {
	in := input{topology: p.topology, placement: p.placement}
	if p.config.Mesh != nil {
		in.workloads = p.config.Mesh.Spec.Workloads
	}
	refused := map[string]error{}
	p.dropReplaced()
	served := map[string]bool{}
	for _, r := range p.services {
		if r.service != nil {
			served[r.good.Spec.Service] = true
		}
	}
	for _, s := range p.config.Services {
		r := p.services[s.Metadata.Name]
		if (r.service == nil || r.former()) && !served[s.Spec.Service] {
			in.waiting = append(in.waiting, s.Spec.Service)
		}
		if r.service == nil {
			continue
		}
		service := r.service
		if no, ok := p.rollout.byStores[service.Type.GetType()]; ok && bytes.Equal(no.form, encode(service.Type)) {
			refused[s.Metadata.Name] = no.err
			if service = p.rollout.members[s.Metadata.Name]; service == nil || bytes.Equal(no.form, encode(service.Type)) {
				continue
			}
		}
		in.members = append(in.members, member{
			name: s.Metadata.Name, workload: r.good.Spec.WorkloadRef.Name, service: service, former: r.former(),
		})
	}
	sum := in.hash()
	if p.rollout.target != nil && sum == p.rollout.in {
		return
	}
	out, no, err := checked(in, p.rollout.members, p.cfg.CheckFilter)
	p.rollout.in, p.rollout.broken = sum, err
	maps.Copy(refused, no)
	for name, err := range refused {
		p.log.Error("service refused", "service", name, "error", err)
	}
	p.rollout.refused = refused
	if err != nil {
		p.log.Error("configuration refused, the last good one stays", "error", err)
		return
	}
	p.rollout.target, p.rollout.stage, p.rollout.since = out, tellingStores, now
}

// dropReplaced ends former forms whose gRPC service another StatefulService has taken over.
func (p *plane) dropReplaced() {
	present := map[string]bool{}
	for _, r := range p.services {
		if r.service != nil && !r.former() {
			present[r.good.Spec.Service] = true
		}
	}
	for _, r := range p.services {
		if r.former() && present[r.good.Spec.Service] {
			r.service, r.good = nil, nil
		}
	}
}

// advance takes the next step of the rollout where its time has come.
func (p *plane) advance(now time.Time) {
	r := &p.rollout
	if r.target == nil {
		return
	}
	switch r.stage {
	case tellingStores:
		wish := union(r.applied, r.target)
		done := p.tellStores(wish)
		if !done && now.Sub(r.since) < storeGrace {
			return
		}
		p.tellEnvoys(now)
		r.stage, r.since = tellingEnvoys, now
	case tellingEnvoys:
		if now.Sub(r.since) < proxyGrace && !p.envoysSynced() {
			return
		}
		p.tellStores(r.target.configure)
		r.stage = idle
	case idle:
		// New stores of a node that came back.
		p.tellStores(r.target.configure)
	}
}

// tellStores reports whether all stores that are up have taken c.
func (p *plane) tellStores(c *storev1.Configure) bool {
	done := true
	for _, s := range p.stores {
		s.configure(c)
		now := s.get()
		done = done && (now.done || now.asked && !now.up)
	}
	return done
}

func (p *plane) tellEnvoys(now time.Time) {
	r := &p.rollout
	here := map[string]bool{}
	for _, res := range r.target.proxies {
		here[res.Proxy] = true
		if err := p.xds.Set(res); err != nil {
			p.log.Error("resources refused, the proxy keeps its last", "proxy", res.Proxy, "error", err)
		}
	}
	if r.applied != nil {
		for _, res := range r.applied.proxies {
			if !here[res.Proxy] {
				p.xds.Remove(res.Proxy)
			}
		}
	}
	r.applied, r.at = r.target, now
	r.members = map[string]*resolve.Service{}
	for _, m := range r.target.members {
		r.members[m.name] = m.service
	}
	p.log.Info("configuration handed to the proxies", "proxies", len(r.target.proxies), "epoch", p.placement.GetEpoch())
	p.save()
}

func (p *plane) envoysSynced() bool {
	for _, s := range p.xds.Status() {
		if s.Known && s.Connected && !s.Synced {
			return false
		}
	}
	return true
}

// save keeps what is applied now. The text is replaced only by one that is good in every part.
func (p *plane) save() {
	whole := len(p.rollout.refused) == 0
	for _, r := range p.services {
		whole = whole && r.err == nil && r.service != nil && !r.former()
	}
	if whole || p.goodSource == nil {
		p.goodSource = p.source
	}
	s, err := newSaved(p.config.Path, p.goodSource, p.rollout.applied.members, p.placement)
	if err == nil {
		err = s.write(p.cfg.StateDir)
	}
	if err != nil {
		p.log.Error("the last good configuration is not saved", "error", err)
	}
}

// union has the types of both: what Envoys use until they have taken the new configuration, and what they will use then.
func union(old, target *output) *storev1.Configure {
	out := proto.CloneOf(target.configure)
	if old == nil {
		return out
	}
	for _, t := range old.configure.GetTypes() {
		if !slices.ContainsFunc(out.GetTypes(), func(n *configv1.EntityType) bool { return n.GetType() == t.GetType() }) {
			out.Types = append(out.Types, t)
		}
	}
	return out
}

func encode(m proto.Message) []byte {
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		// Only strings that are no UTF-8 fail, and parsers on the way in refuse those.
		return nil
	}
	return raw
}

func (in *input) hash() [32]byte {
	h := sha256.New()
	enc := jsonEncoder(h)
	enc(in.topology)
	h.Write(encode(in.placement))
	enc(in.workloads)
	enc(in.waiting)
	for _, m := range in.members {
		enc([]any{m.name, m.workload, m.service.Digest, m.former})
		h.Write(encode(m.service.Type))
		h.Write(encode(m.service.Config))
	}
	return [32]byte(h.Sum(nil))
}
