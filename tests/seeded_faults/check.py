"""Compiles a network with one mistake in the compiler, and validates the bundle while the mistake is still made."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.compiler import compile_model
from bnn_deploy.devices.registry import get_device
from bnn_deploy.validation.report import TensorResult, ValidationReport
from bnn_deploy.validation.validate import validate
from tests.seeded_faults.faults import Fault
from tests.seeded_faults.networks import BATCH, NETWORKS, images

SAMPLES = BATCH


@dataclass(frozen=True)
class Subject:
    """A network's file, images for it, and the digest of the library that the compiler makes of it without mistakes."""

    name: str
    model: Path
    data: Path
    library: str

    @classmethod
    def make(cls, name: str, folder: Path) -> Subject:
        """Export the network, and compile it once."""
        folder.mkdir(parents=True, exist_ok=True)
        model, data = folder / f"{name}.onnx", folder / "images.npz"
        NETWORKS[name].export(model)
        np.savez(data, images=images(SAMPLES))
        bundle = compile_model(model, NETWORKS[name].target, folder / name, batch=BATCH)
        return cls(name, model, data, library_digest(bundle))

    def validated(self, folder: Path, levels: tuple[int, ...] = (1, 2, 3)) -> tuple[Bundle, ValidationReport]:
        """Compile and validate with whatever mistakes the compiler makes now."""
        folder.mkdir(parents=True, exist_ok=True)
        network = NETWORKS[self.name]
        # The cache knows a kernel by its text, so that one with a mistake is never taken from it.
        bundle = compile_model(self.model, network.target, folder / "bundle", batch=BATCH)
        device = get_device("qemu" if network.needs_emulator else "local")
        return bundle, validate(self.model, bundle, data=self.data, device=device, levels=levels, layer_samples=SAMPLES)


def library_digest(bundle: Bundle) -> str:
    """SHA-256 of the bundle's code, plan and weights."""
    return hashlib.sha256((bundle.path / "model.so").read_bytes()).hexdigest()


def caught(fault: Fault, subject: Subject, folder: Path, patch: pytest.MonkeyPatch) -> ValidationReport:
    """The report on a bundle that was compiled with the fault, made while the compiler still has it."""
    fault.apply(patch)
    bundle, report = subject.validated(folder)
    if library_digest(bundle) == subject.library:
        pytest.fail(f"{fault.name} changed nothing that runs")
    return report


def named(row: TensorResult) -> set[str]:
    """The nodes that a row tells its reader to look at."""
    return {*row.layer.split(" + "), *row.fed_by}
