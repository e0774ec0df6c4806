#!/usr/bin/env bash
# Runs the tests of the packages given, in a world of their own (test/world), and
# at the end lists by name what could not run here. Called by make test, which
# has built bin/ before.
#
# Round 1 is everything, with the race detector where a C compiler is. Round 2
# is what makes sense without it only, round 3 a moment of fuzzing per parser.
set -euo pipefail
cd "$(dirname "$0")/.."

go mod download # there is no network inside
mkdir -p .cache
export CGO_ENABLED=0 # as the program is built; the race detector is the exception
export FAIRLEAD_NOTRUN=$PWD/.cache/notrun FAIRLEAD_BIN=$PWD/bin/fairlead
: >"$FAIRLEAD_NOTRUN"

race=no
if [ "${RACE:-}" = no ]; then
	echo "Without the race detector, as RACE=no says."
elif printf '#include <stdlib.h>\nint main(void) { return 0; }\n' | $(CGO_ENABLED=1 go env CC) -x c -o /dev/null - 2>/dev/null; then
	race=yes
else
	printf 'the race detector: needs a C compiler\tsudo apt-get install gcc libc6-dev\n' >>"$FAIRLEAD_NOTRUN"
	[ -z "${CI:-}" ] || { cat "$FAIRLEAD_NOTRUN"; exit 1; }
fi

# Packages run one after another: several in parallel would take the time from
# one another that their tests measure. So they are all compiled before; what
# does not compile is said in its turn.
round() {
	bin/world go test -exec true -run '^$' "$@" >/dev/null 2>&1 || true
	bin/world go test -exec "'$PWD/bin/world'" -p 1 -count 1 -timeout 7m "$@"
}

trap 'exit 130' INT TERM
failed=0
start=$SECONDS
if [ $race = no ]; then
	round "$@" || failed=1
else
	# Nodes and inits that tests start report races too, into files. The second
	# a program under the detector sleeps before it ends would double the time.
	rm -f .cache/race.*
	export GORACE="atexit_sleep_ms=0 log_path=$PWD/.cache/race"
	# Static as the real one is, because it also runs where there is no libc.
	CGO_ENABLED=1 go build -race -tags netgo,osusergo -ldflags '-linkmode external -extldflags -static' \
		-o bin/race/ ./cmd/...
	CGO_ENABLED=1 FAIRLEAD_BIN=$PWD/bin/race/fairlead round -race "$@" || failed=1
	if compgen -G '.cache/race.*' >/dev/null; then
		cat .cache/race.*
		failed=1
	fi
	mapfile -t release < <(go list -f '{{.Dir}}' "$@" | xargs -d "\n" grep -l --include='*_test.go' -r 'NeedRelease(t)' | xargs -d "\n" -r dirname | sort -u)
	[ ${#release[@]} = 0 ] || round -run Release "${release[@]}" || failed=1
fi
# A parser that loops would hang the fuzzer for good.
timeout --foreground 5m bin/world env FUZZTIME=10000x test/fuzz.sh "$@" || failed=1
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
