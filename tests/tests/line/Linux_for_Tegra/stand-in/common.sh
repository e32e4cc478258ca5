# Shared by the stand-ins for NVIDIA's scripts. They reproduce what those do with the root file system and its images:
# which files they read, write, require and keep, in which format, and in which order. `stand-in/release` selects the
# release.
#
# The boards are beside Linux_for_Tegra:
#   bench/partition-size  size of the partitions APP and APP_b (default 16M)
#   bench/cut             the flash with this number fails halfway, once, as with a loose cable
#   bench/unit-N          the drive of the Nth board that was flashed: one file for each partition, PARTITION.img
set -euo pipefail

bench=../bench
release=$(cat stand-in/release)
tar_options=(--numeric-owner --xattrs '--xattrs-include=*')
mounted=
trap '[ -z "$mounted" ] || umount "$mounted"' EXIT

fail() {
    echo "Error: $*" >&2
    exit 1
}

is_root() { [ "$(id -u)" = 0 ]; }

partition_size() { cat $bench/partition-size 2>/dev/null || echo 16M; }

# The names of the system images, and of a partition's image.
system_images() { if [ "${ROOTFS_AB:-0}" = 0 ]; then echo system.img; else echo system.img system.img_b; fi; }
partition_of() { echo "APP${1#system.img}"; }

# with_directory COMMAND...: appends the path of an empty directory to the command.
with_directory() {
    local directory
    directory=$(mktemp -d "$bench/mnt.XXXXXX")
    "$@" "$directory"
    chmod -R u+rwx "$directory"
    rm -rf "$directory"
}

# fill_ext4 IMAGE COMMAND...: makes a file system in an image; the command writes its content into the directory that is
# appended to it. Who is not root cannot mount: mkfs.ext4 copies the directory then. A block size of 4096 is the default for a
# partition of real size.
fill_ext4() { with_directory fill_ext4_at "$@"; }
fill_ext4_at() {
    local directory=${*: -1} image=$1
    local command=("${@:2:$#-2}")
    if is_root; then
        mkfs.ext4 -q -F -b 4096 "$image"
        mount -o loop "$image" "$directory"
        mounted=$directory
        "${command[@]}" "$directory"
        umount "$directory"
        mounted=
    else
        "${command[@]}" "$directory"
        mkfs.ext4 -q -F -b 4096 -d "$directory" "$image"
    fi
}

# read_ext4 IMAGE COMMAND...: appends the path of a directory with the content of an image to the command.
read_ext4() { with_directory read_ext4_at "$@"; }
read_ext4_at() {
    local directory=${*: -1} image=$1
    local command=("${@:2:$#-2}")
    if is_root; then
        mount -o loop,ro "$image" "$directory"
        mounted=$directory
        "${command[@]}" "$directory"
        umount "$directory"
        mounted=
    else
        debugfs -R "rdump / $directory" "$image" 2>/dev/null
        "${command[@]}" "$directory"
    fi
}
