package translate

import (
	"path/filepath"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	earlyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/early_header_mutation/header_mutation/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/holdfast-mesh/holdfast/xds/ir"
)

// notOurs match the headers of ours that a caller may not send: every holdfast-* but exactly holdfast-session and
// holdfast-explain. RE2 has no negative lookahead, so the complement is written out, in three: Envoy refuses a program as
// large as the one for all would be.
var notOurs = []string{
	`holdfast-(?:[^es].*)?`,
	`holdfast-(?:e(?:[^x].*)?|ex(?:[^p].*)?|exp(?:[^l].*)?|expl(?:[^a].*)?|expla(?:[^i].*)?|explai(?:[^n].*)?|explain.+)`,
	`holdfast-(?:s(?:[^e].*)?|se(?:[^s].*)?|ses(?:[^s].*)?|sess(?:[^i].*)?|sessi(?:[^o].*)?|sessio(?:[^n].*)?|session.+)`,
}

func (r *Resources) addListener(l *ir.Listener) error {
	filter, err := filterConfig(l)
	if err != nil {
		return err
	}
	r.add(TypeExtension, filter)
	manager, err := connectionManager(l)
	if err != nil {
		return err
	}
	packed, err := pack(manager)
	if err != nil {
		return err
	}
	addr := address(l.Address)
	if filepath.IsAbs(l.Address) {
		addr.GetPipe().Mode = 0o600
	}
	r.add(TypeListener, &listenerv3.Listener{
		Name:    l.Name,
		Address: addr,
		// A second process on the same port is a mistake to be told of, not one to share connections with.
		EnableReusePort:               wrapperspb.Bool(false),
		PerConnectionBufferLimitBytes: wrapperspb.UInt32(maxStreamBuffer),
		FilterChains: []*listenerv3.FilterChain{{Filters: []*listenerv3.Filter{{
			Name:       "envoy.filters.network.http_connection_manager",
			ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: packed},
		}}}},
	})
	return nil
}

func connectionManager(l *ir.Listener) (*hcmv3.HttpConnectionManager, error) {
	// suppress_envoy_headers: what Envoy would tell callers of our inside.
	router, err := pack(&routerv3.Router{SuppressEnvoyHeaders: true})
	if err != nil {
		return nil, err
	}
	m := &hcmv3.HttpConnectionManager{
		StatPrefix: l.Name,
		RouteSpecifier: &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{
			ConfigSource: ads(), RouteConfigName: l.Name,
		}},
		CommonHttpProtocolOptions: &corev3.HttpProtocolOptions{
			MaxHeadersCount: wrapperspb.UInt32(maxHeadersCount),
			// holdfast_key would reach some servers as holdfast-key.
			HeadersWithUnderscoresAction: corev3.HttpProtocolOptions_REJECT_REQUEST,
		},
		Http2ProtocolOptions:  http2(edgeStreams, edgeStreamWindow, edgeConnectionWindow),
		MaxRequestHeadersKb:   wrapperspb.UInt32(maxHeadersKB),
		RequestHeadersTimeout: durationpb.New(headersTimeout),
		StreamIdleTimeout:     durationpb.New(streamIdle),
		// Keys may hold any character: only what a path means is cleaned up, nothing in it is decoded or merged.
		NormalizePath:                wrapperspb.Bool(true),
		PathWithEscapedSlashesAction: hcmv3.HttpConnectionManager_KEEP_UNCHANGED,
		HttpFilters: []*hcmv3.HttpFilter{
			discovered(extensionName(l), dynamicModuleType),
			{Name: "envoy.filters.http.router", ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: router}},
		},
	}
	if !l.Edge {
		// The edge has said who the caller is; this hop adds nothing.
		m.UseRemoteAddress = wrapperspb.Bool(false)
		m.SkipXffAppend = true
		m.Http2ProtocolOptions = http2(hopStreams, hopStreamWindow, hopConnectionWindow)
		return m, nil
	}
	m.UseRemoteAddress = wrapperspb.Bool(true)
	m.HttpFilters = append([]*hcmv3.HttpFilter{discovered(transcoderName, transcoderType)}, m.HttpFilters...)
	// Envoy obeys some x-envoy-* headers from private addresses: x-envoy-retry-on could make it repeat a write.
	mutations := []*mutationv3.HeaderMutation{
		removeOnMatch(&matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: "x-envoy-"}}),
	}
	for _, regex := range notOurs {
		mutations = append(mutations, removeOnMatch(&matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{
			SafeRegex: &matcherv3.RegexMatcher{Regex: regex},
		}}))
	}
	strip, err := pack(&earlyv3.HeaderMutation{Mutations: mutations})
	if err != nil {
		return nil, err
	}
	m.EarlyHeaderMutationExtensions = []*corev3.TypedExtensionConfig{{Name: "strip", TypedConfig: strip}}
	m.LocalReplyConfig = localReplies()
	return m, nil
}

func removeOnMatch(m *matcherv3.StringMatcher) *mutationv3.HeaderMutation {
	return &mutationv3.HeaderMutation{Action: &mutationv3.HeaderMutation_RemoveOnMatch_{
		RemoveOnMatch: &mutationv3.HeaderMutation_RemoveOnMatch{KeyMatcher: m},
	}}
}

func http2(streams, streamWindow, connectionWindow uint32) *corev3.Http2ProtocolOptions {
	return &corev3.Http2ProtocolOptions{
		MaxConcurrentStreams:        wrapperspb.UInt32(streams),
		InitialStreamWindowSize:     wrapperspb.UInt32(streamWindow),
		InitialConnectionWindowSize: wrapperspb.UInt32(connectionWindow),
		ConnectionKeepalive: &corev3.KeepaliveSettings{
			Interval: durationpb.New(keepAliveInterval),
			Timeout:  durationpb.New(keepAliveTimeout),
		},
	}
}

// discovered is a filter whose configuration comes by ECDS.
func discovered(name, typeURL string) *hcmv3.HttpFilter {
	return &hcmv3.HttpFilter{Name: name, ConfigType: &hcmv3.HttpFilter_ConfigDiscovery{ConfigDiscovery: &corev3.ExtensionConfigSource{
		ConfigSource: ads(),
		TypeUrls:     []string{typeURL},
	}}}
}

// localReplies gives REST callers a google.rpc.Status in JSON: those whose path leads nowhere, and those whose deadline
// came while the service had their request (Envoy's own status for that is 408). gRPC callers get Envoy's own
// translations, UNIMPLEMENTED and DEADLINE_EXCEEDED.
func localReplies() *hcmv3.LocalReplyConfig {
	late := localReply("DT", &routev3.HeaderMatcher{
		// The transcoder has made gRPC of the request, and left this.
		Name:                 "x-envoy-original-method",
		HeaderMatchSpecifier: &routev3.HeaderMatcher_PresentMatch{PresentMatch: true},
	}, 4, "deadline exceeded")
	late.StatusCode = wrapperspb.UInt32(504)
	return &hcmv3.LocalReplyConfig{Mappers: []*hcmv3.ResponseMapper{
		localReply("NR", notGRPC(), 5, "nothing is at this path"),
		late,
	}}
}

// localReply answers requests that match header, and that Envoy ends with flag.
func localReply(flag string, header *routev3.HeaderMatcher, code float64, message string) *hcmv3.ResponseMapper {
	return &hcmv3.ResponseMapper{
		Filter: &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_AndFilter{AndFilter: &accesslogv3.AndFilter{Filters: []*accesslogv3.AccessLogFilter{
			{FilterSpecifier: &accesslogv3.AccessLogFilter_ResponseFlagFilter{ResponseFlagFilter: &accesslogv3.ResponseFlagFilter{Flags: []string{flag}}}},
			{FilterSpecifier: &accesslogv3.AccessLogFilter_HeaderFilter{HeaderFilter: &accesslogv3.HeaderFilter{Header: header}}},
		}}}},
		BodyFormatOverride: &corev3.SubstitutionFormatString{
			Format: &corev3.SubstitutionFormatString_JsonFormat{JsonFormat: &structpb.Struct{Fields: map[string]*structpb.Value{
				"code":    structpb.NewNumberValue(code),
				"message": structpb.NewStringValue(message),
				"details": structpb.NewListValue(&structpb.ListValue{}),
			}}},
			ContentType: "application/json",
		},
	}
}

// notGRPC matches requests that are not gRPC.
func notGRPC() *routev3.HeaderMatcher {
	return &routev3.HeaderMatcher{
		Name: "content-type",
		HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: &matcherv3.StringMatcher{
			MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: "application/grpc"},
		}},
		InvertMatch:               true,
		TreatMissingHeaderAsEmpty: true,
	}
}
