package controlplane

import (
	"errors"
	"strings"
	"testing"

	"github.com/holdfast-mesh/holdfast/controlplane/resolve"
	"github.com/holdfast-mesh/holdfast/internal/mesh"
	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
)

// valued is a service whose values are a protobuf message.
func valued(name, message string, former bool) member {
	return member{name: name, workload: "w", former: former, service: &resolve.Service{
		Type: &configv1.EntityType{
			Type: "t.Thing", Model: configv1.Model_MODEL_VALUE, Consistency: configv1.Consistency_CONSISTENCY_STRONG,
			ValueEncoding: configv1.ValueEncoding_VALUE_ENCODING_PROTO, ValueMessage: message, ValueDescriptors: []byte("of " + message),
		},
		Config: &configv1.Service{
			Name: "t.v1." + name, Mode: configv1.Mode_MODE_COMMIT, EntityType: "t.Thing", Carriage: configv1.Carriage_CARRIAGE_METADATA_PROTO,
		},
		Descriptors: &resolve.Descriptors{},
	}}
}

func valuesInput(members ...member) input {
	return input{
		topology: &mesh.Topology{Nodes: []mesh.Node{{Name: "n1", Ingress: "127.0.0.1:1", ServeSocket: "/serve", StoreSocket: "/store"}}},
		placement: &configv1.Placement{Epoch: 1, Seed: 1, Members: []*configv1.Member{
			{Name: "n1", Weight: 1, ServeAddress: "/serve", PeerAddress: "unix:/peer"},
		}},
		members: members,
	}
}

// Stores are told what a value's message is like, filters are not.
func TestValueDescriptorsAreForStores(t *testing.T) {
	out, err := assemble(valuesInput(valued("A", "t.v1.State", false)))
	if err != nil {
		t.Fatal(err)
	}
	if got := string(out.configure.GetTypes()[0].GetValueDescriptors()); got != "of t.v1.State" {
		t.Errorf("stores are told %q", got)
	}
	for _, raw := range out.filters {
		if strings.Contains(string(raw), "of t.v1.State") || !strings.Contains(string(raw), "t.v1.State") {
			t.Errorf("a filter is told %q", raw)
		}
	}
	if len(out.filters) != 2 {
		t.Errorf("got %d filters", len(out.filters))
	}
}

func TestOneTypeTwoMessages(t *testing.T) {
	out, refused, err := checked(valuesInput(valued("A", "t.v1.State", false), valued("B", "t.v1.Other", false)), nil, func([]byte) error { return nil })
	if err != nil || len(out.members) != 1 {
		t.Fatalf("got %v, %v", out, err)
	}
	const want = "StatefulService B: the values of t.Thing are of the message t.v1.Other, and StatefulService A says t.v1.State"
	if got := refused["B"]; got == nil || !strings.HasPrefix(got.Error(), want) {
		t.Errorf("got %v, want %s", errors.Join(refused["A"], got), want)
	}
	if out, err := assemble(valuesInput(valued("A", "t.v1.Old", true), valued("B", "t.v1.Other", false))); err != nil || out.configure.GetTypes()[0].GetValueMessage() != "t.v1.Other" {
		t.Errorf("a former form: got %v, %v", out, err)
	}
}
