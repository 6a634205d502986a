"""Parity in a test suite: the fixture comes with bnn-deploy's pytest plug-in (bnn_deploy.testing)."""

import os

MODEL = os.environ.get("MODEL", "model.onnx")


def test_this_machine(parity):
    parity(MODEL)


def test_raspberry_pi_emulated(parity):
    parity(MODEL, target="arm64", device="qemu", levels=(3,))
