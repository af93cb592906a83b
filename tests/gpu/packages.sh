#!/usr/bin/env bash
# Fetches what the tools link beyond the compiler (JSON, Unicode, regex, hashes, HDF5, cmocka, and pkg-config to find them) for a GPU machine without network: .deb files of this
# Debian or Ubuntu, unpacked into tests/gpu/packages, which travels with the checkout. Libraries built against an older glibc run on a newer one,
# so fetch on the older system. FFTW, OpenBLAS and cairo are not among them: such a machine builds with -DFKV_PLAIN=ON.
#
#   tests/gpu/packages.sh     (needs apt-get and dpkg-deb, not root; about 25 MB unpacked)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

wanted=(libjansson-dev libpcre2-dev libutf8proc-dev libssl-dev libcmocka-dev libhdf5-dev pkgconf)
# What the wanted ones lean on at run time. The compiler brings its own (libc, libgcc, ...); the other HDF5 and PCRE2 flavours are not linked.
needed() {
    apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances "${wanted[@]}" |
        grep '^lib\|^pkgconf\|^zlib' | sort -u |
        grep -vE -- '-dev$|^libc6|^libc-|^libgcc|^libstdc|^libgfortran|^libquadmath|^libcrypt[0-9]|^libnsl|^libtirpc|^libdb5|^libsqlite|^libnss|^libnspr|^libjpeg|^libcurl3|^libpcre2-(16|32|posix)|^libhdf5-(hl|cpp|fortran)|-modules-db$'
}

fetched=$(mktemp -d)
trap 'rm -rf "$fetched"' EXIT
mapfile -t packages < <({ needed; printf '%s\n' "${wanted[@]}"; } | sort -u)
(cd "$fetched" && apt-get download -q "${packages[@]}" >/dev/null 2>&1)
rm -rf packages
for deb in "$fetched"/*.deb; do dpkg-deb -x "$deb" packages; done

# Only headers, shared libraries and pkg-config's descriptions are used.
if [[ -d packages/lib ]]; then cp -a packages/lib/. packages/usr/lib && rm -rf packages/lib; fi
cp -a packages/usr/include/*-linux-gnu*/. packages/usr/include # which a compiler finds by itself only under /usr
rm -rf packages/usr/include/*-linux-gnu*
find packages -name '*.a' -delete
find packages -xtype l -delete
rm -rf packages/usr/share packages/etc packages/usr/lib/*/{cmake,engines-3,ossl-modules,krb5,gss,sasl2,p11-kit}
echo "tests/gpu/packages: ${#packages[@]} packages, $(du -sm packages | cut -f1) MB"
