#!/bin/sh
# Shows the main job in a few seconds: two containers on one switch, what they
# say to each other, the switch's tables, and one packet's way in words.
# It has a node of its own and leaves nothing behind, also after Ctrl-C.
#
#	docs/demo.sh bin/fairlead
set -eu

case ${1:-} in
*/fairlead) ;;
*)
	echo "usage: $0 PATH/TO/fairlead; make build makes bin/fairlead" >&2
	exit 125
	;;
esac
# The containers run fairlead's own little clients and servers, so they have to
# find it.
PATH=$(cd "${1%/*}" && pwd):$PATH
trap '' INT TERM HUP # nobody would take away what a stopped mktemp made
home=$(mktemp -d "${TMPDIR:-/tmp}/fairlead-demo.XXXXXX")
FAIRLEAD_DIR=$home/node
export PATH FAIRLEAD_DIR

pings=
clean() {
	status=$?
	trap '' INT TERM HUP
	trap - EXIT
	[ -z "$pings" ] || kill "$pings" 2>/dev/null || true
	fairlead down --all || status=$?
	wait
	rm -rf "$home"
	exit "$status"
}
trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

say() { printf '\n# %s\n' "$*"; }

try() {
	printf '$ %s\n' "$*"
	"$@"
}

say 'Two containers: programs of this machine in namespaces of their own.'
try fairlead run -d --name web -- fairlead probe http-server
try fairlead run -d --name client -- sleep 60
try fairlead ps

web=$(fairlead inspect --format '{{.NetworkSettings.IPAddress}}' web)
gateway=$(fairlead inspect --format '{{.NetworkSettings.Gateway}}' web)

say 'They reach each other, and the gateway.'
try fairlead exec client fairlead probe ping -c 2 -i 0.5s "$web"
try fairlead exec client fairlead probe get "http://$web/"
try fairlead exec client fairlead probe ping -c 1 "$gateway"

say 'The switch, who is behind which port, and whom the gateway knows.'
try fairlead show switch
try fairlead show mac
try fairlead show arp

say 'One packet and its answer, and why they went where they went.'
fairlead exec client fairlead probe ping -i 0.3s "$web" >"$home/ping" &
pings=$!
try fairlead trace --words --grep echo -n 2 client
kill "$pings"
wait "$pings" || true # 143 when it was told before it pinged

say 'Every frame is accounted for: on each port, in and out.'
try fairlead show switch -v

say 'All gone again.'
try fairlead down --all
