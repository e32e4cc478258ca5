#!/bin/bash
# A stand-in for flash.sh: builds bootloader/system.img from rootfs/ and flashes it, or with -r the one that is there.
#   ROOTFS_AB=1  two root file systems, system.img and system.img_b
cd "$(dirname "$0")"
. stand-in/common.sh
. stand-in/images.sh
. stand-in/flasher.sh

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

directory=rootfs
case $2 in
    internal | mmcblk*) ;;
    # The root file system is elsewhere: the image is only for booting.
    nvme*)
        directory=bootloader/boot-only
        rm -rf $directory
        mkdir -p $directory
        cp -a rootfs/boot $directory
        ;;
    *) fail "no such root device: $2" ;;
esac

for image in $(system_images); do
    if [ $reuse = yes ]; then
        echo "Reusing existing $image..."
        [ -e "bootloader/$image" ] || fail "file does not exist."
    else
        build_system_image "$image" "$directory"
    fi
done
[ $flash = yes ] || exit 0

begin_board
for image in $(system_images); do
    drive=$bench/at-hand/$(partition_of "$image").img
    if is_sparse "bootloader/$image"; then write_sparse "bootloader/$image" "$drive"
    else write_raw "bootloader/$image" "$drive"
    fi
    fail_if_cut
done
end_board
echo "*** The target $1 has been flashed successfully. ***"
