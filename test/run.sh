#!/usr/bin/env bash
# Runs the tests of the packages given, in worlds of their own (test/world), and
# at the end lists by name what could not run here. Called by make test, which
# has built bin/ before.
#
# That is everything, with the race detector where a C compiler is; then what
# makes sense without the detector only; each benchmark once; and a moment of
# fuzzing per parser. No test measures the machine, so several run side by side.
#
# With PLAIN=yes, from make plain, it is the scenarios, and the packages whose code
# differs then, built without what makes them fast (tag plain, see loop/plain.go), and
# without the race detector.
set -euo pipefail
cd "$(dirname "$0")/.."

go mod download # there is no network inside
mkdir -p .cache
export CGO_ENABLED=0 # as the program is built; the race detector is the exception
export FAIRLEAD_NOTRUN=$PWD/.cache/notrun FAIRLEAD_BIN=$PWD/bin/fairlead
: >"$FAIRLEAD_NOTRUN"

race=no
options=() # of what the scenarios are compiled with
if [ "${PLAIN:-}" = yes ]; then
	options=(-tags plain)
	export FAIRLEAD_BIN=$PWD/bin/plain/fairlead
	go build "${options[@]}" -o bin/plain/ ./cmd/...
	cp bin/fairlead-bench bin/plain/ # which fairlead looks for beside itself
elif [ "${RACE:-}" = no ]; then
	echo "Without the race detector, as RACE=no says."
elif printf '#include <stdlib.h>\nint main(void) { return 0; }\n' | $(CGO_ENABLED=1 go env CC) -x c -o /dev/null - 2>/dev/null; then
	race=yes
else
	printf 'the race detector: needs a C compiler\tsudo apt-get install gcc libc6-dev\n' >>"$FAIRLEAD_NOTRUN"
	[ -z "${CI:-}" ] || { cat "$FAIRLEAD_NOTRUN"; exit 1; }
fi

# tests runs the tests of packages, each package in a room of its own.
tests() { bin/world go test -exec "'$PWD/bin/world'" -count 1 -timeout 7m "$@"; }

# raced is tests with the race detector, if there is one.
raced() {
	[ $race = yes ] || { tests "$@"; return; }
	CGO_ENABLED=1 FAIRLEAD_BIN=$PWD/bin/race/fairlead tests -race "$@"
}

# scenario runs the tests of one file of test/, by the program that was compiled of
# all of them. One in which no test is chosen ends at once.
scenario() {
	local tests said status=0
	tests=$(sed -nE 's/^func (Test[A-Za-z0-9_]*)\(t .*/\1/p' "test/$1" | paste -s -d '|')
	[ -n "$tests" ] || return 0
	[ $race = no ] || export FAIRLEAD_BIN=$PWD/bin/race/fairlead
	said=$(cd test && ../bin/world ../.cache/scenarios -test.timeout 7m -test.run "^($tests)\$" 2>&1) || status=$?
	[ $status = 0 ] && echo "ok  	test/$1" || printf '%s\nFAIL	test/%s\n' "$said" "$1"
	return $status
}

# plain runs the tests of a package as bin/plain is built.
plain() { tests -tags plain "$@"; }

# released is what the detector would falsify, without it.
released() { tests -run Release "$@"; }

# benched runs each benchmark once, so that none rots; what it measures is nothing.
benched() {
	local said status=0
	said=$(tests -short -run '^$' -bench . -benchtime 1x "$@" 2>&1) || status=$?
	[ $status = 0 ] && said=${said##*$'\n'}
	echo "$said"
	return $status
}

# moment fuzzes the parsers of a package, from its seeds only. A count, because
# with a duration Go 1.26 on a busy machine sometimes reports "context deadline
# exceeded" and no input (go.dev/issue/75804).
moment() { bin/world sh -c 'exec bin/fuzz -time 1000x -jobs 1 -corpus "$(mktemp -d)" "$1"' sh "$1"; }

# job shows what a function says when it is done, not amid what others say. How
# long it took is noted, in milliseconds.
job() {
	local said status=0 began=${EPOCHREALTIME/./}
	said=$("$@" 2>&1) || status=$?
	printf '%d\t%s\n' $(((${EPOCHREALTIME/./} - began) / 1000)) "$*" >>"$times"
	[ -z "$said" ] || flock .cache cat <<<"$said"
	return $status
}

# jobs lists all there is to do, the longest first as far as the run before has
# noted it: a function and its arguments.
jobs() {
	all | awk -F '\t' 'before { took[$2] = $1; next } { printf "%d\t%s\n", took[$1], $1 }' before=1 "$times.before" before=0 - |
		sort -s -k 1,1nr | cut -f 2
}

# all lists it in the order of a first run. The scenarios are half of it, so they
# are dealt out by files.
all() {
	local rest
	rest=$(grep -vx fairlead/test <<<"$packages" || true)
	[ ! -x .cache/scenarios ] || (cd test && printf 'scenario %s\n' *_test.go)
	if [ "${PLAIN:-}" = yes ]; then
		printf 'plain fairlead/%s\n' switch gateway loop # of gateway it is who calls it
		return
	fi
	[ -z "$rest" ] || sed 's/^/raced /' <<<"$rest"
	[ $race = no ] || go list -f '{{.ImportPath}} {{.Dir}}' $packages | while read -r package folder; do
		! grep -qs 'NeedRelease(t)' "$folder"/*_test.go || echo "released $package"
	done
	go list -f '{{.ImportPath}} {{.Dir}}' $packages | while read -r package folder; do
		! grep -qs '^func Benchmark' "$folder"/*_test.go || echo "benched $package"
	done
	sed 's/^/moment /' <<<"$packages"
}

trap 'exit 130' INT TERM
failed=0
start=$SECONDS
packages=$(go list "$@")
rm -f .cache/race.* .cache/scenarios
times=.cache/times
[ "${PLAIN:-}" != yes ] || times=.cache/times.plain
touch "$times" && mv "$times" "$times.before" && : >"$times"
# All is compiled first, with all there is of the machine; what does not compile
# is said in its turn.
go list -test -export $packages >/dev/null 2>&1 || true
if [ $race = yes ]; then
	# Nodes and inits that tests start report races too, into files. The second
	# a program under the detector sleeps before it ends would double the time.
	export GORACE="atexit_sleep_ms=0 log_path=$PWD/.cache/race"
	# Static as the real one is, because it also runs where there is no libc.
	CGO_ENABLED=1 go build -race -tags netgo,osusergo -ldflags '-linkmode external -extldflags -static' \
		-o bin/race/ ./cmd/...
	cp bin/fairlead-bench bin/race/ # which fairlead looks for beside itself
	CGO_ENABLED=1 go list -race -test -export $packages >/dev/null 2>&1 || true
	options=(-race)
fi
if grep -qx fairlead/test <<<"$packages"; then
	CGO_ENABLED=$([ $race = no ] && echo 0 || echo 1) go test -c -o .cache/scenarios "${options[@]}" ./test || failed=1
fi

# Most tests wait more than they compute, so three jobs have room on two cores.
export race times
export -f tests raced scenario plain released benched moment job
jobs | xargs -P 3 -L 1 bash -c 'job "$@"' job || failed=1

if compgen -G '.cache/race.*' >/dev/null; then
	cat .cache/race.*
	failed=1
fi
echo 'The longest jobs, in seconds:'
# Without head, which ends before sort has said all; that ends sort by SIGPIPE, and us.
sort -rn "$times" | awk -F '\t' 'NR <= 10 { printf "%7.1f  %.90s\n", $1 / 1000, $2 }'
echo "The tests took $((SECONDS - start)) s."
if [ $((SECONDS - start)) -gt 600 ]; then
	echo 'That is more than the ten minutes they may take.'
	[ -z "${CI:-}" ] || failed=1
fi

if [ -s "$FAIRLEAD_NOTRUN" ]; then
	printf '\nNot run here:\n'
	sort -u "$FAIRLEAD_NOTRUN" | sed 's/\t/\n      try: /; s/^/  /'
fi
exit $failed
