.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

LINT := bin/golangci-lint
# A test that hangs tells where within this time; the slowest package needs half
# of it on two cores that thirty others want, too.
TEST_FLAGS ?= -timeout 40m
# The longest packages begin first, so that none runs alone at the end.
PACKAGES := ./mysql ./filelog ./test/... ./store/... ./postgres ./...

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

.PHONY: build
build: ## compile everything; commands go to bin/
	go build ./...
	@if [ -d cmd/troth ]; then go build -o bin/ ./cmd/...; fi

.PHONY: setup
setup: ## install what the tests need besides Go (Debian)
	@scripts/setup

.PHONY: test
test: setup ## run all tests, on real servers started by the tests
	go test $(TEST_FLAGS) $(PACKAGES)

.PHONY: race
race: setup ## run all tests under the race detector
	go test -race $(TEST_FLAGS) $(PACKAGES)

$(LINT):
	@scripts/setup --lint

.PHONY: lint
lint: $(LINT) ## go vet and golangci-lint
	go vet ./...
	$(LINT) run ./...

.PHONY: fmt
fmt: $(LINT) ## format all Go files
	$(LINT) fmt ./...

.PHONY: verify
verify: $(LINT) ## prove that formatting, modules and generated code are as committed
	$(LINT) fmt --diff ./...
	go mod verify
	scripts/verify-generated

SEEDS ?= 300000
DEEP_SEEDS ?= 5000
SERVICE_SEEDS ?= 50000
.PHONY: sim
sim: ## simulate SEEDS schedules; SEED=n shows one, DEEP=1 with the real resource managers, SERVICES=1 of the server
ifdef SEED
ifdef SERVICES
	go test -count=1 ./internal/sim/services -v -services.seed=$(SEED)
else
	go test -count=1 ./internal/sim -run '^TestSim$$' -v -sim.seed=$(SEED) $(if $(DEEP),-sim.deep)
endif
else
	go test -count=1 -timeout 6h ./internal/sim -run '^TestSim$$' -v -sim.seeds=$(SEEDS)
	go test -count=1 -timeout 6h ./internal/sim -run '^TestSim$$' -v -sim.deep -sim.seeds=$(DEEP_SEEDS)
	go test -count=1 -timeout 6h ./internal/sim/services -v -services.seeds=$(SERVICE_SEEDS)
endif

DURATION ?= 20m
.PHONY: torture
torture: setup ## break real databases and programs at random, for DURATION
	go run -tags faultpoint ./cmd/torture random -duration $(DURATION) $(if $(SEED),-seed $(SEED))

.PHONY: points
points: setup ## kill, freeze and cut off programs at every fault point
	go run -tags faultpoint ./cmd/torture points $(if $(SEED),-seed $(SEED))

.PHONY: server-points
server-points: setup ## stop `troth serve` at every point, once for each kind of transaction; STORE=
	go test -count=1 -timeout 2h ./test/servercrash -run '^TestEveryPoint$$' -v -servercrash.each $(if $(STORE),-servercrash.store=$(STORE))

.PHONY: server-torture
server-torture: setup ## break `troth serve` at random, for DURATION; SEED=, STORE=; status 3 if too little happened
	@go test -c -o bin/servercrash.test ./test/servercrash
	@cd test/servercrash && ../../bin/servercrash.test -test.run '^TestTorture$$' -test.v -test.timeout 0 -servercrash.duration $(DURATION) \
		$(if $(SEED),-servercrash.seed $(SEED)) $(if $(STORE),-servercrash.store $(STORE)) || { s=$$?; echo "exit status $$s"; exit $$s; }

.PHONY: selftest
selftest: setup ## make every seeded mistake, and show what finds it
	go run ./test/selftest

.PHONY: rivals
rivals: setup ## set the same traps for four ways of paying, and count the money
	go test -v -count=1 ./test/rivals

.PHONY: models
models: ## check the model of the protocol, and its mistakes, with Spin
	docs/models/run quick

FUZZ_SECONDS ?= 15
.PHONY: fuzz
fuzz: ## run every fuzz target for FUZZ_SECONDS
	scripts/fuzz $(FUZZ_SECONDS)

.PHONY: mutation
mutation: ## change the core one operator at a time: which tests notice?
	scripts/mutation

.PHONY: demo
demo: setup ## watch transactions survive crashes, on throw-away servers
	go run ./cmd/troth demo

.PHONY: demo-server
demo-server: setup ## watch transactions across services survive crashes, on throw-away servers
	go run ./cmd/troth demo server

.PHONY: bench
bench: setup ## measure, on throw-away servers
	go run ./cmd/troth bench

.PHONY: bench-server
bench-server: setup ## measure troth serve, beside dtm if its program is given with DTM=path
	go run ./internal/bench/serverbench $(if $(DTM),-dtm $(DTM)) $(BENCH_FLAGS)

.PHONY: ci
ci: ## what CI runs
	bash .ci/run

.PHONY: clean
clean: ## remove what was built
	rm -rf bin tmp coverage.out
