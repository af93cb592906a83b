#!/usr/bin/env bash
# Fetches the libraries that the tools link (JSON, Unicode, regex, hashes, HDF5, cmocka, and
# pkg-config to find them) for a GPU machine without network: .deb files of this Debian or Ubuntu,
# unpacked into tests/gpu/packages, which is copied with the checkout. Libraries built against an
# older glibc run on a newer one, so fetch on the older system. FFTW, OpenBLAS and cairo are not
# among them: such a machine builds with -DFKV_PLAIN=ON.
#
#   tests/gpu/packages.sh     (needs apt-get and dpkg-deb, not root; about 25 MB unpacked)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

wanted=(libjansson-dev libpcre2-dev libutf8proc-dev libssl-dev libcmocka-dev libhdf5-dev pkgconf)
# Not fetched: the compiler's own libraries, and those that nothing here links.
unwanted='-dev$|^libc6|^libc-|^libgcc|^libstdc|^libgfortran|^libquadmath|^libcrypt[0-9]|^libnsl'
unwanted+='|^libtirpc|^libdb5|^libsqlite|^libnss|^libnspr|^libjpeg|^libcurl3'
unwanted+='|^libpcre2-(16|32|posix)|^libhdf5-(hl|cpp|fortran)|-modules-db$'
# What the wanted packages need at run time.
needed() {
    apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks \
        --no-replaces --no-enhances "${wanted[@]}" |
        grep '^lib\|^pkgconf\|^zlib' | sort -u | grep -vE -- "$unwanted"
}

fetched=$(mktemp -d)
trap 'rm -rf "$fetched"' EXIT
mapfile -t packages < <({ needed; printf '%s\n' "${wanted[@]}"; } | sort -u)
(cd "$fetched" && apt-get download -q "${packages[@]}" >/dev/null 2>&1)
rm -rf packages
for deb in "$fetched"/*.deb; do dpkg-deb -x "$deb" packages; done

# Only headers, shared libraries and pkg-config's descriptions are used.
if [[ -d packages/lib ]]; then cp -a packages/lib/. packages/usr/lib && rm -rf packages/lib; fi
# A compiler looks into include/*-linux-gnu only under /usr.
cp -a packages/usr/include/*-linux-gnu*/. packages/usr/include
rm -rf packages/usr/include/*-linux-gnu*
find packages -name '*.a' -delete
find packages -xtype l -delete
rm -rf packages/usr/share packages/etc
rm -rf packages/usr/lib/*/{cmake,engines-3,ossl-modules,krb5,gss,sasl2,p11-kit}
echo "tests/gpu/packages: ${#packages[@]} packages, $(du -sm packages | cut -f1) MB"
