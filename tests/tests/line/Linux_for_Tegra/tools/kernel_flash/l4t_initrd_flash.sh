#!/bin/bash
# A stand-in for l4t_initrd_flash.sh: --no-flash generates tools/kernel_flash/images/ from rootfs/, --flash-only flashes what
# lies there; without either it does both.
#   ROOTFS_AB=1  two root file systems, system.img and system.img_b
cd "$(dirname "$0")/../.."
. stand-in/common.sh
. stand-in/images.sh
. stand-in/flasher.sh
here=tools/kernel_flash
images=$here/images/external

generate=yes flash=yes sparse=no layout='' device='' only=''
# Since R39 the board's configuration has both.
case $release in R39*) layout=$here/flash_l4t_t234_nvme.xml device=nvme0n1p1 ;; esac
while :; do
    case ${1:-} in
        --no-flash) flash=no ;;
        --flash-only) generate=no ;;
        --sparse) sparse=yes ;;
        --showlogs) ;;
        --network | -S) shift ;;
        --external-device) device=$2; shift ;;
        -c) layout=$2; shift ;;
        -p) [ -f "${2#-c }" ] || fail "no such layout: $2"; shift ;;
        -k) only=$2; shift ;;
        # Declared with an argument, which is not used.
        -r) shift ;;
        -*) fail "unknown option $1" ;;
        *) break ;;
    esac
    shift
done
[ $# -eq 2 ] || fail "usage: l4t_initrd_flash.sh [OPTIONS] BOARD ROOTDEV"
[ -f "$1.conf" ] || fail "no such board: $1"

generate_images() {
    local image number=1
    [ -n "$device" ] || fail "which device? give --external-device"
    [ -f "$layout" ] || fail "no such layout: $layout"
    [ "$(grep -c '"APP' "$layout")" = "$((${ROOTFS_AB:-0} + 1))" ] || fail "ROOTFS_AB and $layout differ"
    rm -rf $here/images
    mkdir -p $here/images/internal "$images"
    printf 'external_device=\nCHIPID=0x23\n' >$here/images/internal/flash.cfg
    echo "1, 9:0:primary_gpt, 512, 19968, gpt_primary_9_0.bin, 16896, fixed-<reserved>-0, $(printf %040d 0)" >"$images/flash.idx"
    printf 'external_device=%s\nCHIPID=0x23\n' "$device" >"$images/flash.cfg"
    for image in $(system_images); do
        build_system_image "$image" rootfs
        convert_system_image "$image" $sparse
        write_sum "$converted"
        use_image "$(partition_of "$image")" "$converted"
        number=$((number + 1))
        add_partition $number "$(partition_of "$image")"
    done
    [ -z "$only" ] || copy_sparse "system.img${only#APP}"
    echo "$1 $2" >$here/initrdflashparam.txt
}

# With -k: a second line in flash.cfg makes the sparse image replace the generated one.
copy_sparse() {
    cp "bootloader/$1" "$images/$1"
    write_sum "$1"
    use_image "$(partition_of "$1")" "$1"
}

flash_images() {
    [ "$(cat $here/initrdflashparam.txt 2>/dev/null)" = "$1 $2" ] || fail "no images for $1 $2: run --no-flash first"
    begin_board
    # Internal before external, and the last assignment wins.
    . $here/images/internal/flash.cfg
    . "$images/flash.cfg"
    flash_index "$images" "$only"
    end_board
    echo "Flash is successful"
}

[ $generate = no ] || generate_images "$@"
[ $flash = no ] || flash_images "$@"
