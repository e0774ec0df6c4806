#!/usr/bin/env bash
# Records which system calls nodes make in a run of the scenarios, into
# node/lockin/testdata/recorded.txt, which a test there holds against the list.
# Called by make syscalls, which has built bin/ before. Each node runs under
# strace, so that takes a while, and what measures time may fail.
set -euo pipefail
cd "$(dirname "$0")/.."

export FAIRLEAD_RECORD=$PWD/.cache/syscalls FAIRLEAD_BIN=$PWD/bin/fairlead CGO_ENABLED=0
out=node/lockin/testdata/recorded.txt
rm -rf "$FAIRLEAD_RECORD"
mkdir -p "$FAIRLEAD_RECORD" "$(dirname $out)"
bin/world go test -exec "'$PWD/bin/world'" -count 1 -timeout 60m ./test "$@" ||
	echo 'Some tests failed. What was recorded counts all the same.'
{
	echo "# System calls of nodes in the scenarios, by make syscalls. $(go env GOARCH)"
	sort -u "$FAIRLEAD_RECORD"/*
} >$out
echo "$(grep -vc '^#' $out) system calls in $out"
