# The session machine: the runner is process 1 and root; Claude Code runs as the user claude and holds no credential.
FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -ldflags="-s -w" -o /flaudebot ./cmd/flaudebot

# Claude Code, pinned in tools/claude-code.
FROM node:20-bookworm-slim AS claude
WORKDIR /claude
COPY tools/claude-code/package.json tools/claude-code/package-lock.json ./
RUN npm ci --no-audit --no-fund && cp -L node_modules/.bin/claude /usr/local/bin/claude-code && claude_version=$(/usr/local/bin/claude-code --version) && echo "$claude_version"

FROM debian:12-slim
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates git gh jq ripgrep curl procps \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 10001 --create-home --shell /bin/bash claude
COPY --from=claude /usr/local/bin/claude-code /usr/local/bin/claude
COPY --from=build /flaudebot /usr/local/bin/flaudebot
ENTRYPOINT ["/usr/local/bin/flaudebot", "runner"]
