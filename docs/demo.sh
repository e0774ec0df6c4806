#!/bin/sh
# Shows the main job in a few seconds: two containers on one switch, what they
# say to each other, the way out to another host and in again from there, the
# tables, and packets' ways in words. This machine and the other one are network
# namespaces, which vanish with it. It has a node of its own and leaves nothing
# behind, also after Ctrl-C.
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
# It has a network namespace of its own: root makes one, and anyone in a user
# namespace.
if [ -z "${FAIRLEAD_DEMO-}" ]; then
	for way in '--net' '--map-root-user --net'; do
		# shellcheck disable=SC2086 # they are words
		if unshare $way ip link set lo up 2>/dev/null; then
			FAIRLEAD_DEMO=outside exec unshare $way "$0" "$@"
		fi
	done
	echo 'The outside is left out: it takes unshare, ip and the right to make network namespaces.'
fi

if [ "${FAIRLEAD_DEMO-}" = outside ]; then
	ip link set lo up
	echo 0 0 >/proc/sys/net/ipv4/ping_group_range # who may ping without a right: us
fi

# The containers run fairlead's own little clients and servers, so they have to
# find it.
PATH=$(cd "${1%/*}" && pwd):$PATH
trap '' INT TERM HUP # nobody would take away what a stopped mktemp made
home=$(mktemp -d "${TMPDIR:-/tmp}/fairlead-demo.XXXXXX")
FAIRLEAD_DIR=$home/node
export PATH FAIRLEAD_DIR

running= # processes to end
clean() {
	status=$?
	trap '' INT TERM HUP
	trap - EXIT
	for pid in $running; do kill "$pid" 2>/dev/null || true; done
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

# follow shows the way of a ping and of its answer.
follow() { # CONTAINER ADDRESS
	fairlead exec "$1" fairlead probe ping -i 0.3s "$2" >"$home/ping" &
	running="$running $!"
	try fairlead trace --words --grep echo -n 2 "$1"
	kill $!
	wait $! || true # 143 when it was told before it pinged
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
follow client "$web"

if [ "${FAIRLEAD_DEMO-}" = outside ]; then
	# client, web ── node, with sockets of this machine ── far eth0 another one
	here=198.51.100.1 host=198.51.100.2
	unshare --net sleep 60 &
	pid=$!
	running="$running $pid"
	outside() { nsenter --target "$pid" --net "$@"; }
	until [ "$(readlink "/proc/$pid/ns/net")" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.05; done
	ip link add far type veth peer name eth0 netns "$pid"
	ip addr add $here/24 dev far
	ip link set far up
	outside sh -c "ip link set lo up; ip link set eth0 up; ip addr add $host/24 dev eth0"
	ip route add default via $host
	# Not by outside: the shell between would be killed instead of the server.
	nsenter --target "$pid" --net fairlead probe http-server >"$home/outside" 2>&1 &
	running="$running $!"
	until fairlead network ls | grep -q $here; do sleep 0.05; done

	say 'A way out: ordinary sockets of this machine, which take no right. There is'
	echo "# another machine, $host."
	try fairlead network ls
	try fairlead show routes
	try fairlead exec client fairlead probe ping -c 2 -i 0.5s "$host"
	until grep -q serving "$home/outside"; do sleep 0.05; done
	try fairlead exec client fairlead probe get "http://$host/"

	say 'A way in: a published port. The container sees who really asks (outside runs'
	echo '# its command on the other machine), unless that is this machine by loopback.'
	try fairlead publish web 8080:80
	try outside fairlead probe get http://$here:8080/
	try fairlead probe get http://127.0.0.1:8080/

	say 'The rules of NAT, the connections, and what may pass.'
	try fairlead show nat
	try fairlead show flows
	try fairlead show rules

	say 'A packet to the outside and its answer, step by step.'
	follow client "$host"

	say 'And one that comes in by the published port.'
	: >"$home/asking"
	while [ -e "$home/asking" ] && outside fairlead probe get http://$here:8080/; do sleep 0.1; done >"$home/get" &
	running="$running $!"
	try fairlead trace --words --grep SYN -n 2 web
	rm "$home/asking"
	wait $!
fi

say 'Every frame is accounted for: on each port, in and out.'
try fairlead show switch -v
try fairlead check

say 'All gone again.'
try fairlead down --all
