#!/bin/sh
# Writes the Go code of every .proto file beside it. Needs PYTHON (with grpcio-tools) and the two plugins in PATH.
set -e
cd "$(dirname "$0")/.."
apis=$("$PYTHON" -c 'import google.api, os; print(os.path.dirname(os.path.dirname(list(google.api.__path__)[0])))')
gen() { # folder, files...
  dir=$1; shift
  "$PYTHON" -m grpc_tools.protoc -I"$dir" -Iproto -I"$apis" --go_out="$dir" --go_opt=paths=source_relative \
    --go-grpc_out="$dir" --go-grpc_opt=paths=source_relative "$@"
}
gen proto $(find proto -name '*.proto' | sort)
gen examples/demo/questions examples/demo/questions/qa/v1/questions.proto
gen examples/demo/accounts examples/demo/accounts/bank/v1/accounts.proto examples/demo/accounts/bank/v1/profiles.proto
gen examples/demo/cart examples/demo/cart/cart/v1/cart.proto
gen bench bench/counters/v1/counters.proto
gen e2e/linear e2e/linear/register/v1/register.proto
