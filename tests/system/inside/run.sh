#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Runs inside a Debian root with a compiler: natively when tools/test-image builds it, then in the guest. What it prints
# must be the same, so nothing here prints a time, a path of its own or a random number.
#
#   run.sh PART...     of: compile bzip2 python openssl
set -u
here=$(dirname "$0")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
export LC_ALL=C PYTHONHASHSEED=0 PYTHONDONTWRITEBYTECODE=1 SOURCE_DATE_EPOCH=1

# One program by three levels of optimisation: the same binaries, the same output.
compile() {
    cp "$here/program.c" .
    for level in 0 2 3; do
        gcc -O$level -w -o program program.c -pthread -lm || echo "gcc -O$level failed"
        sha256sum program
        ./program | sha256sum
    done
    ./program
}

# bzip2 from its Debian source: made, and tested by its own tests.
bzip2() {
    tar -xf "$here"/bzip2_*.orig.tar.gz
    cd bzip2-* || return
    make -s libbz2.a bzip2 CC=gcc CFLAGS='-O1 -w -D_FILE_OFFSET_BITS=64' >/dev/null 2>&1
    sha256sum ./*.o
    make -s test CC=gcc CFLAGS='-O1 -w -D_FILE_OFFSET_BITS=64' 2>&1 | grep -A4 '^Doing'
    cd ..
}

python() {
    for name in struct long float math re sort generators complex zlib hashlib mmap thread; do
        timeout 300 python3 -m unittest -q "test.test_$name" 2>&1 |
            sed -nE 's/^Ran ([0-9]+) tests? in .*/ran \1/p; /^(OK|FAILED|ERROR|FAIL)/p' | sed "s/^/$name: /"
    done
}

openssl() {
    python3 -c 'import sys; sys.stdout.buffer.write(bytes((i * i ^ i >> 7) & 255 for i in range(300000)))' >data
    for digest in md5 sha1 sha256 sha512 sha3-256 blake2b512 ripemd160 sm3; do
        command openssl dgst -$digest data
    done
    for cipher in aes-128-cbc aes-256-ctr aes-256-ecb camellia-256-cbc aria-128-ctr chacha20 des-ede3-cbc; do
        command openssl enc -$cipher -K 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f \
            -iv 0f0e0d0c0b0a09080706050403020100 -in data 2>/dev/null | sha256sum
    done
    for tool in 'gzip -n' xz zstd; do
        $tool -9 -c <data | sha256sum
        $tool -c <data | $tool -d | cmp - data && echo "$tool: the same again"
    done
}

for part in "$@"; do
    echo "== $part"
    $part
done
