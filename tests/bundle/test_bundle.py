"""Bundles on disk: complete or absent, and any damage is found before anything runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.bundle.manifest import FILES, LATER_FILES
from bnn_deploy.bundle.writing import write_bundle
from bnn_deploy.codegen.object_cache import NO_CACHE, ObjectCache, cache_folder
from bnn_deploy.errors import BundleError, CompileError, ToolError
from tests.runtime.toy_network import AWKWARD_LAYER, BATCH, HIDDEN, HOST, INPUTS, compile_kernels, toy_bundle, toy_plan


def test_what_a_bundle_tells(host_bundle: Bundle) -> None:
    """What was compiled is not what is read back."""
    opened = Bundle.open(host_bundle.path)
    assert opened.manifest == host_bundle.manifest
    assert (opened.target, opened.architecture, opened.batch) == ("toy-host", "x86_64", BATCH)
    assert [(t.name, t.shape, t.dtype) for t in opened.inputs] == [("image", (BATCH, INPUTS), "float32")]
    assert [(t.name, t.shape) for t in opened.outputs] == [("logits", (BATCH, HIDDEN))]
    assert [step.kernel for step in opened.steps] == ["toy_check", "toy_scale", "toy_matmul", "toy_add"]
    assert opened.steps[3].layer == AWKWARD_LAYER and opened.steps[2].binary_macs == BATCH * INPUTS * HIDDEN
    assert opened.manifest["model"] == {"bnn_deploy.model": "toy"} and opened.manifest["tools"]["toy"] == "1"
    assert {path.name for path in opened.path.iterdir()} == {*FILES, *LATER_FILES, "manifest.json"}
    assert list(opened.path.parent.glob(".*")) == []


def test_linking_twice_gives_the_same_bytes(host_bundle: Bundle, tmp_path: Path) -> None:
    """Names of temporary folders or dates get into bundles, so nobody can reproduce one."""
    again = toy_bundle(tmp_path, HOST, cache=NO_CACHE)
    assert again.manifest["files"] == host_bundle.manifest["files"]


@pytest.mark.parametrize("name", FILES)
def test_damaged_files_are_found(copied_bundle: Path, name: str) -> None:
    """A truncated, altered or missing file is executed."""
    content = (copied_bundle / name).read_bytes()
    (copied_bundle / name).write_bytes(content[:-1])
    with pytest.raises(BundleError, match="truncated"):
        Bundle.open(copied_bundle)
    (copied_bundle / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(BundleError, match="altered"):
        Bundle.open(copied_bundle)
    (copied_bundle / name).unlink()
    with pytest.raises(BundleError, match="missing"):
        Bundle.open(copied_bundle)


Change = Callable[[dict[str, Any]], Any]


def kernel_set(name: str) -> dict[str, Any]:
    return {"name": name, "mcpu": "generic", "mattr": [], "binary_macs_per_cycle": None}


def test_older_manifests_are_read(copied_bundle: Path) -> None:
    """A bundle compiled before there were kernel sets and bytes of steps has to be compiled again."""
    path = copied_bundle / "manifest.json"
    manifest = json.loads(path.read_text())
    for name in ("kernel_sets", "binary_macs_per_cycle"):
        del manifest["processor"][name]
    for step in manifest["steps"]:
        del step["bytes"]
    path.write_text(json.dumps(manifest))
    opened = Bundle.open(copied_bundle)
    assert opened.kernel_sets == ("",) and all(step.bytes == 0 for step in opened.steps)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(format_version=2), "format version 2, this bnn-deploy reads up to 1"),
        (lambda m: m.update(format_version=True), "format_version"),
        (lambda m: m.pop("format_version"), "format_version"),
        (lambda m: m.update(format="other"), "not the manifest"),
        (lambda m: m.update(target=3), "target"),
        (lambda m: m.update(architecture="mips"), "architecture"),
        (lambda m: m.update(processor=[]), "processor"),
        (lambda m: m["processor"].update(required_cpu_flags=[1]), "processor"),
        (lambda m: m["processor"].update(binary_macs_per_cycle=-1), "binary_macs_per_cycle"),
        (lambda m: m["processor"].update(binary_macs_per_cycle="1"), "binary_macs_per_cycle"),
        (lambda m: m["processor"].update(kernel_sets={}), "kernel_sets"),
        (lambda m: m["processor"].update(kernel_sets=[kernel_set("a")]), "kernel_sets"),
        (lambda m: m["processor"].update(kernel_sets=[kernel_set("a"), {"name": "b"}]), "kernel_sets"),
        (lambda m: m["processor"].update(kernel_sets=[kernel_set("a"), kernel_set("a")]), "different names"),
        (lambda m: m["processor"].update(kernel_sets=[kernel_set("a"), kernel_set("b")]), "kernels of each of steps"),
        (lambda m: m["steps"][0].update(kernels=["other"]), "kernels of each of steps"),
        (lambda m: m["steps"][0].update(kernels=3), "steps must list"),
        (lambda m: m["steps"][0].update(bytes=-1), "steps must list"),
        (lambda m: m["steps"][0].update(bytes=1 << 60), "steps must list"),
        (lambda m: m.update(arena_bytes=1 << 62), "arena_bytes"),
        (lambda m: m.update(workspace_bytes=-1), "workspace_bytes"),
        (lambda m: m.update(weights_bytes=-1), "weights_bytes"),
        (lambda m: m.update(inputs=[]), "inputs"),
        (lambda m: m["inputs"][0].update(shape=[1 << 39, 1 << 39]), "inputs"),
        (lambda m: m["inputs"][0].update(shape=[2, -48]), "inputs"),
        (lambda m: m["outputs"][0].update(bytes=1), "outputs"),
        (lambda m: m["outputs"][0].update(dtype="object"), "outputs"),
        (lambda m: m["outputs"][0].update(shape="ab"), "outputs"),
        (lambda m: m["steps"][0].update(layer=None), "steps"),
        (lambda m: m["steps"][0].update(kind=[]), "steps"),
        (lambda m: m["steps"][0].update(binary_macs=-5), "steps"),
        (lambda m: m.pop("statistics"), "statistics"),
        (lambda m: m["files"].update({"../../etc/passwd": m["files"]["runner"]}), "files must be model.so"),
        (lambda m: m["files"].pop("runner"), "files must be model.so"),
        (lambda m: m["files"]["runner"].update(bytes=10**30), "sha256"),
        (lambda m: m["files"]["runner"].update(sha256="0"), "sha256"),
    ],
)
def test_damaged_manifests_are_named(copied_bundle: Path, change: Change, message: str) -> None:
    """A manifest from outside makes Python fail with a traceback, read elsewhere or allocate without limit."""
    path = copied_bundle / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=message):
        Bundle.open(copied_bundle)


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100000, b'{"format": NaN}', b"1" * 10000, b" " * (17 << 20)]
)
def test_garbage_manifests_are_named(copied_bundle: Path, text: bytes) -> None:
    """Text that is no manifest ends in a traceback."""
    (copied_bundle / "manifest.json").write_bytes(text)
    with pytest.raises(BundleError, match=r"manifest\.json"):
        Bundle.open(copied_bundle)


def test_what_is_no_bundle_is_named(tmp_path: Path) -> None:
    """A wrong path ends in a traceback."""
    (tmp_path / "file").write_text("x")
    for path, message in (("absent", "does not exist"), ("file", "not a bundle"), (".", "not a bundle")):
        with pytest.raises(BundleError, match=message):
            Bundle.open(tmp_path / path)


def write(output: Path, kernels: Path) -> Bundle:
    cache = ObjectCache(cache_folder())
    return write_bundle(output, kernels_objects=[kernels], plan=toy_plan(), target=HOST, model_info={}, cache=cache)


def test_only_bundles_are_replaced(host_bundle: Bundle, copied_bundle: Path, tmp_path: Path) -> None:
    """A mistyped output deletes somebody's folder."""
    kernels = compile_kernels(tmp_path, "x86_64")
    documents = tmp_path / "documents"
    documents.mkdir()
    (documents / "thesis").write_text("x")
    for path in (documents, documents / "thesis", tmp_path):
        with pytest.raises(BundleError, match="not a bundle"):
            write(path, kernels)
    (copied_bundle / "notes.txt").write_text("x")
    with pytest.raises(BundleError, match=r"also holds notes\.txt"):
        write(copied_bundle, kernels)
    with pytest.raises(BundleError, match="does not exist"):
        write(tmp_path / "absent" / "bundle", kernels)
    assert (documents / "thesis").read_text() == "x" and (copied_bundle / "notes.txt").is_file()

    (copied_bundle / "notes.txt").unlink()
    assert write(copied_bundle, kernels).manifest["model"] == {}
    assert Bundle.open(copied_bundle).manifest["model"] == {}


def test_failure_leaves_the_older_bundle(copied_bundle: Path, tmp_path: Path) -> None:
    """A failed link leaves half a bundle, or none where there was one."""
    broken = tmp_path / "broken.o"
    broken.write_bytes(b"no object")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ToolError, match="Linking failed in `zig"):
        write(copied_bundle, broken)
    with pytest.raises(CompileError, match="0 steps"):
        plan = toy_plan()
        object.__setattr__(plan, "steps", ())
        write_bundle(copied_bundle, kernels_objects=[broken], plan=plan, target=HOST, model_info={})
    assert sorted(tmp_path.iterdir()) == before
    assert Bundle.open(copied_bundle).manifest["model"] == {"bnn_deploy.model": "toy"}


def test_unknown_information_is_refused(tmp_path: Path) -> None:
    """A misspelt part of model_info is lost silently."""
    with pytest.raises(ValueError, match="metadata"):
        write_bundle(
            tmp_path / "b", kernels_objects=[tmp_path], plan=toy_plan(), target=HOST, model_info={"metadata": {}}
        )
