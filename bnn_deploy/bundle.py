"""Bundles: the folder that ``compile`` writes and everything else reads. docs/bundle.md describes the format."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnn_deploy import __version__, tensors
from bnn_deploy.errors import BundleError
from bnn_deploy.object_cache import NO_CACHE, ObjectCache
from bnn_deploy.plan import ExecutionPlan, Step, TensorSpecification
from bnn_deploy.runtime import manifest as manifest_format

if TYPE_CHECKING:
    from bnn_deploy.device_code import DeviceCode
    from bnn_deploy.targets.base import Target


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files were checked against its manifest.

    Attributes:
        path: the folder.
        manifest: content of manifest.json.
    """

    path: Path
    manifest: dict[str, Any]

    @staticmethod
    def open(path: str | Path) -> Bundle:
        """Check a bundle and describe it; nothing of it is executed.

        Raises:
            BundleError: it is missing, not a bundle, damaged, altered or of a newer format version.
        """
        folder = Path(path)
        try:
            manifest = manifest_format.read_manifest(folder)
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
    def gpu(self) -> dict[str, Any] | None:
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


def write_bundle(
    output: str | Path,
    *,
    plan: ExecutionPlan,
    target: Target,
    model_info: dict[str, Any],
    kernels_objects: Sequence[Path] = (),
    device_code: DeviceCode | None = None,
    cache: ObjectCache = NO_CACHE,
) -> Bundle:
    """Link a bundle and put it in place as a whole; on failure an older bundle at ``output`` stays as it was.

    Args:
        output: folder to make; an existing bundle there is replaced.
        plan: the network.
        target: the processor, and the GPU if there is one.
        model_info: the JSON objects ``"model"`` (the ONNX metadata), ``"statistics"`` (operation counts), ``"import"``
            (what the front end found in a foreign file) and ``"tools"`` (versions); missing ones are empty.
        kernels_objects: ELF object files with the plan's kernels, one for each of the target's ``variants``; none for a GPU.
        device_code: the kernels for the target's GPU.
        cache: keeps the objects of the runtime's sources.

    Raises:
        BundleError: ``output`` exists and is not a bundle (or holds files of yours too), or cannot be written.
        ToolError: the linker is missing or failed.
        CompileError: the plan is one that a bundle cannot hold.
    """
    from bnn_deploy.linker import link_model

    unknown = set(model_info) - {"model", "statistics", "import", "tools"}
    if unknown:
        raise ValueError(f"model_info has unknown keys {sorted(unknown)}; it takes model, statistics, import and tools")
    _check_kernels(kernels_objects, device_code, target)
    destination = Path(os.path.abspath(output))
    check_destination(destination)
    try:
        with tempfile.TemporaryDirectory(prefix=f".{destination.name}.", dir=destination.parent) as temporary:
            folder = Path(temporary) / "bundle"
            folder.mkdir()
            link_model(
                folder,
                kernels_objects=kernels_objects,
                plan=plan,
                architecture=target.architecture,
                device_code=device_code,
                cache=cache,
            )
            (folder / tensors.NAME).write_text(tensors.table_text(plan), encoding="utf-8")
            manifest = _manifest(folder, plan, target, model_info)
            if device_code is not None:
                manifest["gpu"] = device_code.manifest(launches=sum(len(step.launches) for step in plan.steps))
            text = json.dumps(manifest, indent=1, ensure_ascii=False, allow_nan=False)
            (folder / manifest_format.NAME).write_text(text + "\n", encoding="utf-8")
            Bundle.open(folder)
            _put_in_place(folder, destination, Path(temporary) / "replaced")
    except OSError as error:
        raise BundleError(f"The bundle {destination} cannot be written: {error.strerror or error}.") from error
    return Bundle(destination, manifest)


def _check_kernels(kernels_objects: Sequence[Path], device_code: DeviceCode | None, target: Target) -> None:
    """Raises ValueError unless the kernels are for what the target names: a defect of the caller."""
    expected = None if target.gpu is None else target.gpu.sm
    found = None if device_code is None else device_code.sm
    if found != expected or (not kernels_objects) != (device_code is not None):
        raise ValueError(
            f"target {target.name} has a GPU of sm {expected}; given are {len(kernels_objects)} objects and device code for {found}"
        )


def _check_file(path: Path, expected: dict[str, Any]) -> None:
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


def check_destination(output: str | Path) -> None:
    """Make sure that a bundle may be written to ``output``, before anybody spends minutes on compiling it.

    Raises:
        BundleError: its folder does not exist, or something that is not a bundle of ours is there already.
    """
    destination = Path(os.path.abspath(output))
    if not destination.parent.is_dir():
        raise BundleError(
            f"The bundle {destination} cannot be written: the folder {destination.parent} does not exist."
        )
    if not os.path.lexists(destination):
        return
    try:
        manifest_format.read_manifest(destination)
    except BundleError as error:
        raise BundleError(
            f"{destination} exists and is not a bundle that could be replaced; remove it or give another path."
        ) from error
    own = {manifest_format.NAME, *manifest_format.FILES, *manifest_format.LATER_FILES}
    foreign = {entry.name for entry in destination.iterdir()} - own
    if foreign:
        raise BundleError(
            f"The bundle {destination} is not replaced because it also holds {', '.join(sorted(foreign)[:3])}; "
            "move that away or give another path."
        )


def _put_in_place(folder: Path, destination: Path, replaced: Path) -> None:
    if not os.path.lexists(destination):
        folder.rename(destination)
        return
    destination.rename(replaced)
    try:
        folder.rename(destination)
    except OSError:
        replaced.rename(destination)
        raise


def _manifest(folder: Path, plan: ExecutionPlan, target: Target, model_info: dict[str, Any]) -> dict[str, Any]:
    return {
        "format": manifest_format.FORMAT,
        "format_version": manifest_format.FORMAT_VERSION,
        "target": target.name,
        "architecture": target.architecture,
        "processor": {
            "mcpu": target.mcpu,
            "mattr": list(target.mattr),
            "required_cpu_flags": list(target.required_cpu_flags),
            "binary_macs_per_cycle": target.binary_macs_per_cycle,
            "kernel_sets": [
                {
                    "name": kernels.name,
                    "mcpu": kernels.mcpu,
                    "mattr": list(kernels.mattr),
                    "binary_macs_per_cycle": kernels.binary_macs_per_cycle,
                }
                for kernels in target.kernel_sets
            ],
        },
        "inputs": [_tensor_entry(tensor) for tensor in plan.inputs],
        "outputs": [_tensor_entry(tensor) for tensor in plan.outputs],
        "arena_bytes": plan.arena_bytes,
        "workspace_bytes": plan.workspace_bytes,
        "weights_bytes": len(plan.weights),
        "files": {
            name: {"bytes": (folder / name).stat().st_size, "sha256": file_sha256(folder / name)}
            for name in (*manifest_format.FILES, *manifest_format.LATER_FILES)
        },
        "model": model_info.get("model", {}),
        "statistics": model_info.get("statistics", {}),
        "import": model_info.get("import", {}),
        "tools": {"bnn-deploy": __version__, **model_info.get("tools", {})},
        "steps": [
            {
                "kernel": step.kernel,
                "layer": step.layer,
                "kind": step.kind,
                **({"kernels": [other.steps[index].kernel for other in plan.other_sets]} if plan.other_sets else {}),
                "binary_macs": step.binary_macs,
                "bytes": step.bytes,
                "stage": stage,
                "blocks": blocks,
            }
            for index, (step, (stage, blocks)) in enumerate(zip(plan.steps, _places(plan), strict=True))
        ],
    }


def _places(plan: ExecutionPlan) -> list[tuple[int, int]]:
    """Of every step, the index of its stage and how many blocks that has."""
    return [(index, stage.blocks) for index, stage in enumerate(plan.schedule) for _ in range(stage.step_count)]


def _tensor_entry(tensor: TensorSpecification) -> dict[str, Any]:
    return {"name": tensor.name, "shape": list(tensor.shape), "dtype": tensor.dtype, "bytes": tensor.bytes}


def _tensors(entries: list[dict[str, Any]]) -> tuple[TensorSpecification, ...]:
    return tuple(TensorSpecification(entry["name"], tuple(entry["shape"]), entry["dtype"]) for entry in entries)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, read in pieces, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
