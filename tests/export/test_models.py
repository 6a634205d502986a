"""The models of this package, exported: three runtimes, operation counts of the papers, file sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from bnn_deploy.export.export_model import export_model
from bnn_deploy.metadata.calibration import calibration_inputs
from bnn_deploy.models.bimlp import BiMLP, BiMLPConfig
from bnn_deploy.models.calibration import seeded_model
from bnn_deploy.models.layers import BinaryActivation, BinaryConv2d, BinaryLinear, TernaryActivation
from bnn_deploy.models.registry import build_model, input_shape
from bnn_deploy.onnx_files.binary_layers import require_binary
from bnn_deploy.onnx_files.reading import load_onnx
from bnn_deploy.onnx_files.statistics import ModelStatistics, model_statistics
from bnn_deploy.ops.registry import DOMAIN
from tests.export.references import run_numpy, run_onnxruntime
from tests.models.counting import count_operations


def export_and_count(module: torch.nn.Module, shape: tuple[int, int, int], path: Path, batch: int) -> ModelStatistics:
    # PyTorch exports a fixed batch in half the time; test_export.py has the dynamic one.
    export_model(module, path, input_shape=shape, batch=batch)
    model = load_onnx(path)
    require_binary(model, path)
    statistics = model_statistics(model, path.stat().st_size)
    expected = count_operations(module, shape)
    for count in ("bops", "flops", "ops", "binary_params", "real_params"):
        assert getattr(statistics, count) == getattr(expected, count), count
    rows = {row.name: (row.bops, row.binary_params) for row in statistics.layers}
    assert rows == {row.name: (row.bops, row.binary_params) for row in expected.layers}
    return statistics


def formula_bytes(statistics: ModelStatistics) -> float:
    """One bit for each binary parameter, four bytes for each real one."""
    return statistics.binary_params / 8 + 4 * statistics.real_params


@pytest.mark.parametrize(
    ("name", "variant"), [("bimlp_tiny", "paper"), ("bimlp_tiny", "released"), ("bcdnet_tiny", None)]
)
def test_tiny_models(name: str, variant: str | None, tmp_path: Path) -> None:
    """Breaks when an exported model differs from PyTorch in results, operation counts or layer names."""
    module, report = seeded_model(name, variant=variant)
    path = tmp_path / "model.onnx"
    export_and_count(module, input_shape(name), path, batch=2)
    model = onnx.load(path)
    kinds = (BinaryActivation, TernaryActivation, BinaryConv2d, BinaryLinear)
    layers = {path for path, layer in module.named_modules() if isinstance(layer, kinds)}
    assert {node.name for node in model.graph.node if node.domain == DOMAIN} == layers
    x = calibration_inputs(0, 2, input_shape(name))
    with torch.no_grad():
        expected = module(torch.from_numpy(x)).numpy()
    # No activation is nearer to its threshold than 1000 times the rounding of its input, so all bits are equal.
    assert report.smallest.relative > 1e-3
    # What remains: about 100 float32 roundings (2**-24) in sequence, of values below 30: 100 * 30 * 6e-8 = 2e-4.
    for result in (run_onnxruntime(model, x), run_numpy(model, x)):
        assert np.abs(result - expected).max() < 2e-4
        assert np.array_equal(result.argmax(1), expected.argmax(1))


def test_reactnet_has_the_papers_counts(tmp_path: Path) -> None:
    """Breaks when inspect's numbers leave the papers' (ReActNet on ResNet-18, 224x224), or the file grows."""
    statistics = export_and_count(build_model("reactnet_r18"), (3, 224, 224), tmp_path / "model.onnx", batch=1)
    counts = (statistics.bops, statistics.flops, statistics.binary_params, statistics.real_params)
    assert counts == (1_676_279_808, 137_793_536, 10_985_472, 718_952)
    assert formula_bytes(statistics) < statistics.file_bytes < 1.1 * formula_bytes(statistics)


def test_the_largest_overhead(tmp_path: Path) -> None:
    """Breaks when names, statistics or scales take more than a tenth of a BiMLP's file.

    BiMLP has the most nodes for its parameters, and its released variant a scale for each tap besides; these are the
    widths of stages 3 and 4, which hold most of BiMLP-S and -M.
    """
    config = BiMLPConfig(dims=(320, 512), depths=(1, 1), released_group_norm=True)
    module = BiMLP(config, variant="released")
    statistics = export_and_count(module, (3, 32, 32), tmp_path / "model.onnx", batch=1)
    assert statistics.file_bytes < 1.1 * formula_bytes(statistics)
