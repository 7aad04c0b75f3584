package translate

import (
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	overridev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/override_host/v3"
	roundrobinv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/round_robin/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	metadatav3 "github.com/envoyproxy/go-control-plane/envoy/type/metadata/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/holdfast-mesh/holdfast/xds/ir"
)

const httpOptions = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

func edgeCluster(service string) string  { return "edge/" + service }
func localCluster(service string) string { return ir.LocalCluster(service) }
func workloadCluster(name string) string { return "workload/" + name }

// addService adds the clusters of a service. Nothing in them depends on the configuration: what changes are the
// endpoints, which Envoy takes without warming a cluster anew.
func (r *Resources) addService(s *ir.Service, edge, serve bool) error {
	if edge {
		name := edgeCluster(s.Name)
		c, err := cluster(name, true)
		if err != nil {
			return err
		}
		fallback, err := pack(&roundrobinv3.RoundRobin{})
		if err != nil {
			return err
		}
		if c.LoadBalancingPolicy, err = policy("envoy.load_balancing_policies.override_host", &overridev3.OverrideHost{
			OverrideHostSources: []*overridev3.OverrideHost_OverrideHostSource{{Metadata: &metadatav3.MetadataKey{
				Key:  "holdfast",
				Path: []*metadatav3.MetadataKey_PathSegment{{Segment: &metadatav3.MetadataKey_PathSegment_Key{Key: "hosts"}}},
			}}},
			FallbackPolicy: &clusterv3.LoadBalancingPolicy{Policies: []*clusterv3.LoadBalancingPolicy_Policy{{
				TypedExtensionConfig: &corev3.TypedExtensionConfig{Name: "envoy.load_balancing_policies.round_robin", TypedConfig: fallback},
			}}},
		}); err != nil {
			return err
		}
		// With the default of 50 % the fallback would turn to the replicas when most hosts are unhealthy.
		c.CommonLbConfig = &clusterv3.Cluster_CommonLbConfig{HealthyPanicThreshold: &typev3.Percent{Value: 0}}
		var all []*endpointv3.LbEndpoint
		for _, a := range s.Serve {
			all = append(all, endpoint(a, corev3.HealthStatus_UNKNOWN))
		}
		for _, a := range s.Local {
			all = append(all, endpoint(a, corev3.HealthStatus_UNHEALTHY))
		}
		r.addCluster(c, all)
	}
	if !serve {
		return nil
	}
	c, err := cluster(localCluster(s.Name), true)
	if err != nil {
		return err
	}
	var own []*endpointv3.LbEndpoint
	for _, a := range s.Local {
		own = append(own, endpoint(a, corev3.HealthStatus_UNKNOWN))
	}
	r.addCluster(c, own)
	return nil
}

func (r *Resources) addWorkload(w *ir.Workload) error {
	c, err := cluster(workloadCluster(w.Name), false)
	if err != nil {
		return err
	}
	var all []*endpointv3.LbEndpoint
	for _, a := range w.Addresses {
		all = append(all, endpoint(a, corev3.HealthStatus_UNKNOWN))
	}
	r.addCluster(c, all)
	return nil
}

func (r *Resources) addCluster(c *clusterv3.Cluster, endpoints []*endpointv3.LbEndpoint) {
	r.add(TypeCluster, c)
	r.add(TypeEndpoint, &endpointv3.ClusterLoadAssignment{
		ClusterName: c.Name,
		Endpoints:   []*endpointv3.LocalityLbEndpoints{{LbEndpoints: endpoints}},
	})
}

func cluster(name string, http2Upstream bool) (*clusterv3.Cluster, error) {
	explicit := &httpv3.HttpProtocolOptions_ExplicitHttpConfig{ProtocolConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_HttpProtocolOptions{
		HttpProtocolOptions: &corev3.Http1ProtocolOptions{},
	}}
	if http2Upstream {
		explicit.ProtocolConfig = &httpv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{
			Http2ProtocolOptions: http2(hopStreams, hopStreamWindow, hopConnectionWindow),
		}
	}
	options, err := pack(&httpv3.HttpProtocolOptions{
		UpstreamProtocolOptions: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_{ExplicitHttpConfig: explicit},
	})
	if err != nil {
		return nil, err
	}
	return &clusterv3.Cluster{
		Name:                 name,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		EdsClusterConfig:     &clusterv3.Cluster_EdsClusterConfig{EdsConfig: ads()},
		ConnectTimeout:       durationpb.New(connectTimeout),
		// Envoy's defaults (1,024 requests, 3 retries) would refuse watches, and retries while a node is down.
		CircuitBreakers: &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{{
			MaxConnections:     wrapperspb.UInt32(maxUpstream),
			MaxPendingRequests: wrapperspb.UInt32(maxUpstream),
			MaxRequests:        wrapperspb.UInt32(maxUpstream),
			MaxRetries:         wrapperspb.UInt32(maxUpstream),
		}}},
		PerConnectionBufferLimitBytes: wrapperspb.UInt32(maxStreamBuffer),
		TypedExtensionProtocolOptions: map[string]*anypb.Any{httpOptions: options},
	}, nil
}

func policy(name string, config proto.Message) (*clusterv3.LoadBalancingPolicy, error) {
	packed, err := pack(config)
	if err != nil {
		return nil, err
	}
	return &clusterv3.LoadBalancingPolicy{Policies: []*clusterv3.LoadBalancingPolicy_Policy{{
		TypedExtensionConfig: &corev3.TypedExtensionConfig{Name: name, TypedConfig: packed},
	}}}, nil
}

func endpoint(a string, health corev3.HealthStatus) *endpointv3.LbEndpoint {
	return &endpointv3.LbEndpoint{
		HealthStatus:   health,
		HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: address(a)}},
	}
}
