#!/bin/sh
# Tries what a compromised agent would try, and prints `NAME done` or `NAME refused` for each:  sandbox-probe.sh SLEEPER
#
# SLEEPER is the id of a process of root. `package::sandbox` runs this in place of the agent in its unit, and as root
# outside of it, where each attempt must succeed: an attempt that fails there as well would prove nothing.
sleeper=$1

try() { # NAME COMMAND…
    name=$1
    shift
    if "$@" >/dev/null 2>&1; then echo "$name done"; else echo "$name refused"; fi
}
write() { # FILE
    true >"$1" && rm -f "$1"
}
# Connects to a socket, if one listens, and sends nothing.
connect() { # FILE
    perl -MSocket -e 'socket(S, PF_UNIX, SOCK_STREAM, 0) && connect(S, sockaddr_un($ARGV[0])) or exit 1' "$1"
}
family() { # NUMBER
    perl -e 'socket(S, $ARGV[0], 3, 0) or exit 1' "$1"
}
syscall() { # NUMBER-ON-X86-64 NUMBER-ON-ARM64 ARGUMENT…
    perl -e 'my @n = splice(@ARGV, 0, 2); exit(syscall($n[$ENV{MACHINE} eq "aarch64"], map { /^\d+$/ ? $_ + 0 : $_ } @ARGV) < 0)' "$@"
}
MACHINE=$(uname -m)
export MACHINE

# Start programs as root.
try systemctl-start systemctl --no-ask-password start probed.service
try systemctl-manager connect /run/systemd/private
try systemd-run systemd-run --no-ask-password --quiet --wait /bin/true
try bus-connect connect /run/dbus/system_bus_socket
try bus-start-unit busctl --timeout=5 call org.freedesktop.systemd1 /org/freedesktop/systemd1 \
    org.freedesktop.systemd1.Manager StartUnit ss probed.service replace
try bus-names busctl --timeout=5 call org.freedesktop.DBus / org.freedesktop.DBus ListNames
try bus-hostname busctl --timeout=20 call org.freedesktop.hostname1 /org/freedesktop/hostname1 \
    org.freedesktop.DBus.Properties Get ss org.freedesktop.hostname1 Hostname
try become-root perl -e '$> = 0; $< = 0; exit($> != 0 || !open(F, "<", "/root/secret"))'
try become-another perl -e '$> = 1; exit($> != 1)'

# Read files that only root can read.
for file in /etc/azaion/device.conf /etc/shadow /etc/shadow- /etc/gshadow /etc/ssh/ssh_host_ed25519_key \
    /etc/NetworkManager/system-connections/wifi.nmconnection /run/NetworkManager/system-connections/wifi.nmconnection \
    /etc/wpa_supplicant/wpa_supplicant.conf /etc/netplan/wifi.yaml /run/netplan/wpa-wlan0.conf /root/secret; do
    try "read$file" cat "$file"
done
# The same with a mode that lets all users read them.
for file in /etc/ssh/open /etc/NetworkManager/system-connections/open /etc/wpa_supplicant/open /etc/netplan/open; do
    try "read$file" cat "$file"
done

# Write elsewhere. All users may write to the directories in `open`.
for directory in / /boot /dev/mqueue /dev/shm /etc /etc/azaion /home/open /media /mnt /mnt/open /opt /root /run /run/lock /run/open \
    /run/systemd /run/systemd/system /run/user /run/user/open /srv/open /usr /var /var/lib /var/lib/open /var/lib/systemd; do
    try "write$directory" write "$directory/.probe"
done
try write-message-queue syscall 240 180 probe 66 384 0
try write-shared-memory perl -e 'defined(my $id = shmget(0, 4096, 0600)) or exit 1; shmctl($id, 0, 0)'

# Attack other processes and the kernel.
try kill kill -0 "$sleeper"
try kill-manager kill -0 1
# PTRACE_SEIZE
try ptrace syscall 101 117 16902 "$sleeper" 0 0
try see-processes ls "/proc/$sleeper/status"
try read-environment cat "/proc/$sleeper/environ"
try mount mount -t tmpfs none /mnt
umount /mnt 2>/dev/null
try new-namespaces unshare --user true
try network-netlink family 16
try network-packet family 17
try device-node mknod /dev/shm/.probe b 7 0
rm -f /dev/shm/.probe

# What the agent needs.
for directory in /run/azaion /var/lib/azaion /tmp /var/tmp; do
    try "own-write$directory" write "$directory/probe"
done
# Lets the test check from outside whether the two are private.
touch /tmp/from-probe /var/tmp/from-probe
for file in /etc/azaion/agent.toml /run/systemd/resolve/stub-resolv.conf /run/NetworkManager/resolv.conf \
    /run/resolvconf/resolv.conf /proc/sys/kernel/random/boot_id; do
    try "own-read$file" cat "$file"
done
try own-journal connect /run/systemd/journal/stdout
try own-dev-log test -S /dev/log -o -S /run/systemd/journal/dev-log
try own-notify test -w /run/systemd/notify
