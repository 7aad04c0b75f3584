// Package bootstrap builds the file that an Envoy of ours starts with: who it is, where its control plane is, and nothing
// that traffic needs. All else comes by ADS.
//
// It is pure. Whoever starts an Envoy writes the bytes to a file, and starts it with GODEBUG=cgocheck=0 (without it
// Envoy aborts when it loads the filter) and with ENVOY_DYNAMIC_MODULES_SEARCH_PATH set to the filter's folder.
//
// An Envoy that never reached its control plane stays not ready: it has no listeners, and waits. One that did keeps
// what it was told last for as long as it lives.
package bootstrap

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path/filepath"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	metricsv3 "github.com/envoyproxy/go-control-plane/envoy/config/metrics/v3"
	overloadv3 "github.com/envoyproxy/go-control-plane/envoy/config/overload/v3"
	downstreamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/downstream_connections/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// XDSCluster is the name of the static cluster that leads to the control plane.
const XDSCluster = "holdfast_xds"

// Config says who an Envoy is.
type Config struct {
	// NodeName is the node's name in the topology ("node-1", "gateway"): the key of its resources at the control plane.
	NodeName string
	// XDSSocket is the path of the control plane's Unix socket.
	XDSSocket string
	// AdminSocket is the path of the Unix socket that Envoy's admin page listens on. Its folder must be private: whoever
	// reaches it can stop Envoy.
	AdminSocket string
}

// JSON returns the bootstrap file.
func JSON(c Config) ([]byte, error) {
	if c.NodeName == "" {
		return nil, fmt.Errorf("bootstrap: NodeName is empty")
	}
	for name, path := range map[string]string{"XDSSocket": c.XDSSocket, "AdminSocket": c.AdminSocket} {
		switch {
		case !filepath.IsAbs(path):
			return nil, fmt.Errorf("bootstrap: %s %q is not an absolute path", name, path)
		case len(path) > maxSocketPath:
			return nil, fmt.Errorf("bootstrap: %s %q has %d bytes; a Unix socket's path holds %d: use a shorter folder", name, path, len(path), maxSocketPath)
		}
	}
	b, err := build(c)
	if err != nil {
		return nil, fmt.Errorf("bootstrap: %w", err)
	}
	if err := b.ValidateAll(); err != nil {
		return nil, fmt.Errorf("bootstrap: %w", err)
	}
	raw, err := protojson.Marshal(b)
	if err != nil {
		return nil, fmt.Errorf("bootstrap: %w", err)
	}
	// protojson varies its white space on purpose; the file must not.
	var out bytes.Buffer
	if err := json.Indent(&out, raw, "", "  "); err != nil {
		return nil, fmt.Errorf("bootstrap: %w", err)
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}

func build(c Config) (*bootstrapv3.Bootstrap, error) {
	xds, err := xdsCluster(c.XDSSocket)
	if err != nil {
		return nil, err
	}
	connections, err := anypb.New(&downstreamv3.DownstreamConnectionsConfig{MaxActiveDownstreamConnections: maxDownstreamConnections})
	if err != nil {
		return nil, err
	}
	// An Envoy without a control plane waits for its listeners as long as it takes; the default would give up after 15 s.
	ads := func() *corev3.ConfigSource {
		return &corev3.ConfigSource{
			ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
			ResourceApiVersion:    corev3.ApiVersion_V3,
			InitialFetchTimeout:   durationpb.New(0),
		}
	}
	return &bootstrapv3.Bootstrap{
		Node:            &corev3.Node{Id: c.NodeName, Cluster: "holdfast"},
		StaticResources: &bootstrapv3.Bootstrap_StaticResources{Clusters: []*clusterv3.Cluster{xds}},
		DynamicResources: &bootstrapv3.Bootstrap_DynamicResources{
			LdsConfig: ads(),
			CdsConfig: ads(),
			AdsConfig: &corev3.ApiConfigSource{
				ApiType:             corev3.ApiConfigSource_DELTA_GRPC,
				TransportApiVersion: corev3.ApiVersion_V3,
				GrpcServices: []*corev3.GrpcService{{
					TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{
						ClusterName: XDSCluster,
						RetryPolicy: &corev3.RetryPolicy{RetryBackOff: &corev3.BackoffStrategy{
							BaseInterval: durationpb.New(xdsRetryBase),
							MaxInterval:  durationpb.New(xdsRetryMax),
						}},
					}},
				}},
				SetNodeOnFirstMessageOnly: true,
			},
		},
		Admin: &bootstrapv3.Admin{
			// The page must answer when callers have used up all connections.
			IgnoreGlobalConnLimit: true,
			Address:               &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: c.AdminSocket, Mode: 0o600}}},
		},
		LayeredRuntime: &bootstrapv3.LayeredRuntime{Layers: []*bootstrapv3.RuntimeLayer{{
			Name: "holdfast",
			LayerSpecifier: &bootstrapv3.RuntimeLayer_StaticLayer{StaticLayer: &structpb.Struct{Fields: map[string]*structpb.Value{
				// Ring hash was broken in 1.38.0 with this on.
				"envoy.reloadable_features.coalesce_lb_rebuilds_on_batch_update": structpb.NewBoolValue(false),
			}}},
		}}},
		OverloadManager: &overloadv3.OverloadManager{ResourceMonitors: []*overloadv3.ResourceMonitor{{
			Name:       "envoy.resource_monitors.global_downstream_max_connections",
			ConfigType: &overloadv3.ResourceMonitor_TypedConfig{TypedConfig: connections},
		}}},
		StatsConfig:        &metricsv3.StatsConfig{UseAllDefaultTags: wrapperspb.Bool(true)},
		StatsFlushInterval: durationpb.New(statsFlushInterval),
	}, nil
}

func xdsCluster(socket string) (*clusterv3.Cluster, error) {
	options, err := anypb.New(&httpv3.HttpProtocolOptions{
		UpstreamProtocolOptions: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_{
			ExplicitHttpConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig{
				ProtocolConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{
					Http2ProtocolOptions: &corev3.Http2ProtocolOptions{ConnectionKeepalive: &corev3.KeepaliveSettings{
						Interval: durationpb.New(xdsKeepAliveInterval),
						Timeout:  durationpb.New(xdsKeepAliveTimeout),
					}},
				},
			},
		},
	})
	if err != nil {
		return nil, err
	}
	return &clusterv3.Cluster{
		Name:                          XDSCluster,
		ClusterDiscoveryType:          &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		ConnectTimeout:                durationpb.New(connectTimeout),
		TypedExtensionProtocolOptions: map[string]*anypb.Any{"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options},
		LoadAssignment: &endpointv3.ClusterLoadAssignment{
			ClusterName: XDSCluster,
			Endpoints: []*endpointv3.LocalityLbEndpoints{{LbEndpoints: []*endpointv3.LbEndpoint{{
				HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{
					Address: &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: socket}}},
				}},
			}}}},
		},
	}, nil
}
