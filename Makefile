.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

LINT := bin/golangci-lint
# A test that hangs tells where within this time; the slowest package needs a
# fifth of it on two busy cores.
TEST_FLAGS ?= -timeout 20m

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
	go test $(TEST_FLAGS) ./...

.PHONY: race
race: setup ## run all tests under the race detector
	go test -race $(TEST_FLAGS) ./...

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

.PHONY: demo
demo: setup ## watch transactions survive crashes, on throw-away servers
	go run ./cmd/troth demo

.PHONY: bench
bench: setup ## measure, on throw-away servers
	go run ./cmd/troth bench

.PHONY: ci
ci: ## what CI runs
	bash .ci/run

.PHONY: selftest
selftest: setup ## make every seeded mistake; the tests must find each
	go run ./test/selftest

.PHONY: clean
clean: ## remove what was built
	rm -rf bin tmp coverage.out
