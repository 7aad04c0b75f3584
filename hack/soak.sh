#!/bin/bash
# The long tests: simulated stores, laws of the types, crashes of the log, fuzzing, real processes. Prints the figures at the end.
set -uo pipefail
cd "$(dirname "$0")/.."
figures=() failed=0

# part NAME PATTERN COMMAND… runs one and keeps its lines that match the pattern.
part() {
  local name="$1" pattern="$2" out begin result=passed
  shift 2
  echo "=== $(date -u +%H:%M:%S) $name"
  out=$(mktemp) begin=$SECONDS
  "$@" >"$out" 2>&1 || { result=FAILED failed=1; tail -60 "$out"; }
  figures+=("$name: $result, $((SECONDS - begin)) s" "$(grep -hoE "$pattern" "$out" | sort -u | tail -30 | sed 's/^/    /')")
  rm -f "$out"
}

mkdir -p bin
part "simulated stores, ${SOAK_SEEDS:=5000} seeds" '^simulation: .*' make --no-print-directory sim SEEDS="$SOAK_SEEDS"
part "laws of the types, ${SOAK_CHECKS:=100000} checks each" 'OK, passed [0-9]+ tests.*' \
  go test -count=1 -timeout 30m ./statestore/crdt -rapid.checks="$SOAK_CHECKS"
part "crashes of the log, 10000 at random" "[0-9]+ (boundaries|crashes).*" \
  go test -count=1 -timeout 20m -v ./statestore/wal -soak
part "fuzzing, ${SOAK_FUZZ:=2m} a target" '^==> .*|execs: [0-9]+ .*' hack/fuzz.sh "$SOAK_FUZZ"
part "real processes" '(lost|converged|acknowledged|crashes)[^,]*, .*' \
  go test -count=1 -timeout 45m -v ./e2e -run 'TestNoAcknowledgementIsLost|TestConvergence|TestDiskFull' -crashes 1000 -partition 60s -disk-cycles 20
part "linearizability, ${SOAK_RUNS:=20} runs of 60 s" '(Ok|Illegal|Unknown): .*|first success after .*|etcd gone for .*' \
  go test -count=1 -timeout 60m -v ./e2e/linear -linear.runs "$SOAK_RUNS" -linear.holders 100

echo
echo "=== soak, $(date -u +%Y-%m-%d), $((SECONDS / 60)) minutes"
printf '%s\n' "${figures[@]}" | grep -v '^$'
exit $failed
