package resolve

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/holdfast-mesh/holdfast/controlplane/api/v1alpha1"
	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
)

// Service is a StatefulService with everything that its descriptors tell.
type Service struct {
	Type *configv1.EntityType
	// Config is the filter's view; what differs from node to node (local addresses) is not in it yet.
	Config *configv1.Service
	// Streaming holds the paths of the methods that answer with a stream.
	Streaming []string
	// Unkeyed holds the paths of the methods that pass untouched, since their requests have no key.
	Unkeyed []string
	// Parts is the number of parts of this service's keys.
	Parts int
	// REST says that at least one method has a google.api.http binding.
	REST        bool
	Descriptors *Descriptors
	// Digest pins the descriptors.
	Digest string
}

// compiler compiles one service. Its first error stops it.
type compiler struct {
	spec  *v1alpha1.ServiceSpec
	marks marks
	files *protoregistry.Files
	out   *Service
	// stateIn and stateOut count the marked fields that were found.
	stateIn, stateOut int
	// value is the message that a state field is of, where it is the user's own.
	value protoreflect.MessageDescriptor
}

// Compile checks s against its descriptors. An error names the method or field and the remedy.
func Compile(s *v1alpha1.StatefulService, d *Descriptors) (*Service, error) {
	files, sd, err := d.service(s.Spec.Service)
	if err != nil {
		return nil, fmt.Errorf("StatefulService %s: %w", s.Metadata.Name, err)
	}
	c := &compiler{spec: &s.Spec, marks: newMarks(files), files: files, out: &Service{
		Type: entityType(&s.Spec.Entity),
		Config: &configv1.Service{
			Name:       s.Spec.Service,
			Mode:       modes[s.Spec.Mode],
			EntityType: s.Spec.Entity.Type,
			Carriage:   carriage(&s.Spec.Entity.Carriage),
		},
		Descriptors: d,
		Digest:      d.Digest(),
	}}
	for i := range sd.Methods().Len() {
		if err := c.method(sd.Methods().Get(i)); err != nil {
			return nil, fmt.Errorf("StatefulService %s: method %s: %w", s.Metadata.Name, sd.Methods().Get(i).FullName(), err)
		}
	}
	if err := c.whole(); err != nil {
		return nil, fmt.Errorf("StatefulService %s: service %s: %w", s.Metadata.Name, s.Spec.Service, err)
	}
	return c.out, nil
}

func (c *compiler) method(m protoreflect.MethodDescriptor) error {
	path := fmt.Sprintf("/%s/%s", m.Parent().FullName(), m.Name())
	opts, _ := m.Options().(*descriptorpb.MethodOptions)
	c.out.REST = c.out.REST || proto.HasExtension(opts, annotations.E_Http)
	if m.IsStreamingServer() {
		c.out.Streaming = append(c.out.Streaming, path)
	}
	key, err := c.key(m.Input())
	if err != nil {
		return err
	}
	if key == nil {
		c.out.Unkeyed = append(c.out.Unkeyed, path)
		return nil
	}
	if m.IsStreamingClient() {
		return fmt.Errorf("has a key and streams its requests, which this version gives no state to; make it unary or server-streaming, or take the key off its request")
	}
	parts := max(1, len(key.GetFields()))
	if c.out.Parts != 0 && c.out.Parts != parts {
		return fmt.Errorf("has a key of %d parts, the methods before have %d; one entity type has one kind of key: mark the same fields in all requests", parts, c.out.Parts)
	}
	c.out.Parts = parts
	method := &configv1.Method{
		Path:     path,
		Key:      key,
		ReadOnly: m.IsStreamingServer() || opts.GetIdempotencyLevel() == descriptorpb.MethodOptions_NO_SIDE_EFFECTS,
		Watch:    m.IsStreamingServer(),
	}
	if c.out.Config.Carriage == configv1.Carriage_CARRIAGE_FIELD {
		if err := c.stateFields(m, method); err != nil {
			return err
		}
	}
	if err := c.others(m, method); err != nil {
		return err
	}
	c.out.Config.Methods = append(c.out.Config.Methods, method)
	return nil
}

func (c *compiler) whole() error {
	e := &c.spec.Entity
	if len(c.out.Config.Methods) == 0 {
		switch {
		case e.Key.Field != "":
			return fmt.Errorf("no request has a field %s; correct spec.entity.key.field", e.Key.Field)
		default:
			return fmt.Errorf("no request has a marked key; mark a field with (holdfast.v1.entity_key) = true, or write spec.entity.key: {field: PATH} or {header: NAME}")
		}
	}
	several := func(m *configv1.Method) bool { return len(m.GetOtherKeys()) > 0 }
	if len(e.Key.Others) > 0 && !slices.ContainsFunc(c.out.Config.Methods, several) {
		return fmt.Errorf("no request has a field of %s; correct spec.entity.key.others", strings.Join(e.Key.Others, ", "))
	}
	if err := c.valueMessage(); err != nil {
		return err
	}
	if c.out.Config.Carriage != configv1.Carriage_CARRIAGE_FIELD {
		return nil
	}
	switch mode := c.out.Config.Mode; {
	case mode >= configv1.Mode_MODE_ENRICH && c.stateIn == 0:
		return fmt.Errorf("no request has a field marked (holdfast.v1.state_in); mark one, or write carriage: {metadata: {encoding: json}}")
	case mode == configv1.Mode_MODE_COMMIT && c.stateOut == 0:
		return fmt.Errorf("no reply has a field marked (holdfast.v1.state_out); mark one, or write mode: enrich where nothing is ever changed")
	}
	return nil
}

var modes = map[string]configv1.Mode{
	v1alpha1.ModeObserve: configv1.Mode_MODE_OBSERVE,
	v1alpha1.ModeRoute:   configv1.Mode_MODE_ROUTE,
	v1alpha1.ModeEnrich:  configv1.Mode_MODE_ENRICH,
	v1alpha1.ModeCommit:  configv1.Mode_MODE_COMMIT,
}

var models = map[string]configv1.Model{
	v1alpha1.ModelValue:        configv1.Model_MODEL_VALUE,
	v1alpha1.ModelEventSourced: configv1.Model_MODEL_EVENT_SOURCED,
	v1alpha1.ModelGCounter:     configv1.Model_MODEL_GCOUNTER,
	v1alpha1.ModelPNCounter:    configv1.Model_MODEL_PNCOUNTER,
	v1alpha1.ModelBCounter:     configv1.Model_MODEL_BCOUNTER,
	v1alpha1.ModelGSet:         configv1.Model_MODEL_GSET,
	v1alpha1.ModelORSet:        configv1.Model_MODEL_ORSET,
	v1alpha1.ModelLWW:          configv1.Model_MODEL_LWW,
	v1alpha1.ModelMVRegister:   configv1.Model_MODEL_MVREGISTER,
	v1alpha1.ModelFlag:         configv1.Model_MODEL_FLAG,
	v1alpha1.ModelVote:         configv1.Model_MODEL_VOTE,
	v1alpha1.ModelORMap:        configv1.Model_MODEL_ORMAP,
}

// encodings has no entry for bytes: of those nothing is known.
var encodings = map[string]configv1.ValueEncoding{
	v1alpha1.EncodingJSON:  configv1.ValueEncoding_VALUE_ENCODING_JSON,
	v1alpha1.EncodingProto: configv1.ValueEncoding_VALUE_ENCODING_PROTO,
}

// writes has no entry for the empty word: strong types have no level.
var writes = map[string]configv1.WriteLevel{
	v1alpha1.WriteLocal:    configv1.WriteLevel_WRITE_LEVEL_LOCAL,
	v1alpha1.WriteLocalMem: configv1.WriteLevel_WRITE_LEVEL_LOCAL_MEM,
	v1alpha1.WriteMajority: configv1.WriteLevel_WRITE_LEVEL_MAJORITY,
	v1alpha1.WriteAll:      configv1.WriteLevel_WRITE_LEVEL_ALL,
}

func carriage(c *v1alpha1.Carriage) configv1.Carriage {
	switch {
	case c.Field != nil:
		return configv1.Carriage_CARRIAGE_FIELD
	case c.Metadata != nil && c.Metadata.Encoding == v1alpha1.EncodingJSON:
		return configv1.Carriage_CARRIAGE_METADATA_JSON
	}
	// observe and route need none; the filter wants to be told one.
	return configv1.Carriage_CARRIAGE_METADATA_PROTO
}

func entityType(e *v1alpha1.Entity) *configv1.EntityType {
	t := &configv1.EntityType{
		Type:           e.Type,
		Model:          models[e.Model.Name()],
		Write:          writes[e.Write],
		Consistency:    configv1.Consistency_CONSISTENCY_EVENTUAL,
		Affinity:       configv1.Affinity_AFFINITY_LOCAL,
		Replicas:       uint32(e.Replicas),
		MaxStateBytes:  uint32(e.MaxStateBytes),
		OnUnavailable:  configv1.OnUnavailable_ON_UNAVAILABLE_FAIL,
		PassivateAfter: durationpb.New(time.Duration(e.PassivateAfter)),
	}
	if e.Consistency == v1alpha1.ConsistencyStrong {
		t.Consistency = configv1.Consistency_CONSISTENCY_STRONG
	}
	if e.Affinity == v1alpha1.AffinityOwner {
		t.Affinity = configv1.Affinity_AFFINITY_OWNER
	}
	if e.OnUnavailable == v1alpha1.OnUnavailablePass {
		t.OnUnavailable = configv1.OnUnavailable_ON_UNAVAILABLE_PASS
	}
	if e.TTL != 0 {
		t.Ttl = durationpb.New(time.Duration(e.TTL))
		t.TtlByUse = e.TTLFrom == v1alpha1.TTLFromUse
	}
	if v := e.Model.Value; v != nil {
		t.ValueEncoding = encodings[v.Encoding]
	}
	if s := e.Model.EventSourced; s != nil {
		t.SnapshotEvery, t.Folded = uint32(s.SnapshotEvery), s.State == v1alpha1.StateFolded
	}
	if e.Model.ORMap != nil {
		t.Values = shape(e.Model.ORMap.Values)
	}
	if e.Model.BCounter != nil {
		t.Floor = e.Model.BCounter.Floor
	}
	return t
}

func shape(m *v1alpha1.Model) *configv1.Shape {
	s := &configv1.Shape{Model: models[m.Name()]}
	if m.ORMap != nil {
		s.Values = shape(m.ORMap.Values)
	}
	return s
}

// Beside lists the well-known services that the process answers too.
func (s *Service) Beside(known ...string) []string {
	var out []string
	for _, name := range known {
		if slices.Contains(s.Descriptors.Listed, name) {
			out = append(out, name)
		}
	}
	return out
}
