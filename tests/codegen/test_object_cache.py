"""The cache of generated machine code: what it returns, what it ignores, and what it forgets."""

from __future__ import annotations

import os
from pathlib import Path

import onnx
import pytest
import tvm
from tvm.script import tirx as T

from bnn_deploy import compiler
from bnn_deploy.codegen import linker
from bnn_deploy.codegen.object_cache import NO_CACHE, ObjectCache, cache_folder, content_key
from bnn_deploy.compiler import compile_model
from bnn_deploy.errors import BnnDeployError
from bnn_deploy.targets.registry import get_target
from tests.passes.onnx_models import small_network


class Maker:
    """Writes ``content`` to a file, and counts how often it was asked to."""

    def __init__(self, path: Path, content: bytes = b"object") -> None:
        self.path, self.content, self.calls = path, content, 0

    def __call__(self) -> None:
        self.calls += 1
        self.path.write_bytes(self.content)


def test_made_once(tmp_path: Path) -> None:
    """Machine code is generated again although nothing changed, or another content comes back."""
    cache, make = ObjectCache(tmp_path / "new" / "cache"), Maker(tmp_path / "a.o", b"\0\1 content")
    assert not cache.get("key", make.path, make)
    make.path.unlink()
    assert cache.get("key", make.path, make)
    assert (make.path.read_bytes(), make.calls) == (b"\0\1 content", 1)
    assert not cache.get("other", make.path, make)
    assert make.calls == 2


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_damaged_entries_are_made_again(tmp_path: Path, damage: str) -> None:
    """A damaged entry is linked into a bundle."""
    cache, make = ObjectCache(tmp_path / "cache"), Maker(tmp_path / "a.o")
    cache.get("key", make.path, make)
    (entry,) = (tmp_path / "cache").iterdir()
    content = entry.read_bytes()
    entry.write_bytes({"cut": content[:-1], "flip": content[:-1] + b"\xff", "empty": b""}[damage])
    assert not cache.get("key", make.path, make)
    assert make.path.read_bytes() == b"object"
    assert cache.get("key", make.path, make)


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    """The cache grows without bound, or forgets what was used last, or removes files that are not its own."""
    # 100 bytes and a digest of 32 each: three entries fit.
    cache, make = ObjectCache(tmp_path / "cache", largest=3 * 132), Maker(tmp_path / "a.o", b"x" * 100)
    for age, key in enumerate(("a", "b", "c")):
        cache.get(key, make.path, make)
        os.utime(tmp_path / "cache" / f"{key}.object", (age, age))
    (tmp_path / "cache" / "notes.txt").write_text("mine")
    assert cache.get("a", make.path, make)
    cache.get("d", make.path, make)
    assert {path.stem for path in (tmp_path / "cache").iterdir()} == {"a", "c", "d", "notes"}


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """A full disk or a read-only home makes compilation fail."""
    (tmp_path / "file").write_text("a file, so no folder can be made below it")
    make = Maker(tmp_path / "a.o")
    for cache in (ObjectCache(tmp_path / "file" / "cache"), NO_CACHE):
        assert not cache.get("key", make.path, make)
        assert not cache.get("key", make.path, make)
    assert make.calls == 4


def test_failure_leaves_nothing(tmp_path: Path) -> None:
    """The next compilation gets half an object after one that failed."""
    cache = ObjectCache(tmp_path / "cache")

    def fail() -> None:
        raise BnnDeployError("no")

    with pytest.raises(BnnDeployError):
        cache.get("key", tmp_path / "a.o", fail)
    assert not (tmp_path / "cache").exists()


def test_folder_by_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache is elsewhere than documented."""
    monkeypatch.setenv("BNN_DEPLOY_CACHE", "/x")
    monkeypatch.setenv("XDG_CACHE_HOME", "/y")
    assert cache_folder() == Path("/x")
    monkeypatch.setenv("BNN_DEPLOY_CACHE", "")
    assert cache_folder() == Path("/y/bnn-deploy")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "bnn-deploy"


def test_parts_of_a_key_do_not_run_together() -> None:
    """Different sources share a key because only their concatenation is the same."""
    assert content_key(("ab", "c")) != content_key(("a", "bc")) != content_key(("abc",))


def kernels(value: float) -> tvm.IRModule:
    """A module with one kernel that stores ``value``."""

    @T.prim_func
    def kernel(y: T.Buffer((1,), "float32")):
        T.func_attr({"global_symbol": "kernel"})
        y[0] = T.float32(value)

    return tvm.IRModule({"kernel": kernel})


def test_kernels_that_differ_have_different_keys() -> None:
    """A compilation gets the machine code of kernels with another constant, or for another processor."""
    # 0.1 and the next float32.
    modules, targets = (kernels(0.1), kernels(0.10000000894069672)), (get_target("rpi3"), get_target("rpi4"))
    keys = {compiler._kernels_key(module, target) for module in modules for target in targets}
    assert len(keys) == 4
    assert compiler._kernels_key(kernels(0.1), targets[0]) in keys


def test_second_compilation_generates_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """compile ignores its cache, or the cached bundle differs; or --no-cache uses it."""
    onnx.save(small_network(), tmp_path / "x.onnx")
    monkeypatch.setenv("BNN_DEPLOY_CACHE", str(tmp_path / "cache"))
    generate, zig, calls = compiler._generate, linker._zig, []
    monkeypatch.setattr(compiler, "_generate", lambda *arguments: (calls.append("kernels"), generate(*arguments)))
    monkeypatch.setattr(linker, "_zig", lambda *arguments: (calls.append(arguments[-3]), zig(*arguments)))
    manifests, generated = [], []
    for cache in (True, True, False):
        calls.clear()
        manifests.append(compile_model(tmp_path / "x.onnx", "rpi4", tmp_path / "bundle", cache=cache).manifest)
        generated.append(
            {"kernels", "runner.c", "thread_pool.c", "plan.c"} & {call.rpartition("/")[2] for call in calls}
        )
    assert manifests[0] == manifests[1] == manifests[2]
    assert generated == [{"kernels", "runner.c", "thread_pool.c", "plan.c"}, {"plan.c"}, generated[0]]
