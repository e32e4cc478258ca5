# What both stand-ins share. They know azaion's side of the real scripts alone: which files they read, make, check and
# keep, and in which order. Boards are on the bench beside this folder:
#   bench/cut      a flash of this number breaks off half-way, as with a loose cable, once
#   bench/unit-N   what the Nth board that was flashed has on its partitions, for whoever looks into it

bench=../bench

fail() {
    echo "Error: $*" >&2
    exit 1
}

# The kind of an image, by content alone.
kind() {
    case $(od -An -tx1 -N4 "$1" | tr -d ' \n') in
        3aff26ed) echo sparse; return ;;
    esac
    if [ "$(dd if="$1" bs=1 skip=257 count=5 2>/dev/null | tr -d '\0')" = ustar ]; then echo tar; else echo raw; fi
}

# Makes the raw image and the sparse one of a folder: images NAME.raw and NAME
make_image() {
    name=$1 folder=$2
    echo "Making $name..."
    # The old one goes, as an image made by mkfs is a new file.
    rm -f "$name.raw" "$name"
    mkfs.ext4 -q -F -b 4096 -E root_owner=0:0 -d "$folder" "$name.raw" 16M >/dev/null
    img2simg "$name.raw" "$name"
}

# Puts an image onto a partition of the board that is at hand.
write_partition() {
    partition=$bench/at-hand/$1 image=$2
    mkdir -p "$partition"
    case $(kind "$image") in
        tar) tar --numeric-owner --xattrs '--xattrs-include=*' -xpf "$image" -C "$partition" ;;
        sparse)
            simg2img "$image" "$bench/at-hand/$1.raw"
            write_file_system "$bench/at-hand/$1.raw" "$partition"
            rm "$bench/at-hand/$1.raw"
            ;;
        raw) write_file_system "$image" "$partition" ;;
    esac
}

write_file_system() {
    e2fsck -fn "$1" >/dev/null 2>&1 || fail "$image holds no whole file system"
    # debugfs ends with 0 whatever happens; it gives files their modes and owners.
    debugfs -R "rdump / $2" "$1" 2>/dev/null
    rmdir "$2/lost+found"
}

# A board is taken to hand, then flashed, partition by partition, then it is done.
begin_board() {
    rm -rf "$bench/at-hand"
    mkdir -p "$bench/at-hand"
    attempt=$(($(cat "$bench/attempts" 2>/dev/null || echo 0) + 1))
    echo "$attempt" >"$bench/attempts"
}

break_off() {
    if [ "$(cat "$bench/cut" 2>/dev/null)" = "$attempt" ]; then
        rm -rf "$bench/at-hand"
        fail "the board does not answer any more"
    fi
}

end_board() {
    count=$(ls -d "$bench"/unit-* 2>/dev/null | wc -l)
    mv "$bench/at-hand" "$bench/unit-$((count + 1))"
}
