# Everything that is done with flaudebot. `make help` lists it.

SHELL := /bin/bash
GO ?= go
# The cache is of this work tree alone: it holds absolute paths, which exclusions are read at.
LINT := GOLANGCI_LINT_CACHE=$(CURDIR)/.tools/lint-cache $(GO) tool -modfile=tools/golangci-lint.mod golangci-lint
CLAUDE_PIN := tools/claude-code
IMAGE ?= registry.fly.io/$(FLAUDEBOT_FLY_APP):session

.PHONY: help demo build test pictures crash chaos mutants bench lint fmt images deploy

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z\/-]+:.*## / {printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: build ## run the bot in a local world, with a page to talk to it
	@bin/flaudebot demo

build: ## build bin/flaudebot
	@mkdir -p bin
	@CGO_ENABLED=0 $(GO) build -o bin/flaudebot ./cmd/flaudebot

test: ## run all tests with the race detector, and say what was left out
	@GORACE=atexit_sleep_ms=0 $(GO) run ./tools/testall -race -parallel 4 -timeout 15m ./... # else every process waits a second at its end; tests mostly wait, and more of them may than there are cores

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

mutants: ## change every statement and comparison of the queue's scripts, and have the tests notice (about half an hour)
	FLAUDEBOT_TEST_MUTANTS=all $(GO) test -count=1 -timeout 4h -run '^TestMutants$$' -v ./queue

bench: ## measure the queue beside asynq, and what else has a target (on a quiet machine)
	cd bench && $(GO) run .

lint: ## gofmt, go vet, go fix, golangci-lint, go mod tidy
	@test -z "$$(gofmt -l .)" || { echo "gofmt would change:"; gofmt -l .; exit 1; }
	$(GO) fix -diff ./...
	$(GO) vet ./...
	GOOS=darwin $(GO) vet ./...
	$(LINT) run ./...
	$(GO) mod tidy -diff
	cd bench && $(GO) vet ./... && $(GO) mod tidy -diff

fmt: ## format the code and apply go fix
	$(LINT) fmt ./...
	$(GO) fix ./...

images: ## build and push the session image (needs docker and flyctl)
	@command -v docker >/dev/null || { echo "make images needs docker"; exit 1; }
	@command -v flyctl >/dev/null || { echo "make images needs flyctl, for its registry"; exit 1; }
	@test -n "$(FLAUDEBOT_FLY_APP)" || { echo "set FLAUDEBOT_FLY_APP to the Fly app of the session machines"; exit 1; }
	flyctl auth docker
	docker build --platform linux/amd64 -f deploy/session.Dockerfile -t $(IMAGE) .
	docker push $(IMAGE)

deploy: ## deploy the bot to Fly (needs flyctl; see README)
	@command -v flyctl >/dev/null || { echo "make deploy needs flyctl"; exit 1; }
	flyctl deploy --config deploy/fly.toml --dockerfile deploy/Dockerfile
