package translate

import (
	"fmt"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	dynmodv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/dynamic_modules/v3"
	httpmodulev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/dynamic_modules/v3"
	transcoderv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_json_transcoder/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/holdfast-mesh/holdfast/xds/ir"
)

const (
	transcoderName    = "transcoder"
	transcoderType    = "type.googleapis.com/envoy.extensions.filters.http.grpc_json_transcoder.v3.GrpcJsonTranscoder"
	dynamicModuleType = "type.googleapis.com/envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter"
	// moduleName leads Envoy to libholdfast.so.
	moduleName = "holdfast"
)

func extensionName(l *ir.Listener) string { return "holdfast/" + l.Name }

// filterConfig is our filter on one listener. The control plane has checked the configuration with the filter's own
// parser: a refusal by Envoy would not say why.
func filterConfig(l *ir.Listener) (*corev3.TypedExtensionConfig, error) {
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(l.Filter)
	if err != nil {
		return nil, fmt.Errorf("encode filter configuration: %w", err)
	}
	config, err := pack(wrapperspb.Bytes(raw))
	if err != nil {
		return nil, err
	}
	packed, err := pack(&httpmodulev3.DynamicModuleFilter{
		// A Go library can't be unloaded.
		DynamicModuleConfig: &dynmodv3.DynamicModuleConfig{Name: moduleName, DoNotClose: true},
		FilterName:          moduleName,
		FilterConfig:        config,
	})
	if err != nil {
		return nil, err
	}
	return &corev3.TypedExtensionConfig{Name: extensionName(l), TypedConfig: packed}, nil
}

// transcoder lets JSON callers in. Its output names fields as the proto does and leaves none out; streams are
// server-sent events.
func transcoder(t *ir.Transcoder) (*corev3.TypedExtensionConfig, error) {
	packed, err := pack(&transcoderv3.GrpcJsonTranscoder{
		DescriptorSet: &transcoderv3.GrpcJsonTranscoder_ProtoDescriptorBin{ProtoDescriptorBin: t.Descriptors},
		Services:      t.Services,
		PrintOptions: &transcoderv3.GrpcJsonTranscoder_PrintOptions{
			AlwaysPrintPrimitiveFields: true,
			PreserveProtoFieldNames:    true,
			StreamNewlineDelimited:     true,
			StreamSseStyleDelimited:    true,
		},
		// An error of another node arrives as a gRPC status; a JSON caller gets the HTTP status and a google.rpc.Status.
		ConvertGrpcStatus: true,
		// A key is the same by REST and by gRPC, whatever its characters: google.api.http decodes all of a path segment.
		UrlUnescapeSpec:        transcoderv3.GrpcJsonTranscoder_ALL_CHARACTERS,
		QueryParamUnescapePlus: true,
		RequestValidationOptions: &transcoderv3.GrpcJsonTranscoder_RequestValidationOptions{
			// A query parameter that no field has is most often a misspelt one: refused (400), not ignored.
			RejectUnknownQueryParameters: true,
			// A body that names another entity than the path does would be routed by one and read by the other.
			RejectBindingBodyFieldCollisions: true,
		},
	})
	if err != nil {
		return nil, err
	}
	return &corev3.TypedExtensionConfig{Name: transcoderName, TypedConfig: packed}, nil
}
