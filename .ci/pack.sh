# Shared code of the packages. Sourced by agent/debian/build and host/debian/build, which set `top`, the directory of
# the checkout, and are called with BINARY ARCHITECTURE DIRECTORY [VERSION]. The same binary and SOURCE_DATE_EPOCH
# produce the same bytes on every machine.
umask 022
binary=$1 arch=$2 folder=$3
version=${4:-$(sed -n 's/^version = "\(.*\)"/\1/p' "$top/Cargo.toml" | head -n 1)}
: "${SOURCE_DATE_EPOCH:=$(git -C "$top" log -1 --format=%ct)}"
export SOURCE_DATE_EPOCH
case $arch in
    amd64) triple=x86_64-unknown-linux-musl ;;
    *) triple=aarch64-unknown-linux-musl ;;
esac

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
# mktemp creates its directory with mode 0700, and this one becomes the entry for / in the package.
chmod 0755 "$root"

# put MODE FILE NAME: copies a file into the package.
put() {
    install -D -m "$1" "$2" "$root/$3"
}

# put_pages FILE …: adds manual pages.
put_pages() {
    for page in "$@"; do
        put 0644 "$page" "usr/share/man/man${page##*.}/${page##*/}"
        gzip -9n "$root/usr/share/man/man${page##*.}/${page##*/}"
    done
}

# pack PACKAGE CONTROL [SCRIPT …]: adds the common files and prints the file name of the package.
pack() {
    package=$1 control=$2
    shift 2
    doc=usr/share/doc/$package
    put 0644 "$top/CHANGELOG.md" "$doc/changelog"
    gzip -9n "$root/$doc/changelog"
    # The licence, indented as the format of debian/copyright requires.
    copyright=$(sed -n 's/^Copyright (c) /Copyright: /p' "$top/LICENSE")
    license=$(sed -n '/^Permission/,$ { s/^$/./; s/^/ /; p }' "$top/LICENSE")
    awk -v copyright="$copyright" -v license="$license" \
        '$0 == "@COPYRIGHT@" { $0 = copyright } $0 == "@LICENSE@" { $0 = license } { print }' \
        "$top/.ci/copyright.in" >"$root/$doc/copyright"
    (cd "$top" && cargo tree --quiet --locked -p "$package" -e normal --target "$triple" \
        --prefix none --no-dedupe --format '{p}: {l}') |
        sed "s/ (proc-macro)//; /^$package /d; s| (/[^)]*)||" | LC_ALL=C sort -u >"$root/$doc/libraries.txt"
    "$top/.ci/sbom" "$package" "$triple" >"$root/$doc/sbom.cdx.json"

    mkdir "$root/DEBIAN"
    # Counts regular files only: the size of a directory depends on the file system.
    size=$(find "$root" -type f -printf '%s\n' | awk '{ sum += int(($1 + 1023) / 1024) } END { print sum }')
    sed "s/@VERSION@/$version/; s/@ARCH@/$arch/; s/@SIZE@/$size/" "$control" >"$root/DEBIAN/control"
    (cd "$root" && find . -path ./DEBIAN -prune -o -type f -printf '%P\0' | LC_ALL=C sort -z | xargs -0 md5sum) \
        >"$root/DEBIAN/md5sums"
    for script in "$@"; do
        put 0755 "$script" "DEBIAN/${script##*/}"
    done
    find "$root" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +

    mkdir -p "$folder"
    # xz, because the dpkg of every supported release can read it.
    dpkg-deb --root-owner-group -Zxz --build "$root" "$folder/${package}_${version}_$arch.deb" >/dev/null
    echo "$folder/${package}_${version}_$arch.deb"
}
