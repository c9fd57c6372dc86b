# Everything that is done with flaudebot. `make help` lists it.

SHELL := /bin/bash
GO ?= go
# The cache is of this work tree alone: it holds absolute paths, which exclusions are read at.
LINT := GOLANGCI_LINT_CACHE=$(CURDIR)/.tools/lint-cache $(GO) tool -modfile=tools/golangci-lint.mod golangci-lint
CLAUDE_PIN := tools/claude-code
IMAGE ?= registry.fly.io/$(FLAUDEBOT_FLY_APP):session

.PHONY: help demo build test pictures crash chaos soak mutants fuzz bench lint vulncheck fmt image-test release images deploy

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z\/-]+:.*## / {printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: build ## run the bot in a local world, with a page to talk to it; ARGS="--slack 127.0.0.1:0" for flags
	@bin/flaudebot demo $(ARGS)

build: ## build bin/flaudebot
	@echo "building bin/flaudebot (the first time the modules are fetched, and it takes about a minute)"
	@mkdir -p bin
	@CGO_ENABLED=0 $(GO) build -o bin/flaudebot ./cmd/flaudebot

test: ## run all tests with the race detector, and say what was left out
	@GORACE=atexit_sleep_ms=0 $(GO) run ./tools/testall -race -parallel 4 -timeout 25m ./... # else every process waits a second at its end; tests mostly wait, and more of them may than there are cores

pictures: ## draw every state of every message, and what docs/using.md shows, into docs/pictures
	FLAUDEBOT_TEST_PICTURES=$(CURDIR)/docs/pictures $(GO) test -count=1 -run '^TestPictures$$' ./bot
	FLAUDEBOT_TEST_PICTURES=$(CURDIR)/docs/pictures $(GO) test -count=1 -run '^TestUsing$$' ./cmd/flaudebot

CRASH = $(GO) test -count=1 -timeout 4h -v
FENCES = nofence_queue nofence_clock nofence_runner nofence_look nofence

crash: ## kill and pause a replica around each of its requests, kill a runner before each of its steps, take the fences out (about an hour)
	@log=$$(mktemp) && trap "rm -f $$log" EXIT && set -o pipefail && bad=0 && \
	run() { "$$@" 2>&1 | tee -a $$log | grep --line-buffered -vE '^=== |http: proxy error' || bad=1; } && \
	FLAUDEBOT_TEST_STRIKES=all run $(CRASH) -run '^TestStrike$$' -parallel 12 ./cmd/flaudebot; \
	FLAUDEBOT_TEST_PAUSES=all run $(CRASH) -run '^TestPause$$' -parallel 12 ./cmd/flaudebot; \
	FLAUDEBOT_TEST_CRASHES=all run $(CRASH) -run '^TestCrashes$$' -parallel 4 ./runner; \
	for fence in $(FENCES); do run $(CRASH) -tags $$fence -run '^TestWithout' ./cmd/flaudebot ./runner; done; \
	echo; grep -E '(TestStrike|TestPause|crashes of the runner): |^--- .*TestWithout' $$log; exit $$bad

chaos: ## let everything fail at random under load, and draw up a ledger (about 20 minutes)
	FLAUDEBOT_TEST_CHAOS=1 $(GO) test -count=1 -timeout 2h -run '^TestChaos$$' -v ./cmd/flaudebot

soak: ## have people talk to the bot for SOAK (30m), and look whether it keeps its size
	FLAUDEBOT_TEST_SOAK=$(SOAK) $(GO) test -tags soak -count=1 -timeout 0 -run '^TestSoak$$' -v ./cmd/flaudebot

mutants: ## change every statement and comparison of the queue's scripts, and have the tests notice (about half an hour)
	FLAUDEBOT_TEST_MUTANTS=all $(GO) test -count=1 -timeout 4h -run '^TestMutants$$' -v ./queue

FUZZ_SECONDS ?= 60

fuzz: ## try inputs on every parser of what comes from outside, for a minute each (FUZZ_SECONDS)
	@for pkg in ./bot ./fly ./runner; do for target in $$($(GO) test -list '^Fuzz' $$pkg | grep ^Fuzz); do \
		echo "$$pkg $$target" && $(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZ_SECONDS)s -fuzzminimizetime 1s $$pkg || exit 1; \
	done; done

bench: ## measure the queue beside asynq, and what else has a target (on a quiet machine); BENCH="-flaude PYTHON" for turns beside flaude
	cd bench && $(GO) run . $(BENCH)

lint: ## gofmt, go vet, go fix, golangci-lint, go mod tidy
	@test -z "$$(gofmt -l .)" || { echo "gofmt would change:"; gofmt -l .; exit 1; }
	$(GO) fix -diff ./...
	$(GO) vet ./...
	GOOS=darwin $(GO) vet ./...
	$(LINT) run ./...
	$(GO) mod tidy -diff
	cd bench && $(GO) vet ./... && $(GO) mod tidy -diff

vulncheck: ## look for known vulnerabilities in what the bot is made of (needs vuln.go.dev)
	$(GO) tool -modfile=tools/govulncheck.mod govulncheck ./...

fmt: ## format the code and apply go fix
	$(LINT) fmt ./...
	$(GO) fix ./...

image-test: ## make the session image's root with debootstrap, and run a turn of the real Claude Code in it (as root on Debian; some minutes the first time)
	@command -v debootstrap >/dev/null || { echo "make image-test needs debootstrap: apt-get install debootstrap"; exit 1; }
	FLAUDEBOT_TEST_CLAUDE=$${FLAUDEBOT_TEST_CLAUDE:-$(CURDIR)/.tools/claude-code/node_modules/.bin/claude} $(GO) test -tags image -count=1 -timeout 30m -run '^TestSessionImage$$' -v ./deploy

DIST ?= dist
PLATFORMS ?= linux/amd64 linux/arm64 darwin/amd64 darwin/arm64

release: ## build an archive for each platform and their checksums into dist/, of the commit as it is tagged
	@test -z "$$(git status --porcelain)" || { echo "make release: commit first, so that the binaries can say what they are"; exit 1; }
	@mkdir -p $(DIST) && rm -f $(DIST)/flaudebot_* $(DIST)/SHA256SUMS
	@version=$$(git describe --tags --always) && for platform in $(PLATFORMS); do \
		os=$${platform%/*}; arch=$${platform#*/}; name=flaudebot_$${version}_$${os}_$${arch}; work=$$(mktemp -d) && mkdir $$work/$$name && \
		CGO_ENABLED=0 GOOS=$$os GOARCH=$$arch $(GO) build -buildvcs=true -trimpath -ldflags="-s -w" -o $$work/$$name/flaudebot ./cmd/flaudebot && \
		cp README.md CHANGELOG.md LICENSE $$work/$$name/ && tar -C $$work -czf $(DIST)/$$name.tar.gz $$name && rm -r $$work && echo $(DIST)/$$name.tar.gz || exit 1; \
	done
	@cd $(DIST) && sha256sum flaudebot_*.tar.gz > SHA256SUMS

images: ## build and push the session image (needs docker and flyctl)
	@command -v docker >/dev/null || { echo "make images needs docker: see https://docs.docker.com/get-started/get-docker/"; exit 1; }
	@command -v flyctl >/dev/null || { echo "make images needs flyctl, for Fly's registry: see https://fly.io/docs/flyctl/install/"; exit 1; }
	@test -n "$(FLAUDEBOT_FLY_APP)" || { echo "set FLAUDEBOT_FLY_APP to the Fly app of the session machines"; exit 1; }
	flyctl auth docker
	docker build --platform linux/amd64 -f deploy/session.Dockerfile -t $(IMAGE) .
	docker push $(IMAGE)

ENV_FILE ?= $(wildcard flaudebot.env)

deploy: ## look whether the bot can work on Fly, deploy it, and see that it does (needs flyctl; see README)
	@$(if $(ENV_FILE),:,echo "make deploy: there is no flaudebot.env here, and ENV_FILE=… names no other file: the settings are taken from the environment (bin/flaudebot setup writes a file)")
	@$(MAKE) --no-print-directory build
	@bin/flaudebot deploy $(if $(ENV_FILE),--env-file $(ENV_FILE))
