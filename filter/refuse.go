package filter

import (
	"encoding/json"
	"net/http"
	"strconv"
	"unicode/utf8"
)

// The google.rpc codes in use here. The package must not import grpc, which would grow the module in Envoy by megabytes.
const (
	codeOK                 = 0
	codeCancelled          = 1
	codeUnknown            = 2
	codeInvalidArgument    = 3
	codeDeadlineExceeded   = 4
	codeNotFound           = 5
	codeAlreadyExists      = 6
	codePermissionDenied   = 7
	codeResourceExhausted  = 8
	codeFailedPrecondition = 9
	codeAborted            = 10
	codeOutOfRange         = 11
	codeUnimplemented      = 12
	codeInternal           = 13
	codeUnavailable        = 14
	codeDataLoss           = 15
	codeUnauthenticated    = 16
)

// Values of the header holdfast-outcome.
const (
	outcomeNone       = ""
	outcomeApplied    = "applied"
	outcomeNotApplied = "not-applied"
	outcomeUnknown    = "unknown"
)

// httpStatus is the HTTP status of a google.rpc code, as google/rpc/code.proto and Envoy's transcoder have it, so that a
// REST caller sees the same whichever of the two answered.
func httpStatus(code int32) int {
	switch code {
	case codeOK:
		return http.StatusOK
	case codeCancelled:
		return 499
	case codeInvalidArgument, codeFailedPrecondition, codeOutOfRange:
		return http.StatusBadRequest
	case codeDeadlineExceeded:
		return http.StatusGatewayTimeout
	case codeNotFound:
		return http.StatusNotFound
	case codeAlreadyExists, codeAborted:
		return http.StatusConflict
	case codePermissionDenied:
		return http.StatusForbidden
	case codeUnauthenticated:
		return http.StatusUnauthorized
	case codeResourceExhausted:
		return http.StatusTooManyRequests
	case codeUnimplemented:
		return http.StatusNotImplemented
	case codeUnavailable:
		return http.StatusServiceUnavailable
	default:
		return http.StatusInternalServerError
	}
}

// errorReply is the answer to a caller: JSON with its HTTP status for REST, a trailers-only response for gRPC. Envoy
// makes the latter of any local reply to a gRPC request: status 200, grpc-message from the body.
func errorReply(rest bool, code int32, message, details string) *Reply {
	r := &Reply{Status: httpStatus(code), Details: details}
	if rest {
		r.Headers = append(r.Headers, [2]string{"content-type", "application/json"})
		r.Body = statusJSON(code, message)
	} else {
		r.Headers = append(r.Headers,
			[2]string{"content-type", "application/grpc"},
			[2]string{"grpc-status", strconv.Itoa(int(code))})
		r.Body = []byte(message)
	}
	return r
}

// statusJSON is a google.rpc.Status as protobuf's JSON mapping prints it with all fields.
func statusJSON(code int32, message string) []byte {
	b, err := json.Marshal(struct {
		Code    int32  `json:"code"`
		Message string `json:"message"`
		Details []any  `json:"details"`
	}{code, message, []any{}})
	if err != nil {
		// Strings and numbers always encode; the promise of a body is kept all the same.
		return []byte(`{"code":13,"message":"","details":[]}`)
	}
	return b
}

// grpcMessage is message as the header grpc-message has it: percent-encoded but for printable ASCII.
func grpcMessage(message string) string {
	const hex = "0123456789ABCDEF"
	out := make([]byte, 0, len(message))
	for i := range len(message) {
		c := message[i]
		if c < ' ' || c > '~' || c == '%' {
			out = append(out, '%', hex[c>>4], hex[c&15])
			continue
		}
		out = append(out, c)
	}
	return string(out)
}

// readable undoes grpcMessage; what is no percent-encoding stays as it is.
func readable(message string) string {
	out := make([]byte, 0, len(message))
	for i := 0; i < len(message); i++ {
		if message[i] == '%' && i+2 < len(message) {
			if n, err := strconv.ParseUint(message[i+1:i+3], 16, 8); err == nil {
				out = append(out, byte(n))
				i += 2
				continue
			}
		}
		out = append(out, message[i])
	}
	if !utf8.Valid(out) {
		return message
	}
	return string(out)
}

// rpcCode is the google.rpc code of an HTTP status that Envoy itself answered with, as gRPC clients read it.
func rpcCode(status int) int32 {
	switch status {
	case 400:
		return codeInvalidArgument
	case 401:
		return codeUnauthenticated
	case 403:
		return codePermissionDenied
	case 404:
		return codeNotFound
	case 413, 429:
		return codeResourceExhausted
	case 502, 503:
		return codeUnavailable
	case 504:
		return codeDeadlineExceeded
	case 501:
		return codeUnimplemented
	case 500:
		return codeInternal
	default:
		return codeUnknown
	}
}
