#!/usr/bin/env bash
# Fuzzes every target of the packages given for FUZZTIME each, a duration or a
# count such as 10000x. What breaks one is kept in testdata/fuzz of its package.
# Called by make fuzz, and with a count by make test: with a duration, Go 1.26
# on a busy machine sometimes reports "context deadline exceeded" and no input
# (go.dev/issue/75804).
set -euo pipefail
cd "$(dirname "$0")/.."

# Lines of FOLDER TARGET.
targets() {
	go list -f '{{$d := .Dir}}{{range .TestGoFiles}}{{$d}}/{{.}} {{end}}{{range .XTestGoFiles}}{{$d}}/{{.}} {{end}}' "$@" |
		xargs -r grep -Ho '^func Fuzz[A-Za-z0-9_]*' | sed -E 's|/[^/]*:func | |'
}

failed=0
while read -r folder target; do
	# Two workers: more would only share the time. By default making one input
	# smaller may take a minute, however short the rest is.
	said=$(go test -run '^$' -fuzz "^$target\$" -fuzztime "$FUZZTIME" -fuzzminimizetime 1000x -parallel 2 "$folder" 2>&1 </dev/null) || {
		failed=1
		printf '%s\n' "$said"
	}
	printf 'fuzz %s %s: %s\n' "${folder##*/}" "$target" "$(sed -n 's/^fuzz: //p' <<<"$said" | tail -n 1)"
done < <(targets "$@")
exit $failed
