package filter

import (
	"errors"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/holdfast-mesh/holdfast/filter/entitykey"
	"github.com/holdfast-mesh/holdfast/internal/placement"
	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
)

// Config is a checked FilterConfig: what one listener of one Envoy does. It is immutable and safe for concurrent use.
type Config struct {
	// StoreSocket is the path of this node's store, "" where the listener serves nothing.
	StoreSocket string

	node     string
	edge     bool
	serve    bool
	services map[string]*service
	methods  map[string]*method
	table    *placement.Table
}

type service struct {
	name      string
	mode      configv1.Mode
	carriage  configv1.Carriage
	typ       *entityType
	cluster   string
	addresses []string
}

// here reports whether the address is one of this node's own replicas of the service.
func (s *service) here(address string) bool {
	for _, a := range s.addresses {
		if a == address {
			return true
		}
	}
	return false
}

type entityType struct {
	name     string
	model    configv1.Model
	strong   bool
	sticky   bool
	replicas int
	pass     bool
}

type method struct {
	service *service
	typ     *entityType
	path    string
	key     *entitykey.Extractor
	// others finds further entities, nil where the method has none.
	others   *entitykey.Others
	readOnly bool
	watch    bool
	// in and out are the marked fields' numbers, 0 where there is none; always 0 but for field carriage.
	in, out               uint32
	inWrapped, outWrapped bool
}

// ParseConfig parses and checks a serialised FilterConfig. A configuration that it takes never fails later.
func ParseConfig(raw []byte) (*Config, error) {
	p := &configv1.FilterConfig{}
	if err := proto.Unmarshal(raw, p); err != nil {
		return nil, fmt.Errorf("decode filter configuration: %w", err)
	}
	return NewConfig(p)
}

// NewConfig checks a FilterConfig. It keeps parts of p, which must not change afterwards.
func NewConfig(p *configv1.FilterConfig) (*Config, error) {
	c := &Config{
		StoreSocket: p.GetStoreSocket(),
		node:        p.GetNode(),
		edge:        p.GetEdge(),
		serve:       p.GetServe(),
		services:    map[string]*service{},
		methods:     map[string]*method{},
	}
	switch {
	case !c.edge && !c.serve:
		return nil, errors.New("filter configuration: neither edge nor serve")
	case c.serve && c.node == "":
		return nil, errors.New("filter configuration: serve needs a node name")
	case c.serve && c.StoreSocket == "":
		return nil, errors.New("filter configuration: serve needs a store socket")
	case !c.serve && c.StoreSocket != "":
		return nil, errors.New("filter configuration: a store socket where nothing is served")
	}
	types := map[string]*entityType{}
	for _, t := range p.GetTypes() {
		if types[t.GetType()] != nil {
			return nil, fmt.Errorf("entity type %q is configured twice", t.GetType())
		}
		typ, err := newType(t)
		if err != nil {
			return nil, fmt.Errorf("entity type %q: %w", t.GetType(), err)
		}
		types[typ.name] = typ
	}
	parts := map[*entityType]int{}
	for _, s := range p.GetServices() {
		if err := c.addService(s, types, parts); err != nil {
			return nil, fmt.Errorf("service %q: %w", s.GetName(), err)
		}
	}
	if err := c.place(p.GetPlacement()); err != nil {
		return nil, err
	}
	return c, nil
}

func newType(t *configv1.EntityType) (*entityType, error) {
	typ := &entityType{
		name:     t.GetType(),
		model:    t.GetModel(),
		strong:   t.GetConsistency() == configv1.Consistency_CONSISTENCY_STRONG,
		replicas: int(t.GetReplicas()),
		pass:     t.GetOnUnavailable() == configv1.OnUnavailable_ON_UNAVAILABLE_PASS,
	}
	typ.sticky = typ.strong || t.GetAffinity() == configv1.Affinity_AFFINITY_OWNER
	_, model := configv1.Model_name[int32(typ.model)]
	switch {
	case typ.name == "":
		return nil, errors.New("no name")
	case !model || typ.model == configv1.Model_MODEL_UNSPECIFIED:
		return nil, fmt.Errorf("unknown model %d", typ.model)
	case t.GetConsistency() < configv1.Consistency_CONSISTENCY_EVENTUAL || t.GetConsistency() > configv1.Consistency_CONSISTENCY_STRONG:
		return nil, fmt.Errorf("unknown consistency %d", t.GetConsistency())
	case typ.strong && typ.model != configv1.Model_MODEL_VALUE && typ.model != configv1.Model_MODEL_EVENT_SOURCED:
		return nil, fmt.Errorf("strong consistency needs the model value or event_sourced, not %v", typ.model)
	case !typ.strong && typ.model == configv1.Model_MODEL_EVENT_SOURCED:
		return nil, errors.New("the model event_sourced needs strong consistency")
	}
	return typ, nil
}

// own reports whether a message of the user's own type can carry the type's state: its value is then plain bytes.
func (t *entityType) own() bool {
	return t.model == configv1.Model_MODEL_VALUE || t.model == configv1.Model_MODEL_LWW
}

func (c *Config) addService(s *configv1.Service, types map[string]*entityType, parts map[*entityType]int) error {
	svc := &service{
		name:      s.GetName(),
		mode:      s.GetMode(),
		carriage:  s.GetCarriage(),
		typ:       types[s.GetEntityType()],
		cluster:   s.GetLocalCluster(),
		addresses: s.GetLocalAddresses(),
	}
	switch {
	case svc.name == "":
		return errors.New("no name")
	case c.services[svc.name] != nil:
		return errors.New("configured twice")
	case svc.mode < configv1.Mode_MODE_OBSERVE || svc.mode > configv1.Mode_MODE_COMMIT:
		return fmt.Errorf("unknown mode %d", svc.mode)
	case svc.typ == nil:
		return fmt.Errorf("entity type %q is not configured", s.GetEntityType())
	case svc.carriage < configv1.Carriage_CARRIAGE_METADATA_PROTO || svc.carriage > configv1.Carriage_CARRIAGE_FIELD:
		return fmt.Errorf("unknown carriage %d", svc.carriage)
	case !c.serve && len(svc.addresses) != 0:
		return errors.New("local addresses where nothing is served")
	}
	for _, a := range svc.addresses {
		if err := checkAddress(a); err != nil {
			return fmt.Errorf("local address: %w", err)
		}
	}
	c.services[svc.name] = svc
	for _, m := range s.GetMethods() {
		if err := c.addMethod(svc, m, parts); err != nil {
			return fmt.Errorf("method %q: %w", m.GetPath(), err)
		}
	}
	return nil
}

func (c *Config) addMethod(svc *service, m *configv1.Method, parts map[*entityType]int) error {
	key, err := entitykey.Compile(m.GetKey())
	if err != nil {
		return err
	}
	out := &method{service: svc, typ: svc.typ, path: m.GetPath(), key: key, readOnly: m.GetReadOnly(), watch: m.GetWatch()}
	if svc.carriage == configv1.Carriage_CARRIAGE_FIELD {
		out.in, out.out = m.GetStateInField(), m.GetStateOutField()
		out.inWrapped, out.outWrapped = m.GetStateInWrapped(), m.GetStateOutWrapped()
	}
	if len(m.GetOtherKeys()) > 0 {
		if out.others, err = entitykey.CompileOthers(m.GetOtherKeys()); err != nil {
			return err
		}
	}
	// proto's range of field numbers, without those that it keeps for itself.
	valid := func(n uint32) bool { return n < 1<<29 && (n < 19000 || n > 19999) }
	switch {
	case !strings.HasPrefix(out.path, "/"+svc.name+"/") || len(out.path) == len(svc.name)+2:
		return fmt.Errorf("path is not below /%s/", svc.name)
	case c.methods[out.path] != nil:
		return errors.New("configured twice")
	case !valid(out.in) || !valid(out.out):
		return errors.New("state field number out of range")
	case out.in != 0 && !out.inWrapped && !svc.typ.own():
		return fmt.Errorf("the state_in field of a %v has to be a holdfast.v1.StateIn", svc.typ.model)
	case out.out != 0 && !out.outWrapped && !svc.typ.own():
		return fmt.Errorf("the state_out field of a %v has to be a holdfast.v1.StateOut", svc.typ.model)
	case c.serve && out.watch && svc.cluster == "":
		return errors.New("a watch needs the service's local cluster")
	case out.others == nil:
	case !svc.typ.strong:
		return errors.New("only strong entities change several as one")
	case out.watch:
		return errors.New("a watch is of one entity")
	case key.Parts() != 1:
		return fmt.Errorf("a key of %d parts beside other keys", key.Parts())
	case out.in != 0 && !out.inWrapped:
		return errors.New("the state_in field of several entities has to be a holdfast.v1.StateIn")
	case out.out != 0 && !out.outWrapped:
		return errors.New("the state_out field of several entities has to be a holdfast.v1.StateOut")
	}
	// entitykey: keys of one part and of several may look alike, so one type may only have one kind.
	if n := parts[svc.typ]; n != 0 && n != key.Parts() {
		return fmt.Errorf("key has %d parts, other methods of %q have %d", key.Parts(), svc.typ.name, n)
	}
	parts[svc.typ] = key.Parts()
	c.methods[out.path] = out
	return nil
}

func (c *Config) place(p *configv1.Placement) error {
	if len(c.methods) == 0 && len(p.GetMembers()) == 0 {
		return nil
	}
	table, err := placement.New(p)
	if err != nil {
		return err
	}
	taken, self := map[string]bool{}, false
	for _, m := range p.GetMembers() {
		if err := checkAddress(m.GetServeAddress()); err != nil {
			return fmt.Errorf("placement member %q: serve address: %w", m.GetName(), err)
		}
		if taken[m.GetServeAddress()] {
			return fmt.Errorf("placement member %q: serve address %q is another member's", m.GetName(), m.GetServeAddress())
		}
		taken[m.GetServeAddress()] = true
		self = self || m.GetName() == c.node
	}
	if c.serve && !self {
		return fmt.Errorf("placement epoch %d does not list this node, %q", p.GetEpoch(), c.node)
	}
	c.table = table
	return nil
}

// checkAddress refuses what can't stand in a comma-separated list.
func checkAddress(a string) error {
	if a == "" || strings.ContainsAny(a, ", \t\r\n") {
		return fmt.Errorf("%q is no address", a)
	}
	return nil
}
