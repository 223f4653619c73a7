# noroshi's build. `make demo` shows it at work, `make test` passes the tests;
# both need only Go and fetch the modules they need.
export CGO_ENABLED := 0
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
COMMIT  := $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT)
GO      := go
FUZZTIME ?= 20s
# -tags noengine makes a static program without the embedded engine.
GOTAGS  ?=
VULNDB ?= https://vuln.go.dev

.PHONY: build engine library demo test lint vuln fuzz race bench profile score release clean help

help: ## what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

build: ## bin/noroshi for this machine
	$(GO) build $(GOTAGS) -trimpath -ldflags '$(LDFLAGS)' -o bin/noroshi ./cmd/noroshi

engine: ## bin/libchdb.so, the library of the history's engine (npm, 200 MB)
	./store/engine/lib/fetch.sh

library:
	@./store/engine/lib/fetch.sh || echo "*** WITHOUT THE HISTORY'S ENGINE: the reason is above; all else works, and its tests are skipped" >&2

demo: build library ## a generated provider network under attack, live
	./bin/noroshi demo

test: lint library ## linters and all tests
	$(GO) test $(TESTFLAGS) ./...

race: ## tests under the race detector (needs a C compiler)
	CGO_ENABLED=1 $(GO) test -race ./...

lint: ## gofmt, go vet, staticcheck
	@test -z "$$(gofmt -l .)" || { echo "not formatted:"; gofmt -l .; exit 1; }
	$(GO) vet ./...
	$(GO) tool staticcheck ./...

vuln: ## known weaknesses in what is used; asks VULNDB, and passes if that can't be reached
	@$(GO) tool govulncheck -db $(VULNDB) ./... || { code=$$?; test $$code = 1 && \
		echo "vuln: NOT EXAMINED: the reason is above; VULNDB=file:///... names a copy of the database" >&2; }

fuzz: ## every fuzz target for FUZZTIME (20s)
	./fuzz.sh $(FUZZTIME)

bench: ## benchmarks in a form for benchstat
	$(GO) test -run '^$$' -bench . -benchmem -count 6 ./...

profile: ## cmd/noroshi/default.pgo anew, by which the compiler orders the hot paths (two idle cores, 20 s)
	./bench/profile.sh cmd/noroshi/default.pgo

score: build ## every scenario against its ground truth
	./bin/noroshi score

test-cluster: ## the history's conformance suite against a ClickHouse: URL=http://host:8123 [CLUSTER=name] [USER=name PASSWORD_FILE=file]
	@test -n "$(URL)" || { echo "make test-cluster URL=http://host:8123 [CLUSTER=name] [USER=name PASSWORD_FILE=file]" >&2; exit 2; }
	NOROSHI_CLUSTER_URL='$(URL)' NOROSHI_CLUSTER='$(CLUSTER)' NOROSHI_CLUSTER_USER='$(if $(PASSWORD_FILE),$(USER))' NOROSHI_CLUSTER_PASSWORD_FILE='$(PASSWORD_FILE)' \
		$(GO) test -count 1 -run TestURL -v ./store/history/...

release: ## in dist/: for linux amd64 and arm64, with the embedded engine (needs glibc), and static without it
	for arch in amd64 arm64; do \
		GOOS=linux GOARCH=$$arch $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o dist/noroshi-$(VERSION)-linux-$$arch ./cmd/noroshi && \
		GOOS=linux GOARCH=$$arch $(GO) build -tags noengine -trimpath -ldflags '$(LDFLAGS)' -o dist/noroshi-$(VERSION)-linux-$$arch-static ./cmd/noroshi || exit 1; \
	done
	cd dist && sha256sum noroshi-$(VERSION)-linux-* > SHA256SUMS

clean:
	rm -rf bin dist
