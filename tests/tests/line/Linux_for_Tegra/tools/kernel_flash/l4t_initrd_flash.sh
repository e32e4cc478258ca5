#!/bin/sh
# A stand-in for l4t_initrd_flash.sh: --no-flash packs rootfs/ into images/, --flash-only flashes what lies there.
#   ROOTFS_AB=1  two root file systems, system.img and system.img_b
set -eu
cd "$(dirname "$0")/../.."
. ./stand-in.sh
here=tools/kernel_flash

make=yes flash=yes sparse=no layout='' device=''
while :; do
    case ${1:-} in
        --no-flash) flash=no ;;
        --flash-only) make=no ;;
        --sparse) sparse=yes ;;
        --showlogs) ;;
        --network | -S) shift ;;
        --external-device) device=$2; shift ;;
        -c) layout=$2; shift ;;
        -p) [ -f "${2#-c }" ] || fail "no such layout: $2"; shift ;;
        -*) fail "unknown option $1" ;;
        *) break ;;
    esac
    shift
done
[ $# -eq 2 ] || fail "usage: l4t_initrd_flash.sh [OPTIONS] BOARD ROOTDEV"
[ -f "$1.conf" ] || fail "no such board: $1"

make_images() {
    [ -n "$device" ] || fail "which device? give --external-device"
    [ -f "$layout" ] || fail "no such layout: $layout"
    rm -rf $here/images
    mkdir -p $here/images/internal $here/images/external
    : >$here/images/internal/flash.idx
    for partition in APP APP_b; do
        # What is not in the layout is not made; the layout for A/B has both, and its switch has to be set for it.
        grep -q "\"$partition\"" "$layout" || continue
        image=system.img${partition#APP}
        echo "$partition $image" >>$here/images/external/flash.idx
        if [ $sparse = yes ]; then
            make_image "bootloader/$image" rootfs
            cp "bootloader/$image" "$here/images/external/$image"
        else
            echo "Making $image as an archive..."
            tar --numeric-owner --xattrs '--xattrs-include=*' -cpf "$here/images/external/$image" -C rootfs .
        fi
        (cd $here/images/external && sha1sum "$image" >"$image.sha1sum")
    done
    [ "$(wc -l <$here/images/external/flash.idx)" = "$((${ROOTFS_AB:-0} + 1))" ] || fail "ROOTFS_AB and $layout differ"
    echo "$1 $2" >$here/initrdflashparam.txt
}

flash_images() {
    [ "$(cat $here/initrdflashparam.txt 2>/dev/null)" = "$1 $2" ] || fail "no images for $1 $2: run --no-flash first"
    begin_board
    while read -r partition image; do
        [ -f "$here/images/external/$image" ] || fail "there is no $image"
        [ -f "$here/images/external/$image.sha1sum" ] || fail "there is no $image.sha1sum"
        (cd $here/images/external && sha1sum --quiet -c "$image.sha1sum") || fail "$image is not what was made"
        write_partition "$partition" "$here/images/external/$image"
        break_off
    done <$here/images/external/flash.idx
    end_board
    echo "Flash is successful"
}

[ $make = no ] || make_images "$@"
[ $flash = no ] || flash_images "$@"
