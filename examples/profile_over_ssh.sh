#!/usr/bin/env bash
# What a board's cores make of a network, layer by layer, over ssh: nothing is installed there, nothing is left but a cached runner.
#
#   examples/profile_over_ssh.sh ssh://pi@raspberrypi.local [MODEL.onnx [FOLDER]]
#
# Without a model it takes bcdnet_tiny with seeded weights. FOLDER (profile_over_ssh) gets the page, the figures and the comparison.
set -euo pipefail
device=${1:?"usage: profile_over_ssh.sh ssh://USER@HOST [MODEL.onnx [FOLDER]]"}
model=${2:-}
[ -z "$model" ] || model=$(realpath "$model")
folder=${3:-profile_over_ssh}
mkdir -p "$folder"
cd "$folder"

if [ -z "$model" ]; then
    model=bcdnet_tiny.onnx
    bnn-deploy export bcdnet_tiny -o "$model"
fi
bnn-deploy compile "$model" --target arm64 -o bundle
bnn-deploy doctor --device "$device" --bundle bundle
bnn-deploy validate "$model" --bundle bundle --device "$device" --samples 4
bnn-deploy profile bundle --device "$device" --repeat 20 --report first.html --format json >first.json
bnn-deploy profile bundle --device "$device" --repeat 20 --format json >second.json

# 1 says that the second run was slower beyond the noise: of the same bundle, a board that got hot.
bnn-deploy compare first.json second.json || [ $? = 1 ]
