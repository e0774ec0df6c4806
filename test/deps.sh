#!/usr/bin/env bash
# Installs the Debian packages of packages.txt, or of the list given, that are
# missing. It does so as root only, and not with DEPS=no; otherwise it says what is
# missing. Called by make deps, make test, make engines and make bench.
set -euo pipefail
cd "$(dirname "$0")"

# present PACKAGE [PROGRAM...]: are the programs there, from wherever?
present() {
	local pkg=$1 program
	shift
	if [ $# = 0 ]; then
		[[ $(dpkg-query -W -f '${Status}' "$pkg" 2>/dev/null) == *'ok installed' ]]
		return
	fi
	for program; do
		PATH=$PATH:/usr/sbin:/sbin command -v "$program" >/dev/null || return 1
	done
}

missing=()
while read -ra line; do
	present "${line[@]}" || missing+=("${line[0]}")
done < <(sed 's/#.*//; /^[[:space:]]*$/d' "${1:-packages.txt}")
[ ${#missing[@]} -gt 0 ] || exit 0

echo "Missing Debian packages: ${missing[*]}"
if [ "${DEPS:-}" = no ] || ! command -v apt-get >/dev/null; then
	exit 0
elif [ "$(id -u)" != 0 ]; then
	echo "To install them: sudo make deps"
	exit 0
fi

# No package may start a service on this machine.
policy=/usr/sbin/policy-rc.d
restore() {
	rm -f "$policy"
	[ ! -e "$policy.before" ] || mv "$policy.before" "$policy"
}
trap restore EXIT
trap 'exit 130' INT TERM
[ ! -e "$policy" ] || mv "$policy" "$policy.before"
printf '#!/bin/sh\nexit 101\n' >"$policy"
chmod 755 "$policy"

export DEBIAN_FRONTEND=noninteractive
install() { apt-get install -y -qq --no-install-recommends "${missing[@]}" </dev/null; }
if ! install >/dev/null 2>&1; then # perhaps for want of package lists
	apt-get update -qq
	install
fi
echo "Installed: ${missing[*]}"
