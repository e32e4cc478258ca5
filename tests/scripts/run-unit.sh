#!/bin/sh
# Runs one systemd unit to its end under a private systemd and journald, and writes the journal as JSON lines.
#
#   run-unit.sh UNIT_DIRECTORY UNIT JOURNAL_FILE
#
# A mount namespace with an empty /run separates both from the machine's own; needs root. The unit must end the manager
# itself (SuccessAction=exit-force, FailureAction=exit-force).
set -eu
# One at a time: managers in the same control group kill each other's units of the same name.
exec 9<"$0"
flock 9
export UNITS="$1" UNIT="$2" JOURNAL="$3"
exec unshare --mount --propagation private sh -eu -c '
    mount -t tmpfs none /run
    mkdir -p /run/systemd/system /run/systemd/journal /run/log/journal
    mkdir -m 700 -p /run/user/0
    /lib/systemd/systemd-journald &
    journald=$!
    until [ -S /run/systemd/journal/stdout ]; do sleep 0.02; done
    env -i PATH="$PATH" HOME=/root XDG_RUNTIME_DIR=/run/user/0 SYSTEMD_UNIT_PATH="$UNITS" \
        timeout --kill-after=5 60 /lib/systemd/systemd --user --unit="$UNIT" --log-target=journal || true
    journalctl --sync
    journalctl -D /run/log/journal -o json >"$JOURNAL"
    kill "$journald"
    wait "$journald" || true
'
