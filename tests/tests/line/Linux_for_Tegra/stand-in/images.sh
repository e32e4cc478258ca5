# Generates system images: what `flash.sh` builds in bootloader/, and what `l4t_initrd_flash.sh` puts into images/.

copy_from() { cp -a "$1/." "$2"; }

# build_system_image NAME DIRECTORY: bootloader/NAME.raw, an ext4 image with the host's default features, and
# bootloader/NAME, its Android sparse form.
build_system_image() {
    local image=bootloader/$1
    echo "Making $1..."
    rm -f "$image" "$image.raw"
    truncate -s "$(partition_size)" "$image.raw"
    fill_ext4 "$image.raw" copy_from "$2"
    img2simg "$image.raw" "$image"
}

# pack OPTIONS... -C DIRECTORY
pack() { tar "${tar_options[@]}" "$@" .; }

# convert_system_image NAME IS_SPARSE: writes the image in the form of this release to $images, and sets $converted to its name
# there.
convert_system_image() {
    local raw=bootloader/$1.raw
    converted=$1
    case $release-$2 in
        R36.2-no) read_ext4 "$raw" pack -cpf "$images/$1" -C ;;
        R36.2-yes) cp "bootloader/$1" "$images/$1" ;;
        *-no) read_ext4 "$raw" pack -I 'zstd -T0' -cpf "$images/$1" -C ;;
        *-yes)
            converted=$1.zst
            # A file of known size, so that the header of the frame has it.
            zstd -q -f -T0 "$raw" -o "$images/$converted"
            ;;
    esac
}

# 40 digits and a newline, without a name.
write_sum() { sha1sum "$images/$1" | cut -d ' ' -f 1 >"$images/$1.sha1sum"; }

# use_image PARTITION FILE: the line of flash.cfg by which the flasher finds the image of a partition.
use_image() { echo "$1_ext=$2" >>"$images/flash.cfg"; }

# add_partition NUMBER PARTITION: of these partitions, the fields for file, size of the file and SHA-1 are empty.
add_partition() { echo "$1, 9:0:$2, $((20480 * $1)), 59055800320, , , fixed-<reserved>-$1, " >>"$images/flash.idx"; }
