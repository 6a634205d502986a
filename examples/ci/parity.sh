#!/usr/bin/env bash
# Compile a model and fail unless the bundle computes what the model computes.
#
#   parity.sh MODEL.onnx [TARGET [DEVICE [OPTIONS of bnn-deploy validate ...]]]
#
# TARGET and DEVICE are as in `bnn-deploy compile --target` and `bnn-deploy validate --device` (host and local if left out).
# PARITY_OUT is the folder for the bundle and the reports (parity if not set).
# Exit status: 0 parity, 1 the bundle computes something else, 2 the check could not be made.
set -euo pipefail

model=${1:?"usage: parity.sh MODEL.onnx [TARGET [DEVICE [OPTIONS of bnn-deploy validate ...]]]"}
target=${2:-host}
device=${3:-local}
shift $(($# < 3 ? $# : 3))
out=${PARITY_OUT:-parity}

mkdir -p "$out"
rm -f "$out"/parity.{html,xml,md,json}
bnn-deploy compile "$model" --target "$target" -o "$out/bundle"

status=0
bnn-deploy validate "$model" --bundle "$out/bundle" --device "$device" \
    --report "$out/parity.html" --report "$out/parity.xml" --report "$out/parity.md" --report "$out/parity.json" \
    "$@" || status=$?

# GitHub shows this file on the page of the run.
if [ -n "${GITHUB_STEP_SUMMARY:-}" ] && [ -f "$out/parity.md" ]; then
    cat "$out/parity.md" >>"$GITHUB_STEP_SUMMARY"
fi
exit "$status"
