# unpack-rustc-web DIR: Debian's Rust for the web, which can build the standard library for WebAssembly, unpacked into
# DIR and not installed: the machine's own Rust stays what it is. DIR/rustc runs it.
set -eu
cd "$1"
packages=$(apt-get install -s --no-install-recommends --reinstall rustc-web rust-web-src | awk '/^Inst/ { print $2 }')
[ -n "$packages" ] || { echo "apt-get knows no rustc-web; run apt-get update" >&2; exit 1; }
mkdir packages root
# One package a word.
(cd packages && apt-get download -q $packages)
for package in packages/*.deb; do dpkg -x "$package" root; done
rm -rf packages
cat >rustc <<'WRAPPER'
#!/bin/sh
root=$(dirname "$(readlink -f "$0")")/root
LD_LIBRARY_PATH=$(find "$root/usr/lib" -name '*.so*' -exec dirname {} + | sort -u | paste -s -d : -)${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export LD_LIBRARY_PATH
exec "$root/usr/bin/rustc" "$@"
WRAPPER
chmod +x rustc
./rustc --version >/dev/null
