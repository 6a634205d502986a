"""The linker: its failures are sentences."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from bnn_deploy.codegen.linker import link_model
from bnn_deploy.codegen.object_cache import ObjectCache, cache_folder
from bnn_deploy.errors import ToolError
from tests.runtime.toy_network import compile_kernels, toy_plan


def test_missing_ziglang_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without ziglang the user sees a traceback instead of what to install."""
    (tmp_path / "kernels.o").write_bytes(b"")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ToolError, match="pip install ziglang"):
        link_model(tmp_path, kernels_objects=[tmp_path / "kernels.o"], plan=toy_plan(), architecture="x86_64")


def test_unavailable_parts_of_tvm_are_named(tmp_path: Path) -> None:
    """A kernel calls a part of TVM's runtime through a null pointer."""
    kernels = tmp_path / "kernels.o"
    kernels.write_bytes(b"\0__TVMBackendParallelLaunch\0__TVMBackendParallelBarrier\0")
    with pytest.raises(ToolError, match=r"need __TVMBackendParallelBarrier of TVM's runtime"):
        link_model(tmp_path, kernels_objects=[kernels], plan=toy_plan(), architecture="x86_64")


def test_wrong_architecture_fails_in_one_sentence(tmp_path: Path) -> None:
    """Kernels of another architecture are linked, or the linker's failure is not shown."""
    kernels = compile_kernels(tmp_path, "arm64")
    with pytest.raises(ToolError, match=r"Linking failed in `zig cc .*kernels_0\.o") as failure:
        cache = ObjectCache(cache_folder())
        link_model(tmp_path, kernels_objects=[kernels], plan=toy_plan(), architecture="x86_64", cache=cache)
    assert "\n" not in str(failure.value)
