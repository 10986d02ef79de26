#!/usr/bin/env bash
# Checks the Numba backend on an emulated 64-bit Arm CPU, and writes the result to tests/arm/result.txt:
#
#     tests/arm/run.sh FOLDER
#
# FOLDER becomes the root of an Arm system, and is used again by later calls. It needs Debian, root and pip: it installs
# QEMU and debootstrap and adds an architecture to dpkg, so nothing else calls it. A minute to set up, then up to ten.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=${1:?usage: tests/arm/run.sh FOLDER}
mkdir -p "$root"
root=$(cd "$root" && pwd)
python=3.11

install() {
    apt-get update -qq
    apt-get install -y -qq qemu-user-static debootstrap > /dev/null
    local mirror suite packages wheels platforms=()
    # The system's own mirror and release.
    mirror=$({ grep -rhoE 'https?://[^ ]+/debian/?$' /etc/apt/sources.list /etc/apt/sources.list.d/ 2> /dev/null || true; } | head -1)
    suite=$(. /etc/os-release; echo "$VERSION_CODENAME")
    debootstrap --arch=arm64 --variant=minbase --foreign "$suite" "$root" "$mirror" > /dev/null
    dpkg --add-architecture arm64
    apt-get update -qq
    packages=$(mktemp -d) wheels=$(mktemp -d)
    (
        cd "$packages"
        apt-get download -qq {python$python,python$python-minimal,libpython$python-minimal,libpython$python-stdlib}:arm64 \
            {libexpat1,libssl3,libffi8,libsqlite3-0,libbz2-1.0,liblzma5,libncursesw6,libtinfo6,libreadline8}:arm64 \
            {libuuid1,zlib1g,libstdc++6,libgcc-s1,libgomp1,libcrypt1}:arm64 2> /dev/null
        for package in *.deb; do dpkg -x "$package" "$root"; done
    )
    # dpkg -x replaces the link /lib by a folder.
    if [ ! -L "$root/lib" ]; then
        cp -rn "$root/lib/." "$root/usr/lib/"
        rm -rf "$root/lib"
        ln -s usr/lib "$root/lib"
    fi
    rm -f "$root/proc"
    mkdir -p "$root/proc" "$root/site" "$root/tmp"
    # QEMU reads the numbers of cores from it.
    cat /proc/cpuinfo > "$root/proc/cpuinfo"
    for version in 2_28 2_27 2_17; do platforms+=(--platform "manylinux_${version}_aarch64"); done
    python3 -m pip download -q --no-deps --only-binary=:all: --python-version $python --implementation cp \
        "${platforms[@]}" --platform manylinux2014_aarch64 -d "$wheels" numpy numba llvmlite safetensors threadpoolctl \
        platformdirs rich pygments markdown-it-py mdurl pytest pluggy iniconfig packaging
    for wheel in "$wheels"/*.whl; do python3 -m zipfile -e "$wheel" "$root/site"; done
    cp /usr/bin/qemu-aarch64-static "$root/usr/bin/"
    rm -rf "$packages" "$wheels"
    touch "$root/.ready"
}

emulated() {
    chroot "$root" /usr/bin/qemu-aarch64-static -E PYTHONPATH=/site -E NUMBA_CACHE_DIR=/tmp/cache -E HOME=/tmp \
        /usr/bin/python$python /site/tests/arm/checks.py "$@"
}

[ -e "$root/.ready" ] || install
rm -rf "$root/site/nnbackend" "$root/site/tests" "$root/tmp/cache"
cp -r nnbackend "$root/site/nnbackend"
mkdir "$root/site/tests"
cp -r tests/*.py tests/arm tests/backends "$root/site/tests/"
find "$root/site/nnbackend" "$root/site/tests" -name __pycache__ -prune -exec rm -rf {} +

# Three processes at once, which share compiled code; most of the time, they compile.
results=$(mktemp -d)
trap 'rm -rf "$results"' EXIT
start=$SECONDS
pids=()
emulated conformance 1 2 > "$results/1" 2>&1 & pids+=($!)
emulated conformance 2 2 > "$results/2" 2>&1 & pids+=($!)
emulated training > "$results/3" 2>&1 & pids+=($!)
failed=0
for pid in "${pids[@]}"; do wait "$pid" || failed=1; done
cat "$results"/[123]
[ "$failed" = 0 ] || { echo "the checks failed on Arm" >&2; exit 1; }
{
    echo "tests/arm/run.sh, commit $(git rev-parse --short=8 HEAD), $(date -u +%Y-%m-%d): everything passed in $((SECONDS - start)) s,"
    # The second line of `times` is of the processes that have ended. Other programs change it less than the time passed.
    echo "of which the processor worked (user and system, installing included): $(times | tail -n 1)"
    cat "$results"/[123]
} > tests/arm/result.txt
