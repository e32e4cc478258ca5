# Runs on the board: reads the images over NFS and writes the partitions of its drive.

is_sparse() { [ "$(od -An -tx1 -N4 "$1" | tr -d ' \n')" = 3aff26ed ]; }
is_tar() { file -b "$1" | grep -q 'tar archive'; }
is_zstd() { file -b "$1" | grep -q Zstandard; }

write_sparse() { simg2img "$1" "$2"; }
write_raw() { dd if="$1" of="$2" bs=4096 conv=notrunc status=none; }
write_compressed_raw() { zstd -q -T0 -d "$1" -c | dd of="$2" bs=4096 iflag=fullblock conv=sparse,notrunc status=none; }
unpack() { tar -x "${tar_options[@]}" "$@"; }
write_tar() { fill_ext4 "$2" unpack -pf "$1" -C; }
write_zstd_tar() { fill_ext4 "$2" unpack -I 'zstd -T0' -pf "$1" -C; }

# The formats, in the order of detection. Any other file is written unchanged.
write_until_R36_2() {
    if is_sparse "$1"; then write_sparse "$@"
    elif is_tar "$1"; then write_tar "$@"
    else write_raw "$@"
    fi
}

# As in R39.2; used for R36.5, too, for which it is not known whether it still accepts a plain tar.
write_since_R36_5() {
    if is_sparse "$1"; then write_sparse "$@"
    elif is_zstd "$1" && [[ $1 == *.zst ]]; then write_compressed_raw "$@"
    elif is_zstd "$1"; then write_zstd_tar "$@"
    else write_raw "$@"
    fi
}

# write_partition PARTITION IMAGE
write_partition() {
    local drive=$bench/at-hand/$1.img
    truncate -s "$(partition_size)" "$drive"
    case $release in
        R36.2) write_until_R36_2 "$2" "$drive" ;;
        *) write_since_R36_5 "$2" "$drive" ;;
    esac
}

# flash_index IMAGES_DIRECTORY PARTITION: writes all partitions of flash.idx, or one. The checksum of an image must
# exist; it is not compared.
flash_index() {
    local name partition image
    while IFS=, read -r _ name _ <&3; do
        partition=${name##*:}
        image=${partition}_ext
        [ -n "${!image:-}" ] || continue
        [ -z "$2" ] || [ "$2" = "$partition" ] || continue
        [ -f "$1/${!image}" ] || fail "no ${!image} for $partition"
        [ -f "$1/${!image}.sha1sum" ] || fail "no ${!image}.sha1sum"
        # For the tests only.
        echo "$(sha1sum <"$1/${!image}" | cut -d ' ' -f 1)|$(cat "$1/${!image}.sha1sum")" >>"$bench/sums"
        echo "Writing $partition partition with ${!image}"
        write_partition "$partition" "$1/${!image}"
        fail_if_cut
    done 3<"$1/flash.idx"
}

# begin_board, then the partitions, then end_board.
begin_board() {
    rm -rf "$bench/at-hand"
    mkdir -p "$bench/at-hand"
    attempt=$(($(cat "$bench/attempts" 2>/dev/null || echo 0) + 1))
    echo "$attempt" >"$bench/attempts"
}

fail_if_cut() {
    if [ "$(cat "$bench/cut" 2>/dev/null)" = "$attempt" ]; then
        rm -rf "$bench/at-hand"
        fail "the board does not answer any more"
    fi
}

end_board() {
    local count
    count=$(find "$bench" -maxdepth 1 -name 'unit-*' | wc -l)
    mv "$bench/at-hand" "$bench/unit-$((count + 1))"
}
