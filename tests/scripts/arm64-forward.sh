#!/bin/sh
# One connection of the emulated machine to the server on the loopback of this one: arm64-forward.sh PORT CLOSED
#
# While the file CLOSED is there, it is closed at once, as by a server whose service does not run yet.
set -eu
[ ! -e "$2" ] || exit 0
exec socat - "TCP4:127.0.0.1:$1"
