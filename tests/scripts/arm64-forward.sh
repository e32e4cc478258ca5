#!/bin/sh
# Forwards one connection of the emulated machine to a server on this machine's loopback address: arm64-forward.sh PORT
# CLOSED
#
# While the file CLOSED exists, the connection is closed at once, as by a host whose service is not running.
set -eu
[ ! -e "$2" ] || exit 0
exec socat - "TCP4:127.0.0.1:$1"
