package controlplane

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/holdfast-mesh/holdfast/controlplane/admin"
	"github.com/holdfast-mesh/holdfast/controlplane/resolve"
	"github.com/holdfast-mesh/holdfast/internal/placement"
	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	"github.com/holdfast-mesh/holdfast/xds/serve"
)

// view is what the admin API shows: a copy that nobody changes.
type view struct {
	config admin.Config
	ready  error
	// sockets of the stores by node, the placement and the types, for Inspect.
	sockets   map[string]string
	placement *configv1.Placement
	types     map[string]*configv1.EntityType
	// descriptors of the services with an entity type, for what their events say.
	descriptors map[string][]*resolve.Descriptors
}

// publish replaces the view.
func (p *plane) publish() {
	r := &p.rollout
	v := &view{sockets: map[string]string{}, placement: p.placement, types: map[string]*configv1.EntityType{}, descriptors: map[string][]*resolve.Descriptors{}}
	c := &v.config
	c.Error, c.TopologyError, c.PlacementError = text(p.configErr), text(p.topologyErr), text(p.placementErr)
	if c.Error == "" {
		c.Error = text(r.broken)
	}
	c.Accepted = c.Error == "" && p.config != nil
	c.Nodes, c.Ingresses, c.Services, c.Stores = []string{}, map[string]string{}, []admin.Service{}, []admin.Store{}
	if r.applied != nil {
		c.Applied, c.Nodes = r.at, r.applied.nodes
		for _, t := range r.applied.configure.GetTypes() {
			v.types[t.GetType()] = t
		}
	}
	if p.topology != nil {
		c.Gateway = p.topology.Gateway.Address
		for _, n := range p.topology.Nodes {
			c.Ingresses[n.Name] = n.Ingress
			v.sockets[n.Name] = n.StoreSocket
		}
	}
	if p.config != nil {
		for _, s := range p.config.Services {
			r := p.services[s.Metadata.Name]
			c.Services = append(c.Services, p.serviceView(r))
			if typ := s.Spec.Entity.Type; r.service != nil {
				v.descriptors[typ] = append(v.descriptors[typ], r.service.Descriptors)
			}
		}
	}
	if p.placement != nil {
		c.Placement = &admin.Placement{Epoch: p.placement.GetEpoch()}
		for _, m := range p.placement.GetMembers() {
			c.Placement.Members = append(c.Placement.Members, m.GetName())
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.stores)) {
		c.Stores = append(c.Stores, storeView(p.stores[name].get()))
	}
	v.ready = p.notReady()
	p.view.Store(v)
}

func (p *plane) notReady() error {
	switch {
	case p.rollout.applied != nil:
		return nil
	case p.config == nil && p.configErr != nil:
		return p.configErr
	case p.config == nil:
		return errors.New("the configuration is not read yet")
	case p.topology == nil:
		return errors.New("the topology is not known yet")
	case p.placement == nil && p.placementErr != nil:
		return p.placementErr
	case p.placement == nil:
		return errors.New("the placement is not known yet")
	case p.rollout.broken != nil:
		return p.rollout.broken
	}
	return errors.New("services and stores are being asked")
}

func (p *plane) serviceView(r *resolution) admin.Service {
	out := admin.Service{
		Name: r.spec.Metadata.Name, Service: r.spec.Spec.Service, EntityType: r.spec.Spec.Entity.Type, Mode: r.spec.Spec.Mode,
		Methods: []string{}, Unkeyed: []string{},
	}
	state, err := r.state()
	if refusal := p.rollout.refused[out.Name]; refusal != nil {
		state, err = admin.ServiceRefused, refusal
		if p.rollout.members[out.Name] != nil {
			state = admin.ServiceStale
		}
	}
	out.State, out.Error = state, text(err)
	if r.service == nil {
		return out
	}
	out.Digest, out.REST = r.service.Digest, r.service.REST
	for _, m := range r.service.Config.GetMethods() {
		out.Methods = append(out.Methods, m.GetPath())
	}
	out.Unkeyed = append(out.Unkeyed, r.service.Unkeyed...)
	if p.rollout.target != nil {
		if err := p.rollout.target.restErrors[out.Service]; err != nil {
			out.REST, out.RESTError = false, err.Error()
		}
	}
	return out
}

func storeView(s storeState) admin.Store {
	out := admin.Store{Node: s.node, Up: s.up, Configured: s.done, Error: text(errors.Join(s.err, s.refusal))}
	if s.status != nil {
		if raw, err := protojson.Marshal(s.status); err == nil {
			out.Status = raw
		}
	}
	return out
}

// Proxies implements admin.Source.
func (p *plane) Proxies() []serve.ProxyStatus { return p.xds.Status() }

// Config implements admin.Source.
func (p *plane) Config() admin.Config { return p.view.Load().config }

// Ready implements admin.Source.
func (p *plane) Ready() error { return p.view.Load().ready }

// Inspect implements admin.Source: it asks every store at once.
func (p *plane) Inspect(ctx context.Context, entityType, key string) (*admin.Key, error) {
	v := p.view.Load()
	t := v.types[entityType]
	if t == nil {
		return nil, fmt.Errorf("%w: no configured service has the entity type %s (configured: %v)", admin.ErrNotFound, entityType, slices.Sorted(maps.Keys(v.types)))
	}
	slot := placement.Slot(entityType, key)
	out := &admin.Key{
		Type: entityType, Key: key, Slot: slot, Epoch: v.placement.GetEpoch(), Consistency: consistencies[t.GetConsistency()],
		Replicas: []string{}, Copies: []admin.Copy{},
	}
	table, err := placement.New(v.placement)
	if err != nil {
		return nil, err
	}
	for _, m := range table.Replicas(slot, int(t.GetReplicas())) {
		out.Replicas = append(out.Replicas, m.GetName())
	}
	answers := make([]*storev1.Inspection, len(table.Members()))
	errs := make([]error, len(answers))
	names := make([]string, 0, len(answers))
	var wait sync.WaitGroup
	for m := range table.Order(slot) {
		i := len(names)
		names = append(names, m.GetName())
		wait.Go(func() { answers[i], errs[i] = p.inspect(ctx, v.sockets[m.GetName()], entityType, key) })
	}
	wait.Wait()
	for i, name := range names {
		out.Copies = append(out.Copies, copyOf(name, out, answers[i], errs[i]))
	}
	summarise(out, answers)
	out.Compare()
	if len(errs) > 0 && !slices.Contains(errs, nil) {
		return nil, fmt.Errorf("no store answers: %w", errs[0])
	}
	return out, nil
}

// copyOf is what one store says of key, or why it says nothing.
func copyOf(node string, key *admin.Key, a *storev1.Inspection, err error) admin.Copy {
	c := admin.Copy{
		Node: node, Exists: a.GetState().GetExists(), Version: a.GetState().GetVersion(), Active: a.GetActive(),
		Value: valueJSON(a.GetState()), Role: a.GetRole(), Error: text(err),
	}
	if key.Consistency == consistencies[configv1.Consistency_CONSISTENCY_STRONG] {
		return c
	}
	if a == nil {
		// It can't say itself; what the placement says is known.
		c.Role = admin.RoleNone
		if slices.Contains(key.Replicas, node) {
			c.Role = admin.RolePlaced
		}
		return c
	}
	c.Hash = fmt.Sprintf("%016x", a.GetHash())
	for _, s := range a.GetSeen() {
		c.Seen = append(c.Seen, admin.Seen{Replica: s.GetReplica(), Node: s.GetNode(), Upto: s.GetUpto(), Beyond: s.GetBeyond()})
	}
	return c
}

func (p *plane) inspect(ctx context.Context, socket, entityType, key string) (*storev1.Inspection, error) {
	if socket == "" {
		return nil, errors.New("the node has left")
	}
	resp, err := callStore(ctx, p.cfg.Stores, socket, &storev1.Request{Call: &storev1.Request_Inspect{
		Inspect: &storev1.Inspect{Entity: &storev1.Entity{Type: entityType, Key: key}},
	}})
	if err != nil {
		return nil, err
	}
	return resp.GetInspection(), nil
}

// summarise fills in what is said of the entity as a whole: by its owner where it has one and that answered, else by the
// first replica that did.
func summarise(out *admin.Key, answers []*storev1.Inspection) {
	best := -1
	for i, a := range answers {
		if a == nil {
			continue
		}
		if a.GetOwner() != "" {
			out.Owner = a.GetOwner()
		}
		if best < 0 && slices.Contains(out.Replicas, out.Copies[i].Node) {
			best = i
		}
	}
	for i := range answers {
		if answers[i] != nil && out.Copies[i].Node == out.Owner {
			best = i
		}
	}
	if best < 0 {
		return
	}
	c := out.Copies[best]
	out.Exists, out.Value, out.Version, out.Active = c.Exists, c.Value, c.Version, c.Active
}

func valueJSON(s *storev1.State) json.RawMessage {
	if !s.GetExists() || s.GetValue() == nil {
		return nil
	}
	raw, err := protojson.Marshal(s.GetValue())
	if err != nil {
		return nil
	}
	return raw
}

var consistencies = map[configv1.Consistency]string{
	configv1.Consistency_CONSISTENCY_EVENTUAL: "eventual",
	configv1.Consistency_CONSISTENCY_CAUSAL:   "causal",
	configv1.Consistency_CONSISTENCY_STRONG:   "strong",
}

// jsonEncoder writes plain structures for a hash.
func jsonEncoder(w io.Writer) func(any) {
	enc := json.NewEncoder(w)
	return func(v any) {
		if err := enc.Encode(v); err != nil {
			// Structures of strings and numbers can't fail.
			fmt.Fprintf(w, "%v %d", err, time.Now().UnixNano())
		}
	}
}
