#!/bin/sh
# Creates a minimal arm64 root file system of a Debian release, with its kernel beside it: arm64-root.sh RELEASE
# DIRECTORY
#
# Creates DIRECTORY/rootfs and DIRECTORY/vmlinuz, atomically at the end. Nothing runs in the tree: packages are only
# unpacked, and this script does the part of their maintainer scripts that a boot needs. Run as root.
set -eu
release=$1 folder=$2
work=$folder.new
root=$work/rootfs
rm -rf "$work"
mkdir -p "$work"

# Uses the Debian mirror of this machine's apt; without one, mmdebstrap uses its own default.
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' | head -n 1)
# Python is for the simulated loader.
# shellcheck disable=SC2086 # no mirror is no argument
mmdebstrap --quiet --variant=extract --architectures=arm64 --aptopt='APT::Install-Recommends "false"' \
    --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr \
    --include=base-files,base-passwd,dash,coreutils,grep,systemd,udev,kmod,iproute2,linux-image-cloud-arm64 \
    --include=python3-minimal,libpython3-stdlib \
    "$release" "$root" $mirror

# ext4 and NVMe are built into this kernel, so it needs no initrd; only the modules of the emulated devices are kept.
mv "$root"/boot/vmlinuz-* "$work/vmlinuz"
version=$(basename "$root"/usr/lib/modules/*)
modules=$root/usr/lib/modules/$version
find "$modules/kernel" -type f ! -name 'virtio*' ! -name '*failover.ko*' ! -name 'autofs4.ko*' -delete
find "$modules/kernel" -type d -empty -delete
depmod -b "$root/usr" "$version" 2>/dev/null || depmod -b "$root" "$version"

# Files that a boot never reads.
rm -rf "$root"/boot/* "$root"/usr/share/doc "$root"/usr/share/man "$root"/usr/share/locale "$root"/usr/share/info \
    "$root"/usr/share/perl* "$root"/usr/bin/perl* "$root"/usr/lib/*/perl* "$root"/usr/share/initramfs-tools \
    "$root"/usr/lib/*/gconv "$root"/var/cache/* "$root"/var/lib/apt/* "$root"/var/lib/dpkg/info

put() {
    mkdir -p "$root/$(dirname "$1")"
    cat >"$root/$1"
}
cp "$root/usr/share/base-passwd/passwd.master" "$root/etc/passwd"
cp "$root/usr/share/base-passwd/group.master" "$root/etc/group"
echo uninitialized | put etc/machine-id
echo unit | put etc/hostname
: | put etc/fstab
echo '127.0.0.1 localhost' | put etc/hosts
# No DNS server answers there: names come from /etc/hosts, if at all.
rm -f "$root/etc/resolv.conf"
echo 'nameserver 10.0.2.8' | put etc/resolv.conf
mkdir -p "$root/var/log/journal"
printf '[Match]\nType=ether\n[Network]\nDHCP=ipv4\nIPv6AcceptRA=no\nLinkLocalAddressing=no\n' |
    put etc/systemd/network/80-dhcp.network

# Only explicitly linked units are enabled, also on the first boot, when systemd applies its presets.
echo 'disable *' | put etc/systemd/system-preset/00-as-unpacked.preset
units=$root/etc/systemd/system
mkdir -p "$units/basic.target.wants"
ln -s /lib/systemd/system/systemd-networkd.service "$units/basic.target.wants/"
ln -sf /lib/systemd/system/multi-user.target "$units/default.target"
# No prompt and no login on the console, no outgoing connections; and no service that takes an emulated machine seconds
# and is unrelated to the agent.
for unit in systemd-firstboot.service console-getty.service getty.target systemd-timesyncd.service \
    systemd-networkd-wait-online.service ldconfig.service systemd-hwdb-update.service systemd-pstore.service \
    systemd-update-utmp.service systemd-update-utmp-runlevel.service proc-sys-fs-binfmt_misc.automount \
    sys-kernel-debug.mount sys-kernel-tracing.mount sys-fs-fuse-connections.mount sys-kernel-config.mount \
    dev-hugepages.mount dev-mqueue.mount modprobe@.service systemd-ask-password-console.path \
    systemd-ask-password-wall.path; do
    ln -s /dev/null "$units/$unit"
done

# Control channel of the test: a root shell at a serial port of the emulator.
put etc/udev/rules.d/99-hand.rules <<'UDEV'
SUBSYSTEM=="virtio-ports", KERNEL=="vport*", TAG+="systemd", ENV{SYSTEMD_WANTS}+="hand@%k.service"
UDEV
put etc/systemd/system/hand@.service <<'UNIT'
[Unit]
Description=The hand of the test
DefaultDependencies=no
Conflicts=shutdown.target
[Service]
Environment=PATH=/usr/sbin:/usr/bin
ExecStart=/bin/sh -c 'exec /bin/sh <>/dev/%i >&0 2>&0'
UNIT
mv -T "$work" "$folder"
