#!/bin/sh
# A stand-in for flash.sh: packs rootfs/ into bootloader/system.img and flashes that, or with -r the one that is there.
#   ROOTFS_AB=1  two root file systems, system.img and system.img_b
set -eu
cd "$(dirname "$0")"
. ./stand-in.sh

reuse=no flash=yes
while :; do
    case ${1:-} in
        -r) reuse=yes ;;
        --no-flash) flash=no ;;
        -*) fail "unknown option $1" ;;
        *) break ;;
    esac
    shift
done
[ $# -eq 2 ] || fail "usage: flash.sh [OPTIONS] BOARD ROOTDEV"
[ -f "$1.conf" ] || fail "no such board: $1"
images=system.img
[ "${ROOTFS_AB:-0}" = 0 ] || images="system.img system.img_b"

folder=rootfs
case $2 in
    internal | mmcblk*) ;;
    # Such a unit has its root file system elsewhere: the image is for booting alone.
    nvme*)
        folder=bootloader/boot-only
        rm -rf $folder
        mkdir -p $folder
        cp -a rootfs/boot $folder
        ;;
    *) fail "no such root device: $2" ;;
esac

for image in $images; do
    if [ $reuse = yes ]; then
        echo "Reusing existing $image..."
        [ -e "bootloader/$image" ] || fail "file does not exist."
    else
        make_image "bootloader/$image" $folder
    fi
done
[ $flash = yes ] || exit 0

begin_board
for image in $images; do
    [ "$(kind "bootloader/$image")" = sparse ] || fail "bootloader/$image is not sparse"
    write_partition "APP${image#system.img}" "bootloader/$image"
    break_off
done
end_board
echo "*** The target $1 has been flashed successfully. ***"
