#!/usr/bin/env bash
# Runs the tests beside real container engines. They need the machine's real root,
# and so a room of their own in place of a world: namespaces of network, mounts and
# processes, in which the engine's rules, bridges and sysctls end with it. What
# remains of it on the machine are its control groups, which are removed.
# Called by make engines, which has built bin/ before.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "$(id -u)" != 0 ]; then
	echo "The engines run as root only: sudo make engines"
	[ -z "${CI:-}" ] || exit 1
	exit 0
fi
export FAIRLEAD_ENGINES=/fairlead-engines.$$ FAIRLEAD_WORLD=root FAIRLEAD_BIN=$PWD/bin/fairlead CGO_ENABLED=0
go test -c -o .cache/engines.test ./test
sweep() {
	local groups=(/sys/fs/cgroup{,/*}"$FAIRLEAD_ENGINES")
	for _ in {1..50}; do
		find "${groups[@]}" -depth -type d -exec rmdir {} + 2>/dev/null || true
		[ -n "$(find "${groups[@]}" -maxdepth 0 2>/dev/null)" ] || return 0
		sleep 0.1 # what was in them is just ending
	done
	echo "Control groups of the engine are left: ${groups[*]}" >&2
}
trap sweep EXIT
trap 'exit 130' INT TERM
unshare --mount --net --pid --ipc --uts --fork --kill-child --mount-proc --propagation private bash -euc '
	mount -t tmpfs tmpfs /run
	mkdir -p /run/lock /run/checkout
	mount --bind . /run/checkout # which may lie in /tmp
	mount -t tmpfs tmpfs /tmp
	mkdir -p "$PWD"
	mount --bind /run/checkout "$PWD"
	umount /run/checkout
	ip link set lo up
	cd "$PWD/test"
	../.cache/engines.test -test.run Engine -test.count 1 -test.timeout 5m -test.v || exit $?' # this shell reaps
