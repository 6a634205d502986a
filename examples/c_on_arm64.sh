#!/usr/bin/env bash
# A network in a C program on arm64: one compiler call, nothing of TVM or Python on the device, and the bits of this machine.
#
#   examples/c_on_arm64.sh [FOLDER]
#
# qemu-aarch64 (Debian package qemu-user) runs the program here; on a board, copy `classify` and run it there.
set -euo pipefail
example=$(cd "$(dirname "$0")" && pwd)/c/main.c
folder=${1:-c_on_arm64}
mkdir -p "$folder"
cd "$folder"

bnn-deploy export bcdnet_tiny -o bcdnet_tiny.onnx
bnn-deploy compile bcdnet_tiny.onnx --target arm64 -o arm64
python -c 'import numpy; numpy.random.default_rng(0).standard_normal((1, 3, 32, 32), numpy.float32).tofile("image.bin")'

# Any C compiler for arm64 does; zig's comes with bnn-deploy.
python -m ziglang cc -target aarch64-linux-musl -static -s "$example" -I arm64 arm64/libmodel.a -o classify
qemu-aarch64 classify image.bin logits_arm64.bin

# The same program for this machine.
bnn-deploy compile bcdnet_tiny.onnx --target host -o host
python -m ziglang cc -target "$(uname -m)-linux-musl" -static -s "$example" -I host host/libmodel.a -o classify_here
./classify_here image.bin logits_here.bin
cmp logits_arm64.bin logits_here.bin
echo "arm64 and $(uname -m): the same bits"
