package translate

import (
	"cmp"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/holdfast-mesh/holdfast/xds/ir"
)

// wellKnown are the services that every process may answer beside its own. They hold no service's name, so a caller
// picks one by the authority; the first that has them is the default.
var wellKnown = []string{ir.ReflectionV1, ir.ReflectionV1Alpha, ir.Health}

// healthWatch is a stream that may pause for as long as a service is well.
const healthWatch = "/" + ir.Health + "/Watch"

// noTranscoder spares gRPC callers the transcoder, which would only let them pass.
func noTranscoder() map[string]*anypb.Any {
	// One bool always packs.
	off, _ := pack(&routev3.FilterConfig{Disabled: true})
	return map[string]*anypb.Any{transcoderName: off}
}

// routes is the route table of one listener: a virtual host for everyone, and one for each service's name.
func routes(p *ir.Proxy, l *ir.Listener) *routev3.RouteConfiguration {
	var services, pages []*routev3.Route
	for i := range p.Services {
		services = append(services, serviceRoutes(p, l, &p.Services[i])...)
	}
	for _, name := range p.Waiting {
		services = append(services, waitingRoute(name))
	}
	if l.Edge {
		pages = workloadRoutes(p.Workloads)
	}
	out := &routev3.RouteConfiguration{Name: l.Name}
	taken := map[string]bool{}
	for i := range p.Services {
		s := &p.Services[i]
		domain := strings.ToLower(s.Name)
		if len(s.Beside) == 0 || taken[domain] {
			continue
		}
		taken[domain] = true
		out.VirtualHosts = append(out.VirtualHosts, &routev3.VirtualHost{
			Name:    s.Name,
			Domains: []string{domain, domain + ":*"},
			Routes:  slices.Concat(besideRoutes(p, l, s), services, pages),
		})
	}
	all := &routev3.VirtualHost{Name: "all", Domains: []string{"*"}}
	for _, name := range wellKnown {
		for i := range p.Services {
			if s := &p.Services[i]; slices.Contains(s.Beside, name) {
				all.Routes = append(all.Routes, besideRoutes(p, l, &ir.Service{Name: s.Name, Serve: s.Serve, Beside: []string{name}})...)
				break
			}
		}
	}
	all.Routes = slices.Concat(all.Routes, services, pages)
	out.VirtualHosts = append(out.VirtualHosts, all)
	return out
}

func besideRoutes(p *ir.Proxy, l *ir.Listener, s *ir.Service) []*routev3.Route {
	var out []*routev3.Route
	for _, name := range s.Beside {
		if name == ir.Health {
			out = append(out, &routev3.Route{
				Match:  &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Path{Path: healthWatch}},
				Action: serviceAction(p, l, s, true),
			})
		}
		out = append(out, &routev3.Route{
			Match:  &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/" + name + "/"}},
			Action: serviceAction(p, l, s, false),
		})
	}
	return out
}

func serviceRoutes(p *ir.Proxy, l *ir.Listener, s *ir.Service) []*routev3.Route {
	out := make([]*routev3.Route, 0, 1+len(s.Streaming))
	for _, path := range s.Streaming {
		out = append(out, &routev3.Route{
			Match:  &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Path{Path: path}},
			Action: serviceAction(p, l, s, true),
		})
	}
	prefix := &routev3.RouteMatch_Prefix{Prefix: "/" + s.Name + "/"}
	if l.Edge {
		out = append(out, &routev3.Route{
			Match:                &routev3.RouteMatch{PathSpecifier: prefix, Grpc: &routev3.RouteMatch_GrpcRouteMatchOptions{}},
			Action:               serviceAction(p, l, s, false),
			TypedPerFilterConfig: noTranscoder(),
		})
	}
	return append(out, &routev3.Route{Match: &routev3.RouteMatch{PathSpecifier: prefix}, Action: serviceAction(p, l, s, false)})
}

// waitingRoute answers for a service that is not known well enough yet. Without it gRPC callers would be told
// UNIMPLEMENTED, which is for good; of a 503 they make UNAVAILABLE.
func waitingRoute(name string) *routev3.Route {
	return &routev3.Route{
		Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/" + name + "/"}},
		Action: &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{
			Status: 503,
			Body:   &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: "service " + name + " is not ready yet"}},
		}},
	}
}

// serviceAction leads to a service. Timeouts are off but for the caller's own deadline (grpc-timeout): Envoy keeps it
// while the request is with the service, our filter while it begins or commits, and in watches.
func serviceAction(p *ir.Proxy, l *ir.Listener, s *ir.Service, streaming bool) *routev3.Route_Route {
	a := &routev3.RouteAction{Timeout: durationpb.New(0)}
	if streaming {
		a.IdleTimeout = durationpb.New(0)
	} else {
		// 0 is no bound: grpc-timeout is taken as it is.
		a.MaxStreamDuration = &routev3.RouteAction_MaxStreamDuration{GrpcTimeoutHeaderMax: durationpb.New(0)}
	}
	if !l.Edge {
		a.ClusterSpecifier = &routev3.RouteAction_Cluster{Cluster: localCluster(s.Name)}
		return &routev3.Route_Route{Route: a}
	}
	a.ClusterSpecifier = &routev3.RouteAction_Cluster{Cluster: edgeCluster(s.Name)}
	// Only what was proven not to be applied is tried again: no connection, a refused stream, or our own word.
	a.RetryPolicy = &routev3.RetryPolicy{
		RetryOn:    "connect-failure,refused-stream,retriable-headers",
		NumRetries: wrapperspb.UInt32(uint32(min(maxRetries, len(s.Serve)))),
		RetriableHeaders: []*routev3.HeaderMatcher{{
			Name: "holdfast-outcome",
			HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: &matcherv3.StringMatcher{
				MatchPattern: &matcherv3.StringMatcher_Exact{Exact: "not-applied"},
			}},
		}},
		RetryBackOff: &routev3.RetryPolicy_RetryBackOff{
			BaseInterval: durationpb.New(retryBase),
			MaxInterval:  durationpb.New(retryMax),
		},
	}
	return &routev3.Route_Route{Route: a}
}

// workloadRoutes lead to plain HTTP servers, the longest prefix first. gRPC callers of an unknown service don't get
// there: they are told UNIMPLEMENTED, not given a page.
func workloadRoutes(workloads []ir.Workload) []*routev3.Route {
	sorted := slices.Clone(workloads)
	slices.SortStableFunc(sorted, func(a, b ir.Workload) int { return cmp.Compare(len(b.Prefix), len(a.Prefix)) })
	var out []*routev3.Route
	for _, w := range sorted {
		out = append(out, &routev3.Route{
			Match: &routev3.RouteMatch{
				PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: w.Prefix},
				Headers:       []*routev3.HeaderMatcher{notGRPC()},
			},
			Action: &routev3.Route_Route{Route: &routev3.RouteAction{
				ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: workloadCluster(w.Name)},
				Timeout:          durationpb.New(0),
				RetryPolicy:      &routev3.RetryPolicy{RetryOn: "connect-failure,refused-stream", NumRetries: wrapperspb.UInt32(1)},
			}},
		})
	}
	return out
}
