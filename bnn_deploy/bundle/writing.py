"""Writes bundles: links them, says in their manifest what they hold, and puts them in place as a whole."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bnn_deploy.bundle import manifest as manifest_format
from bnn_deploy.bundle import tensor_file
from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.bundle.manifest import GpuEntry, Manifest, OtherKernels, StepEntry, TensorForm
from bnn_deploy.bundle.tensor_places import written_values
from bnn_deploy.codegen.device_code import DeviceCode
from bnn_deploy.codegen.linker import link_model
from bnn_deploy.codegen.object_cache import NO_CACHE, ObjectCache
from bnn_deploy.errors import BundleError
from bnn_deploy.files import file_sha256
from bnn_deploy.plan import ExecutionPlan, TensorSpecification
from bnn_deploy.targets.base import Target
from bnn_deploy.version import __version__


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
            (folder / tensor_file.NAME).write_text(tensor_file.table_text(written_values(plan)), encoding="utf-8")
            manifest = _manifest(folder, plan, target, model_info)
            if device_code is not None:
                manifest["gpu"] = _gpu_entry(device_code, plan)
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


def _manifest(folder: Path, plan: ExecutionPlan, target: Target, model_info: dict[str, Any]) -> Manifest:
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
        "inputs": [_tensor_form(tensor) for tensor in plan.inputs],
        "outputs": [_tensor_form(tensor) for tensor in plan.outputs],
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
        "steps": _step_entries(plan),
    }


def _step_entries(plan: ExecutionPlan) -> list[StepEntry]:
    entries: list[StepEntry] = []
    # Of every step, the index of its stage and how many blocks that has.
    stages = [(index, stage.blocks) for index, stage in enumerate(plan.schedule) for _ in range(stage.step_count)]
    for index, (step, (stage, blocks)) in enumerate(zip(plan.steps, stages, strict=True)):
        others = [other.steps[index].kernel for other in plan.other_sets]
        kernels: OtherKernels = {"kernels": others} if others else {}
        entries.append(
            {
                "kernel": step.kernel,
                "layer": step.layer,
                "kind": step.kind,
                **kernels,
                "binary_macs": step.binary_macs,
                "bytes": step.bytes,
                "stage": stage,
                "blocks": blocks,
            }
        )
    return entries


def _gpu_entry(code: DeviceCode, plan: ExecutionPlan) -> GpuEntry:
    return {
        "arch": f"sm_{code.sm}",
        "compute_capability": f"{code.sm // 10}.{code.sm % 10}",
        "needs_cuda": code.needs_cuda,
        "ptx_isa": "{}.{}".format(*code.ptx_isa),
        "needs_cuda_ptx": code.needs_cuda_ptx,
        "needs_cuda_runtime": False,
        "needs_tvm": False,
        "launches": sum(len(step.launches) for step in plan.steps),
        "cubin_bytes": len(code.cubin),
        "ptx_bytes": len(code.ptx.encode()),
    }


def _tensor_form(tensor: TensorSpecification) -> TensorForm:
    return {"name": tensor.name, "shape": list(tensor.shape), "dtype": tensor.dtype, "bytes": tensor.bytes}
