package main

import (
	"net"
	"strconv"
)

// plainConfig is an Envoy with the listener and the cluster that our control plane writes for a node's ingress, without our
// filters: what is left when Holdfast is taken away.
func plainConfig(port int, service string) any {
	type m = map[string]any
	type l = []any
	host, servicePort, _ := net.SplitHostPort(service)
	upstream, _ := strconv.Atoi(servicePort)
	return m{
		"static_resources": m{
			"listeners": l{m{
				"name":    "ingress",
				"address": socket("127.0.0.1", port),
				"filter_chains": l{m{"filters": l{m{
					"name": "envoy.filters.network.http_connection_manager",
					"typed_config": m{
						"@type":       "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
						"stat_prefix": "ingress",
						"route_config": m{"virtual_hosts": l{m{
							"name": "all", "domains": l{"*"},
							"routes": l{m{
								"match": m{"prefix": "/"},
								"route": m{
									"cluster": "counters", "timeout": "0s",
									"retry_policy": m{"retry_on": "connect-failure,refused-stream", "num_retries": 1},
								},
							}},
						}}},
						"http_filters": l{m{
							"name":         "envoy.filters.http.router",
							"typed_config": m{"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
						}},
					},
				}}}},
			}},
			"clusters": l{m{
				"name": "counters", "type": "STATIC", "connect_timeout": "0.25s",
				"typed_extension_protocol_options": m{"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": m{
					"@type":                "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
					"explicit_http_config": m{"http2_protocol_options": m{}},
				}},
				"load_assignment": m{"cluster_name": "counters", "endpoints": l{m{"lb_endpoints": l{m{
					"endpoint": m{"address": socket(host, upstream)},
				}}}}},
			}},
		},
	}
}

func socket(host string, port int) any {
	return map[string]any{"socket_address": map[string]any{"address": host, "port_value": port}}
}
