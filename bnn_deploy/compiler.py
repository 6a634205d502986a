"""ONNX file -> bundle: drive the passes, generate machine code, link, and write everything at once."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import tvm
import tvm_ffi

from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.bundle.writing import check_destination, write_bundle
from bnn_deploy.codegen.cuda_compiler import cache_key, compile_cuda
from bnn_deploy.codegen.device_code import DeviceCode
from bnn_deploy.codegen.object_cache import ObjectCache, cache_folder, content_key
from bnn_deploy.errors import CompileError, InputError, message_lines
from bnn_deploy.frontend.open_model import OpenedModel, open_model
from bnn_deploy.onnx_files.statistics import model_statistics
from bnn_deploy.passes.onnx.import_report import ImportOptions, ImportReport
from bnn_deploy.passes.pipeline import Lowered, lower
from bnn_deploy.passes.tir.cuda_source import cuda_source
from bnn_deploy.targets.base import Gpu, Target
from bnn_deploy.targets.registry import get_target


def compile_model(
    onnx_path: str | Path,
    target: str,
    output: str | Path,
    *,
    batch: int = 1,
    options: ImportOptions | None = None,
    dump_ir: str | Path | None = None,
    cache: bool = True,
    progress: Callable[[str], None] | None = None,
    found: Callable[[ImportReport], None] = lambda report: None,
) -> Bundle:
    """Compile an ONNX file with binary layers for one target.

    Args:
        onnx_path: file written by ``bnn-deploy export``, or any other ONNX file with binary layers.
        target: name from ``bnn-deploy targets``.
        output: folder to write; an existing bundle there is replaced, only once everything succeeded.
        batch: images per inference, for files with a dynamic batch.
        options: choices that a file from elsewhere leaves.
        dump_ir: folder for the module after every pass, and for a GPU the CUDA source; created if missing.
        cache: take machine code generated before from ``object_cache.cache_folder()``, and keep it there.
        progress: told what is being done.
        found: told what the front end made of the file's layers, before they are compiled.

    Raises:
        ModelFileError, TargetError, CompileError, BundleError, ToolError: each one sentence for the user.
    """
    report = progress or (lambda message: None)
    if batch < 1:
        raise InputError(f"--batch must be at least 1, got {batch}.")
    chosen = get_target(target)
    check_destination(Path(output))
    opened = open_model(onnx_path, options, report)
    found(opened.report)
    dump = None if dump_ir is None else _made_folder(Path(dump_ir))
    lowered = lower(opened.model, chosen, batch, dump, report)
    information = _information(Path(onnx_path), opened, options or ImportOptions())
    objects = ObjectCache(cache_folder() if cache else None)
    with tempfile.TemporaryDirectory(prefix="bnn-deploy-") as scratch:
        report("generate machine code")
        on_gpu = chosen.gpu is not None
        kernels_objects = [] if on_gpu else _processor_code(lowered, chosen, objects, Path(scratch))
        device_code = None if chosen.gpu is None else _gpu_code(lowered, chosen.gpu, objects, Path(scratch), dump)
        report("link")
        return write_bundle(
            Path(output),
            kernels_objects=kernels_objects,
            device_code=device_code,
            plan=lowered.plan,
            target=chosen,
            model_info=information,
            cache=objects,
        )


def _information(onnx_path: Path, opened: OpenedModel, options: ImportOptions) -> dict[str, Any]:
    """What the manifest says of the model; see ``write_bundle``."""
    content = onnx_path.read_bytes()
    metadata = {entry.key: entry.value for entry in opened.model.metadata_props}
    return {
        "model": metadata | {"onnx_sha256": hashlib.sha256(content).hexdigest()},
        "statistics": model_statistics(opened.model, len(content)).to_dict(),
        "import": {**opened.report.to_dict(), "options": asdict(options)} if opened.foreign else {},
        "tools": {name: version(name) for name in ("apache-tvm", "onnx", "ziglang")},
    }


def _processor_code(lowered: Lowered, target: Target, objects: ObjectCache, scratch: Path) -> list[Path]:
    """An object file for each kernel set."""
    paths = []
    for (name, variant), kernels in zip(target.variants, lowered.kernels, strict=True):
        path = scratch / f"kernels-{name}.o"
        objects.get(_kernels_key(kernels, variant), path, partial(_generate, kernels, variant, path))
        paths.append(path)
    return paths


def _gpu_code(lowered: Lowered, gpu: Gpu, objects: ObjectCache, scratch: Path, dump_ir: Path | None) -> DeviceCode:
    source = cuda_source(lowered.launched, gpu.sm)
    if dump_ir is not None:
        (dump_ir / "kernels.cu").write_text(source, encoding="utf-8")
    path = scratch / "kernels.device"

    def compile_source() -> None:
        path.write_bytes(compile_cuda(source, gpu.sm).to_bytes())

    objects.get(cache_key(source, gpu.sm), path, compile_source)
    return DeviceCode.from_bytes(path.read_bytes())


def _kernels_key(kernels: tvm.IRModule, target: Target) -> str:
    """A digest of what machine code is made from. TVM 0.27's ``save_json`` crashes on these modules, and its hash has 64 bits
    only; its script, which writes floats with 17 digits, is the same in every process."""
    return content_key(
        (
            "kernels",
            json.dumps(target.llvm, sort_keys=True),
            *(f"{name} {version(name)}" for name in ("apache-tvm", "apache-tvm-ffi")),
            str(tvm_ffi.structural_hash(kernels)),
            kernels.script(show_meta=True),
        )
    )


def _generate(kernels: tvm.IRModule, target: Target, path: Path) -> None:
    try:
        tvm.tirx.build(kernels, tvm.target.Target(target.llvm)).write_to_file(str(path), "o")
    except Exception as error:
        reason = message_lines(error)[-1]
        raise CompileError(
            f"LLVM could not generate code for target '{target.name}': {reason} This is a defect of bnn-deploy; please "
            "report it with the ONNX file and the output of --debug."
        ) from error


def _made_folder(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"Cannot create the folder {path} for --dump-ir: {error.strerror}.") from error
    return path
