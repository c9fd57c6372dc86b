#!/usr/bin/env bash
# Runs all tests with the race detector and says at the end what was left out because a part is not installed.
# With FLAUDEBOT_TEST_COMPLETE=1 leaving anything out is a failure.
set -uo pipefail
cd "$(dirname "$0")/.."
log=$(mktemp)
trap 'rm -f "$log"' EXIT
race=-race
if [ "$(go env CGO_ENABLED)" != 1 ]; then # the race detector needs a C compiler
  race=
  echo "left out: the race detector: a C compiler is not installed" >"$log"
fi
go test $race -timeout 15m -v ./... >>"$log" 2>&1
code=$?
# Failures in full; otherwise a line for each package.
if [ "$code" -ne 0 ]; then
  grep -vE '^\s*(=== (RUN|PAUSE|CONT|NAME)|--- (PASS|SKIP))' "$log" | grep -vE '^PASS$' | tail -n 400
else
  grep -E '^(ok|FAIL|\?)' "$log"
fi
left=$(grep -oE 'left out: .*' "$log" | sort | uniq -c)
if [ -n "$left" ]; then
  echo
  echo "Left out (tests, reason):"
  echo "$left"
  if [ "${FLAUDEBOT_TEST_COMPLETE:-}" = 1 ]; then
    echo "FLAUDEBOT_TEST_COMPLETE=1: nothing may be left out"
    code=1
  fi
else
  echo
  echo "Nothing was left out."
fi
exit "$code"
