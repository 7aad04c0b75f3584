package main

import (
	"net"
	"strconv"
)

type (
	object = map[string]any
	list   = []any
)

// plainConfig is an Envoy with the settings that our control plane gives a node's ingress (xds/translate), but without
// anything of ours: no transcoder, no filter, no stripping of headers, no choice of hosts. What ours costs is the difference.
func plainConfig(port int, service string) any {
	host, servicePort, _ := net.SplitHostPort(service)
	upstream, _ := strconv.Atoi(servicePort)
	keepAlive := object{"interval": "20s", "timeout": "10s"}
	return object{"static_resources": object{
		"listeners": list{object{
			"name": "edge", "address": socket("127.0.0.1", port),
			"per_connection_buffer_limit_bytes": 5242880, "enable_reuse_port": false,
			"filter_chains": list{object{"filters": list{object{
				"name": "envoy.filters.network.http_connection_manager",
				"typed_config": object{
					"@type":        "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
					"stat_prefix":  "edge",
					"route_config": object{"name": "edge", "virtual_hosts": list{object{"name": "all", "domains": list{"*"}, "routes": plainRoutes()}}},
					"http_filters": list{object{
						"name": "envoy.filters.http.router",
						"typed_config": object{
							"@type":                  "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
							"suppress_envoy_headers": true,
						},
					}},
					"common_http_protocol_options": object{"max_headers_count": 100, "headers_with_underscores_action": "REJECT_REQUEST"},
					"http2_protocol_options": object{
						"max_concurrent_streams": 1024, "initial_stream_window_size": 262144,
						"initial_connection_window_size": 4194304, "connection_keepalive": keepAlive,
					},
					"max_request_headers_kb": 60, "stream_idle_timeout": "300s", "request_headers_timeout": "10s",
					"use_remote_address": true, "normalize_path": true, "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
				},
			}}}},
		}},
		"clusters": list{object{
			"name": "counters", "type": "STATIC", "connect_timeout": "0.25s", "per_connection_buffer_limit_bytes": 5242880,
			"circuit_breakers": object{"thresholds": list{object{
				"max_connections": 65536, "max_pending_requests": 65536, "max_requests": 65536, "max_retries": 65536,
			}}},
			"typed_extension_protocol_options": object{"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": object{
				"@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
				"explicit_http_config": object{"http2_protocol_options": object{
					"max_concurrent_streams": 65536, "initial_stream_window_size": 1048576,
					"initial_connection_window_size": 67108864, "connection_keepalive": keepAlive,
				}},
			}},
			"load_assignment": object{"cluster_name": "counters", "endpoints": list{object{"lb_endpoints": list{
				object{"endpoint": object{"address": socket(host, upstream)}},
			}}}},
		}},
	}}
}

// plainRoutes is one route for each service, as ours has.
func plainRoutes() list {
	var routes list
	for _, service := range []string{"/counters.v1.Eventual/", "/counters.v1.Strong/"} {
		routes = append(routes, object{
			"match": object{"prefix": service},
			"route": object{
				"cluster": "counters", "timeout": "0s",
				"retry_policy": object{
					"retry_on": "connect-failure,refused-stream", "num_retries": 1,
					"retry_back_off": object{"base_interval": "0.005s", "max_interval": "0.050s"},
				},
			},
		})
	}
	return routes
}

func socket(host string, port int) any {
	return object{"socket_address": object{"address": host, "port_value": port}}
}
