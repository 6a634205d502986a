"""What a file is: operations, parameters, bytes and layers of an ONNX model or of a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.errors import BundleError, InputError
from bnn_deploy.metadata.class_names import class_names_of

TOTALS = {"bops", "flops", "ops", "binary_params", "real_params"}
LAYER_KEYS = {"name", "op", "input_shape", "output_shape", "bops", "flops", "binary_params", "real_params"}


def inspect(path: Path) -> dict[str, Any]:
    """Describe an ONNX file, or a bundle if ``path`` is a folder, as JSON.

    Returns:
        ``bops``, ``flops``, ``ops``, ``binary_params``, ``real_params`` (see ``statistics``), ``file_bytes``, ``layers``,
        ``metadata`` and ``class_names`` (None if the model has none); of a bundle also ``target``, ``architecture``,
        ``kernel_sets`` (names; empty if one does for all cores), ``inputs``, ``outputs``, ``weights_bytes`` (of all
        kernel sets), ``arena_bytes``, ``workspace_bytes`` (of each thread), ``peak_bytes`` (all three, with one thread),
        ``files``, ``steps`` and ``tools``, and ``file_bytes`` is its library's.

    Raises:
        InputError: there is nothing at ``path``.
        ModelFileError: the ONNX file cannot be used, or its names of classes cannot be understood.
        BundleError: the bundle is damaged, or of a newer format.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist; give an ONNX file or the folder of a bundle.")
    description = _describe_bundle(Bundle.open(path)) if path.is_dir() else _describe_onnx(path)
    names = class_names_of(description["metadata"], str(path))
    return {**description, "class_names": None if names is None else list(names)}


def _describe_onnx(path: Path) -> dict[str, Any]:
    from bnn_deploy.frontend.open_model import open_model
    from bnn_deploy.onnx_files.statistics import model_statistics
    from bnn_deploy.passes.onnx.import_report import ImportOptions

    # What becomes of zeros among the weights changes no count; the choice is asked for when the model is compiled.
    model = open_model(path, ImportOptions(zero_weights="-1")).model
    statistics = model_statistics(model, path.stat().st_size).to_dict()
    return {**statistics, "metadata": {item.key: item.value for item in model.metadata_props}}


def _describe_bundle(bundle: Bundle) -> dict[str, Any]:
    manifest = bundle.manifest
    statistics = manifest["statistics"]
    if not _has_counts(statistics):
        raise BundleError(f"The manifest of {bundle.path} lacks the operation counts; compile the bundle again.")
    files = {name: entry["bytes"] for name, entry in manifest["files"].items()}
    return {
        **{key: statistics[key] for key in ("bops", "flops", "ops", "binary_params", "real_params")},
        # The library alone is what a device needs; the runner and the archive hold the same weights again.
        "file_bytes": files[bundle.library.name],
        "layers": statistics["layers"],
        "metadata": manifest["model"],
        "target": bundle.target,
        "architecture": bundle.architecture,
        "kernel_sets": [name for name in bundle.kernel_sets if name],
        "inputs": manifest["inputs"],
        "outputs": manifest["outputs"],
        "weights_bytes": manifest["weights_bytes"],
        "arena_bytes": manifest["arena_bytes"],
        "workspace_bytes": bundle.workspace_bytes,
        "peak_bytes": bundle.peak_bytes,
        "files": files,
        "steps": manifest["steps"],
        "tools": manifest["tools"],
    }


def _has_counts(statistics: dict[str, Any]) -> bool:
    layers = statistics.get("layers")
    if not isinstance(layers, list) or not all(isinstance(row, dict) and row.keys() >= LAYER_KEYS for row in layers):
        return False
    return all(isinstance(statistics.get(key), (int, float)) for key in TOTALS)
