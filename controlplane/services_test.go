package controlplane

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"

	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/holdfast-mesh/holdfast/controlplane/admin"
	"github.com/holdfast-mesh/holdfast/controlplane/api/v1alpha1"
	"github.com/holdfast-mesh/holdfast/controlplane/resolve"
)

func healthDescriptors() *resolve.Descriptors {
	file := protodesc.ToFileDescriptorProto(healthv1.File_grpc_health_v1_health_proto)
	return &resolve.Descriptors{
		Set:    &descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{file}},
		Listed: []string{"grpc.health.v1.Health"},
	}
}

// healthSpec is the health service's StatefulService with pairs of old and new text exchanged.
func healthSpec(t *testing.T, change ...string) *v1alpha1.StatefulService {
	t.Helper()
	more := strings.Replace(yamlFor("commit", "demo.Check"), "  - {name: page", "  - {name: other, command: [other]}\n  - {name: page", 1)
	c, err := v1alpha1.Parse("holdfast.yaml", []byte(strings.NewReplacer(change...).Replace(more)))
	if err != nil {
		t.Fatal(err)
	}
	return c.Services[0]
}

// A service that was good stays as it was until its new configuration is good too.
func TestFormerFormStays(t *testing.T) {
	const health = "grpc.health.v1.Health"
	typo := []string{"service: grpc.health.v1.Health", "service: grpc.health.v1.Helth"}
	missing := errors.New("the process has no service")
	for _, c := range []struct {
		name   string
		change []string
		// then is what is learnt of the descriptors after the change.
		then     func(*resolution)
		state    string
		err      string
		workload string
	}{
		{"nothing changed", nil, nil, admin.ServiceOK, "", "checks"},
		{"a mode changed", []string{"mode: commit", "mode: route"}, nil, admin.ServiceOK, "", "checks"},
		{"wrong key", []string{"field: service", "field: servise"}, nil, admin.ServiceStale, "no request has a field servise", "checks"},
		{"misspelt service, not asked yet", typo, nil, admin.ServiceStale, "being asked for; " + health + " goes on", "checks"},
		{"misspelt service, not listed", typo, func(r *resolution) { r.unavailable = missing }, admin.ServiceStale, missing.Error(), "checks"},
		{"misspelt service, not described", typo, func(r *resolution) { r.err = missing }, admin.ServiceStale, missing.Error(), "checks"},
		{"misspelt service, descriptors without it", typo, func(r *resolution) { r.setDescriptors(healthDescriptors()) }, admin.ServiceStale, "no service grpc.health.v1.Helth", "checks"},
		{"a workload without it", []string{"Local, name: checks", "Local, name: other"}, func(r *resolution) { r.unavailable = missing }, admin.ServiceStale, missing.Error(), "checks"},
		{"a workload with it", []string{"Local, name: checks", "Local, name: other"}, func(r *resolution) { r.setDescriptors(healthDescriptors()) }, admin.ServiceOK, "", "other"},
		{"a file that is not there", []string{"spec:\n  service", "spec:\n  descriptors: {file: none.binpb}\n  service"}, func(r *resolution) { r.unavailable = missing }, admin.ServiceStale, missing.Error(), "checks"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := &resolution{spec: healthSpec(t)}
			r.setSpec(r.spec)
			r.setDescriptors(healthDescriptors())
			if state, err := r.state(); state != admin.ServiceOK {
				t.Fatalf("got %s, %v", state, err)
			}
			r.setSpec(healthSpec(t, c.change...))
			if c.then != nil {
				c.then(r)
			}
			state, err := r.state()
			if state != c.state || !strings.Contains(text(err), c.err) || (err == nil) != (c.err == "") {
				t.Errorf("got %s, %v; want %s, %q", state, err, c.state, c.err)
			}
			if got := r.good.Spec.WorkloadRef.Name; r.service.Config.GetName() != health || got != c.workload {
				t.Errorf("got %s at %s, want it at %s", r.service.Config.GetName(), got, c.workload)
			}
			// Corrected, it needs nobody's answer.
			r.setSpec(healthSpec(t))
			if state, err := r.state(); state != admin.ServiceOK && c.workload == "checks" {
				t.Errorf("corrected: got %s, %v", state, err)
			}
		})
	}
}

func TestNoFormerForm(t *testing.T) {
	r := &resolution{spec: healthSpec(t, "v1.Health", "v1.Helth")}
	r.setSpec(r.spec)
	if state, err := r.state(); state != admin.ServiceWaiting {
		t.Errorf("got %s, %v", state, err)
	}
	r.setDescriptors(healthDescriptors())
	if state, err := r.state(); state != admin.ServiceRefused {
		t.Errorf("got %s, %v", state, err)
	}
}

// A former form ends where another StatefulService has its gRPC service.
func TestFormerFormIsReplaced(t *testing.T) {
	former, present := &resolution{spec: healthSpec(t)}, &resolution{spec: healthSpec(t)}
	former.setSpec(former.spec)
	former.setDescriptors(healthDescriptors())
	former.setSpec(healthSpec(t, "v1.Health", "v1.Other"))
	p := &plane{services: map[string]*resolution{"checks": former, "new": present}}
	present.setSpec(present.spec)
	if p.dropReplaced(); former.service == nil {
		t.Fatal("dropped before the other was there")
	}
	present.setDescriptors(healthDescriptors())
	if p.dropReplaced(); former.service != nil || present.service == nil {
		t.Errorf("got %v, %v", former.service, present.service)
	}
}

func TestMisspeltServiceOfARunningMesh(t *testing.T) {
	r := newRig(t)
	good := yamlFor("commit", "demo.Check")
	typo := strings.Replace(good, "v1.Health", "v1.Helth", 1)
	r.write(good)
	r.mesh(healthService(t), "node-1")
	r.stores.set("/node-1/store", true, "a")
	r.start()
	r.until("applied", applied("node-1"))

	stale := func(c admin.Config) bool {
		s := c.Services[0]
		return s.State == admin.ServiceStale && strings.Contains(s.Error, "has no service grpc.health.v1.Helth") &&
			slices.Contains(s.Methods, "/grpc.health.v1.Health/Check") && r.stores.types("/node-1/store") == "demo.Check"
	}
	r.write(typo)
	r.until("told, and as before", stale)
	// So it is for a control plane that starts with the mistake in the file.
	r.stop()
	r.stores.set("/node-1/store", true, "b")
	r.start()
	r.until("told, and as before, after a new start", func(c admin.Config) bool { return applied("node-1")(c) && stale(c) })
	r.write(good)
	r.until("good again", func(c admin.Config) bool { return c.Services[0].State == admin.ServiceOK })
	// What is removed goes.
	r.write(typo)
	r.until("told again", stale)
	r.write(good[strings.Index(good, "---\n"):])
	r.until("removed", func(c admin.Config) bool {
		return len(c.Services) == 0 && r.stores.types("/node-1/store") == ""
	})
}
