# Every way to build, try and check this repository. `make help` lists them.
# Needs Go 1.26, GNU make, bash and git; tools (buf, golangci-lint) are built from their pinned
# modules under tools/ into .cache/tools the first time they are needed.

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
MAKEFLAGS   += --no-builtin-rules --no-print-directory

GO    ?= go
CACHE := $(CURDIR)/.cache
TOOLS := $(CACHE)/tools
BUF   := $(TOOLS)/buf
LINT  := $(TOOLS)/golangci-lint

# Builds do not ask git: a checkout owned by somebody else, or an archive without .git, builds alike.
BUILDFLAGS := -buildvcs=false
# Extra flags for `go test`, for example TESTFLAGS=-v or TESTFLAGS='-run TestAcquire'.
TESTFLAGS  ?=
# How long each fuzz target runs; see .ci/fuzz for FUZZBUDGET, which CI sets instead.
FUZZTIME   ?= 10s
# The contract as last frozen; `make breaking` compares with it, `make freeze` writes it.
FROZEN     := proto/rms.binpb

# Packages that start real programs (Vault, strace, built binaries) or run for minutes. They go last.
SLOW := /internal/keys/vault(act)?$$|/internal/vaulttest|/test(/|$$)
# Packages where the race detector sees nothing: they drive other processes.
NORACE := /test/(demo|faults|live)(/|$$)

.DEFAULT_GOAL := help

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##### Try it

.PHONY: build
build: ## Build bin/rmsd and bin/rmsctl
	@$(GO) build $(BUILDFLAGS) -trimpath -o bin/ ./cmd/rmsd ./cmd/rmsctl

.PHONY: demo
demo: ## Protect, open, refuse, revoke on a throw-away daemon (KEEP=1 keeps it, FILE=path takes your file)
	@$(GO) run $(BUILDFLAGS) ./test/demo

.PHONY: demo-vault
demo-vault: ## The same demo with the tenant key in a real HashiCorp Vault (VAULT_BIN, PATH, or built once)
	@$(GO) run $(BUILDFLAGS) ./test/demo -vault

.PHONY: run
run: build ## Leave a development daemon running, on loopback, until ^C
	@exec bin/rmsd dev

##### Check it

.PHONY: test
test: test-fast test-slow ## Run every test, the fast packages first

.PHONY: test-fast
test-fast: ## Run the tests that need nothing but this process
	@pkgs=$$($(GO) list $(BUILDFLAGS) ./... | grep -Ev '$(SLOW)')
	$(GO) test $(BUILDFLAGS) -timeout 20m $(TESTFLAGS) $$pkgs

.PHONY: test-slow
test-slow: ## Run the tests with a real Vault, power cuts, kills and whole programs
	@pkgs=$$($(GO) list $(BUILDFLAGS) ./... | { grep -E '$(SLOW)' || true; })
	if [[ -z $$pkgs ]]; then echo 'no slow packages'; exit 0; fi
	echo 'tests against real programs: the first run builds Vault unless VAULT_BIN, PATH or the cache has one (minutes)'
	$(GO) test $(BUILDFLAGS) -timeout 45m $(TESTFLAGS) $$pkgs

.PHONY: race
race: ## Run the tests under the race detector (needs a C compiler)
	@pkgs=$$($(GO) list $(BUILDFLAGS) ./... | grep -Ev '$(NORACE)')
	@# A program built with -race sleeps for a second before it ends; sessions run a thousand programs.
	GORACE=atexit_sleep_ms=50 CGO_ENABLED=1 $(GO) test $(BUILDFLAGS) -race -timeout 45m $(TESTFLAGS) $$pkgs

.PHONY: fuzz
fuzz: ## Fuzz every target for FUZZTIME (default 10s); FUZZ=regexp narrows
	@FUZZTIME='$(FUZZTIME)' FUZZ='$(FUZZ)' GO='$(GO)' bash .ci/fuzz

.PHONY: bench
bench: ## Run every benchmark once, with allocations
	@$(GO) test $(BUILDFLAGS) -run '^$$' -bench . -benchmem $(TESTFLAGS) ./...

.PHONY: lint
lint: fmt-check vet go-lint proto-lint ## Formatting, vet, golangci-lint, buf lint

.PHONY: fmt
fmt: $(BUF) ## Format Go and proto files in place
	@git ls-files -co --exclude-standard '*.go' | xargs -r gofmt -s -w
	$(BUF) format -w --path proto/rms

.PHONY: fmt-check
fmt-check: ## Fail when a Go file is not formatted
	@bad=$$(git ls-files -co --exclude-standard '*.go' | xargs -r gofmt -s -l)
	if [[ -n $$bad ]]; then printf 'not formatted, run `make fmt`:\n%s\n' "$$bad" >&2; exit 1; fi

.PHONY: vet
vet: ## Run go vet
	@$(GO) vet $(BUILDFLAGS) ./...

.PHONY: go-lint
go-lint: $(LINT) ## Run golangci-lint (also keeps the import direction)
	@$(LINT) run ./...

.PHONY: docs-check
docs-check: ## Fail when a page names a test, target, path or link that does not exist
	@bash .ci/docs-check

.PHONY: tidy-check
tidy-check: ## Fail when go.mod or go.sum is not tidy
# The modules below tools/ only build one program each: tidying them would fetch what the tests of all
# their dependencies need.
	@if ! $(GO) mod tidy -diff; then echo "go.mod is not tidy: run go mod tidy" >&2; exit 1; fi

##### The contract

.PHONY: proto
proto: $(BUF) ## Format, lint and generate the contract
	@$(BUF) format -w --path proto/rms
	$(BUF) lint
	$(BUF) generate

.PHONY: proto-lint
proto-lint: $(BUF) ## Fail when a proto file is not formatted or breaks a lint rule
	@$(BUF) format -d --exit-code --path proto/rms
	$(BUF) lint

.PHONY: generate-check
generate-check: $(BUF) ## Fail when generated code is stale or has no source
	@fresh=$$(mktemp -d); trap 'rm -rf "$$fresh"' EXIT
	$(BUF) generate -o "$$fresh"
	mkdir -p "$$fresh/committed"; cp proto/rms/v1/*.pb.go "$$fresh/committed/"
	if ! diff -rq "$$fresh/committed" "$$fresh/proto/rms/v1" >&2; then
	  echo 'generated code is stale: run `make proto` and commit what it writes' >&2; exit 1
	fi

.PHONY: breaking
breaking: $(BUF) ## Fail when the contract breaks callers of the frozen one
	@if [[ ! -f $(FROZEN) ]]; then echo '$(FROZEN) is missing: run `make freeze` and commit it' >&2; exit 1; fi
	now=$$(mktemp --suffix=.binpb); trap 'rm -f "$$now"' EXIT
	$(BUF) build --path proto/rms -o "$$now"
	if ! $(BUF) breaking "$$now" --against $(FROZEN) --exclude-imports; then
	  echo 'the contract breaks its callers. Before version 1.0 this can be meant: then say why in the commit and run `make freeze`' >&2
	  exit 1
	fi

.PHONY: freeze
freeze: proto ## Freeze the contract: what `make breaking` compares with from now on
	@$(BUF) build --path proto/rms --exclude-source-info -o $(FROZEN)

##### Tools

# Compiled once; rebuilt when the pinned version changes.
$(BUF): tools/buf/go.mod tools/buf/go.sum
	@mkdir -p $(TOOLS); echo 'building buf (once, about 2 minutes)' >&2
	$(GO) build -C tools/buf $(BUILDFLAGS) -o $@ github.com/bufbuild/buf/cmd/buf

$(LINT): tools/lint/go.mod tools/lint/go.sum
	@mkdir -p $(TOOLS); echo 'building golangci-lint (once, about 2 minutes)' >&2
	$(GO) build -C tools/lint $(BUILDFLAGS) -o $@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint

.PHONY: tools
tools: $(BUF) $(LINT) ## Build the tools now

.PHONY: clean
clean: ## Remove what was built here (not the Go caches)
	@rm -rf bin $(CACHE)
