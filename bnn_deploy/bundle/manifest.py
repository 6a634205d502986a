"""The manifest of a bundle: what it holds, and that it does, checked field by field, since bundles come from anywhere.

``read_manifest`` returns nothing that was not checked: shapes, sizes, hashes and file names can be used as they are.
docs/bundle.md says what each field is.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, cast

from bnn_deploy.checked_fields import read_json
from bnn_deploy.errors import BundleError

if TYPE_CHECKING:
    from typing_extensions import NotRequired  # for type checkers only: Python 3.10 has none

FORMAT = "bnn_deploy.bundle"
FORMAT_VERSION = 1
NAME = "manifest.json"
FILES = ("model.so", "libmodel.a", "runner", "bnn_model.h")
# Bundles of before do not have these.
LATER_FILES = ("tensors.json",)
ARCHITECTURES = ("x86_64", "arm64")
MAX_MANIFEST_BYTES = 16 << 20
MAX_SIZE = 1 << 40
ITEM_BYTES = {"float32": 4, "int32": 4, "int64": 8}


class KernelSetEntry(TypedDict):
    """The kernels for one kind of processor core."""

    name: str
    mcpu: str
    mattr: list[str]
    binary_macs_per_cycle: float | None


class ProcessorEntry(TypedDict):
    """What the processor must be, and how fast it can be."""

    mcpu: str
    mattr: list[str]
    required_cpu_flags: list[str]
    binary_macs_per_cycle: NotRequired[float | None]
    kernel_sets: NotRequired[list[KernelSetEntry]]


class GpuEntry(TypedDict):
    """What the kernels need of an NVIDIA GPU and its driver."""

    arch: str
    compute_capability: str
    needs_cuda: str
    ptx_isa: str
    needs_cuda_ptx: str
    needs_cuda_runtime: bool
    needs_tvm: bool
    launches: int
    cubin_bytes: int
    ptx_bytes: int


class TensorForm(TypedDict):
    """An input or an output of the network."""

    name: str
    shape: list[int]
    dtype: str
    bytes: int


class OtherKernels(TypedDict, total=False):
    """What calls a step in the kernel sets but the first."""

    kernels: list[str]


class StepEntry(OtherKernels):
    """A kernel call."""

    kernel: str
    layer: str
    kind: str
    binary_macs: int
    bytes: NotRequired[int]
    stage: NotRequired[int]
    blocks: NotRequired[int]


class FileEntry(TypedDict):
    """A file of the bundle."""

    bytes: int
    sha256: str


# A class has no field named ``import``.
_Imported = TypedDict("_Imported", {"import": "NotRequired[dict[str, Any]]"})


class Manifest(_Imported):
    """``manifest.json``; fields that may be missing are of later versions of bnn-deploy, or for GPUs."""

    format: str
    format_version: int
    target: str
    architecture: str
    processor: ProcessorEntry
    gpu: NotRequired[GpuEntry]
    inputs: list[TensorForm]
    outputs: list[TensorForm]
    arena_bytes: int
    workspace_bytes: NotRequired[int]
    weights_bytes: int
    files: dict[str, FileEntry]
    model: dict[str, str]
    statistics: dict[str, Any]
    tools: dict[str, str]
    steps: list[StepEntry]


def read_manifest(folder: Path) -> Manifest:
    """Read and check ``manifest.json`` of a folder.

    Raises:
        BundleError: the folder or its manifest is missing, unreadable, of a newer format, or not as in docs/bundle.md.
    """
    if not folder.exists():
        raise BundleError(f"The bundle {folder} does not exist; write one with `bnn-deploy compile`.")
    path = folder / NAME
    if not folder.is_dir() or not path.is_file():
        raise BundleError(f"{folder} is not a bundle: it is not a folder with a {NAME}.")
    manifest = read_json(
        path,
        MAX_MANIFEST_BYTES,
        lambda problem: BundleError(f"{path}: {problem}; compile the bundle again."),
    )
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise BundleError(f'{path} is not the manifest of a bundle: it has no "format": "{FORMAT}".')
    version = manifest.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise BundleError(
            f"The bundle {folder} has format version {version}, this bnn-deploy reads up to {FORMAT_VERSION}; "
            "upgrade bnn-deploy, or compile the model again with this one."
        )
    problem = _problem(manifest)
    if problem is not None:
        raise BundleError(f"{path} is damaged: {problem}; compile the bundle again.")
    return cast(Manifest, manifest)  # JSON has no types; every field was checked


def _problem(manifest: dict[str, Any]) -> str | None:
    """What is wrong with a manifest of this version, or None."""
    if not _is_whole(manifest.get("format_version")) or manifest["format_version"] != FORMAT_VERSION:
        return f"format_version must be {FORMAT_VERSION}"
    if not isinstance(manifest.get("target"), str):
        return "target must be a name"
    if manifest.get("architecture") not in ARCHITECTURES:
        return f"architecture must be one of {', '.join(ARCHITECTURES)}"
    processor = manifest.get("processor")
    if not isinstance(processor, dict) or not isinstance(processor.get("mcpu"), str):
        return "processor must name its mcpu"
    if not _is_list_of(str, processor.get("mattr")) or not _is_list_of(str, processor.get("required_cpu_flags")):
        return "processor must list its mattr and required_cpu_flags"
    # Bundles of before have no kernel sets, and do not say so.
    kernel_sets = processor.get("kernel_sets", [])
    if not isinstance(kernel_sets, list) or len(kernel_sets) == 1 or not all(map(_is_kernel_set, kernel_sets)):
        return "the kernel_sets of processor must list the name, mcpu, mattr and binary_macs_per_cycle of several sets"
    if len({entry["name"] for entry in kernel_sets}) != len(kernel_sets):
        return "the kernel_sets of processor must have different names"
    if not _is_rate(processor.get("binary_macs_per_cycle")):
        return "binary_macs_per_cycle must be a positive number or null"
    if not _is_gpu(manifest.get("gpu")):
        return "gpu must name its arch, compute_capability, needs_cuda, needs_cuda_ptx and the number of launches"
    # Bundles of before have no workspace, and do not say so.
    for name, otherwise in (("arena_bytes", None), ("weights_bytes", None), ("workspace_bytes", 0)):
        if not _is_size(manifest.get(name, otherwise)):
            return f"{name} must be a whole number from 0 to {MAX_SIZE}"
    for name in ("inputs", "outputs"):
        tensors = manifest.get(name)
        if not isinstance(tensors, list) or not tensors or not all(map(_is_tensor, tensors)):
            return f"{name} must list tensors with name, dtype, shape and the bytes that follow from them"
    steps = manifest.get("steps")
    if not isinstance(steps, list) or not steps or not all(map(_is_step, steps)):
        return "steps must list kernel, layer, kind, binary_macs, bytes, stage and blocks"
    if any(len(step.get("kernels", [])) != max(0, len(kernel_sets) - 1) for step in steps):
        return "the kernels of each of steps must be those of the kernel sets but the first"
    for name in ("statistics", "model", "tools"):
        if not isinstance(manifest.get(name), dict):
            return f"{name} must be an object"
    files = manifest.get("files")
    if not isinstance(files, dict) or not set(FILES) <= set(files) <= {*FILES, *LATER_FILES}:
        return f"files must be {', '.join(FILES)}, and perhaps {', '.join(LATER_FILES)}"
    if not all(map(_is_file, files.values())):
        return "each of files must give its bytes and its sha256 of 64 hexadecimal digits"
    return None


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_size(value: object, minimum: int = 0) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and minimum <= value <= MAX_SIZE


def _is_list_of(kind: type, value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, kind) for item in value)


def _is_tensor(value: object) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return False
    shape, dtype = value.get("shape"), value.get("dtype")
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        return False
    if not isinstance(shape, list) or not 1 <= len(shape) <= 32 or not all(_is_size(size, 1) for size in shape):
        return False
    expected = ITEM_BYTES[dtype]
    for size in shape:
        expected *= size
    return expected <= MAX_SIZE and _is_whole(value.get("bytes")) and value["bytes"] == expected


def _is_kernel_set(value: object) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("name"), str)
        and isinstance(value.get("mcpu"), str)
        and _is_list_of(str, value.get("mattr"))
        and _is_rate(value.get("binary_macs_per_cycle"))
    )


def _is_gpu(value: object) -> bool:
    """Of bundles for a GPU; the others do not have it."""
    if value is None:
        return True
    if not isinstance(value, dict) or not _is_size(value.get("launches"), 1):
        return False
    patterns = {
        "arch": r"sm_\d{2,3}",
        **dict.fromkeys(("compute_capability", "needs_cuda", "needs_cuda_ptx"), r"\d+\.\d+"),
    }
    return all(
        isinstance(value.get(name), str) and re.fullmatch(form, value[name], re.ASCII)
        for name, form in patterns.items()
    )


def _is_rate(value: object) -> bool:
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= MAX_SIZE)


def _is_step(value: object) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("kernel"), str)
        and isinstance(value.get("layer"), str)
        and value.get("kind") in ("binary", "pack", "float")
        and _is_whole(value.get("binary_macs"))
        and value["binary_macs"] >= 0
        and _is_list_of(str, value.get("kernels", []))
        and _is_size(value.get("bytes", 0))
        and _is_size(value.get("stage", 0))
        and _is_size(value.get("blocks", 1), 1)
    )


def _is_file(value: object) -> bool:
    return (
        isinstance(value, dict)
        and _is_size(value.get("bytes"), 1)
        and isinstance(value.get("sha256"), str)
        and re.fullmatch(r"[0-9a-f]{64}", value["sha256"]) is not None
    )
