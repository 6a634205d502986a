"""A bundle, opened: the folder that ``compile`` writes and everything else reads. docs/bundle.md describes the format."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bnn_deploy.bundle.manifest import FileEntry, GpuEntry, Manifest, TensorForm, read_manifest
from bnn_deploy.errors import BundleError
from bnn_deploy.files import file_sha256
from bnn_deploy.plan import Step, TensorSpecification


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files were checked against its manifest.

    Attributes:
        path: the folder.
        manifest: content of manifest.json.
    """

    path: Path
    manifest: Manifest

    @staticmethod
    def open(path: str | Path) -> Bundle:
        """Check a bundle and describe it; nothing of it is executed.

        Raises:
            BundleError: it is missing, not a bundle, damaged, altered or of a newer format version.
        """
        folder = Path(path)
        try:
            manifest = read_manifest(folder)
            for name, file in manifest["files"].items():
                _check_file(folder / name, file)
        except OSError as error:
            raise BundleError(f"The bundle {folder} cannot be read: {error}.") from error
        return Bundle(folder.absolute(), manifest)

    @property
    def target(self) -> str:
        """Name of the target it was compiled for."""
        return self.manifest["target"]

    @property
    def architecture(self) -> str:
        """``"x86_64"`` or ``"arm64"``."""
        return self.manifest["architecture"]

    def missing_cpu_flags(self, flags: Iterable[str]) -> list[str]:
        """What a processor lacks to run it.

        Args:
            flags: names in the processor's ``flags`` or ``Features`` line of /proc/cpuinfo.
        """
        return sorted(set(self.manifest["processor"]["required_cpu_flags"]).difference(flags))

    @property
    def gpu(self) -> GpuEntry | None:
        """What its kernels need of an NVIDIA GPU and its driver, as in docs/bundle.md; None: they run on the processor."""
        return self.manifest.get("gpu")

    @property
    def library(self) -> Path:
        """The shared library, glibc 2.17 or newer."""
        return self.path / "model.so"

    @property
    def static_library(self) -> Path:
        """The same as an archive, for any C library."""
        return self.path / "libmodel.a"

    @property
    def runner(self) -> Path:
        """The command-line program; static, but for GPUs, whose driver is a shared library."""
        return self.path / "runner"

    @property
    def header(self) -> Path:
        """The C interface of both libraries."""
        return self.path / "bnn_model.h"

    @property
    def inputs(self) -> tuple[TensorSpecification, ...]:
        """The network's inputs, batch included."""
        return _tensors(self.manifest["inputs"])

    @property
    def outputs(self) -> tuple[TensorSpecification, ...]:
        """The network's outputs, batch included."""
        return _tensors(self.manifest["outputs"])

    @property
    def batch(self) -> int:
        """Leading dimension of every input: images per run."""
        return self.inputs[0].shape[0]

    @property
    def workspace_bytes(self) -> int:
        """Memory of each thread beside the activations."""
        return self.manifest.get("workspace_bytes", 0)

    @property
    def peak_bytes(self) -> int:
        """The network's memory with one thread: weights, activations and workspace."""
        return self.manifest["weights_bytes"] + self.manifest["arena_bytes"] + self.workspace_bytes

    @property
    def kernel_sets(self) -> tuple[str, ...]:
        """Names of its kernel sets, the one for any core first; ``("",)`` if there is only one."""
        return tuple(entry["name"] for entry in self.manifest["processor"].get("kernel_sets", [])) or ("",)

    @property
    def steps(self) -> tuple[Step, ...]:
        """The kernel calls in order, with kernels of the first set; ``arguments`` are empty: only compiled code needs them."""
        return self.steps_of(self.kernel_sets[0])

    def steps_of(self, kernel_set: str) -> tuple[Step, ...]:
        """The same with the kernels of another set.

        Raises:
            BundleError: the bundle has no such kernel set.
        """
        if kernel_set not in self.kernel_sets:
            raise BundleError(
                f"The bundle {self.path} has no kernel set {kernel_set!r}, it has "
                f"{', '.join(map(repr, self.kernel_sets))}; the answer of its device cannot be right."
            )
        index = self.kernel_sets.index(kernel_set)
        return tuple(
            Step(
                [step["kernel"], *step.get("kernels", [])][index],
                step["layer"],
                step["kind"],
                (),
                step["binary_macs"],
                bytes=step.get("bytes", 0),
            )
            for step in self.manifest["steps"]
        )


def _check_file(path: Path, expected: FileEntry) -> None:
    if not path.is_file():
        raise BundleError(f"The bundle {path.parent} is incomplete: its file {path.name} is missing; compile it again.")
    size = path.stat().st_size
    if size != expected["bytes"]:
        raise BundleError(
            f"The bundle's file {path} is {size} bytes long, expected {expected['bytes']}; it was truncated or "
            "altered, so copy or compile the bundle again."
        )
    if file_sha256(path) != expected["sha256"]:
        raise BundleError(
            f"The bundle's file {path} was altered: its sha256 differs from the manifest's; "
            "copy or compile the bundle again."
        )


def _tensors(entries: list[TensorForm]) -> tuple[TensorSpecification, ...]:
    return tuple(TensorSpecification(entry["name"], tuple(entry["shape"]), entry["dtype"]) for entry in entries)
