"""Runs with taps in this process: what steps compute is seen as it is, and what is forced reaches whatever reads it."""

from __future__ import annotations

import ctypes
import dataclasses
from collections.abc import Callable, Iterator
from itertools import chain, combinations
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tvm

from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.bundle.tensor_file import open_table
from bnn_deploy.bundle.writing import write_bundle
from bnn_deploy.codegen.object_cache import ObjectCache, cache_folder
from bnn_deploy.compiler import compile_model
from bnn_deploy.errors import BundleError, InputError
from bnn_deploy.plan import Argument, KernelSetSteps, Space, TensorSpecification
from bnn_deploy.runtime.loader import Model
from bnn_deploy.runtime.status import Status
from bnn_deploy.targets.base import KernelSet
from tests.runtime.staged_network import BLOCKS, ROW, staged_bundle, staged_input, staged_reference
from tests.runtime.toy_network import BATCH, HIDDEN, HOST, compile_kernels, reference, toy_input, toy_plan
from tests.runtime.toy_taps import (
    ARENA,
    OUTPUT,
    TOTAL_BYTES,
    VALUES,
    WORKSPACE,
    tap,
    toy_bytes,
    toy_forced,
    toy_taps,
    toy_values,
)

SUBSETS = list(chain.from_iterable(combinations(VALUES, count) for count in range(len(VALUES) + 1)))


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return staged_bundle(tmp_path_factory.mktemp("staged"))


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_values_are_those_of_numpy(host_bundle: Bundle, threads: int) -> None:
    """A value is read too early or at another place, a forced one does not reach its readers, or reaches what came before it."""
    model, array, other = Model(host_bundle, threads), toy_input(6), toy_forced(6)
    for names in SUBSETS:
        forced = {name: other[name] for name in names}
        given = toy_bytes(other) if names else None
        output, observed = model.run_tapped(array, taps=toy_taps(names), total_bytes=TOTAL_BYTES, forced=given)
        values, expected = toy_values(array, forced)
        np.testing.assert_array_equal(observed, toy_bytes(values), err_msg=str(names))
        np.testing.assert_array_equal(output, expected, err_msg=str(names))
    np.testing.assert_array_equal(model(array), reference(array))


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_blocks_are_seen_and_forced_one_by_one(staged: Bundle, threads: int) -> None:
    """A block's value lands in another's place, or threads run ahead of what is forced into their workspace."""
    model, x = Model(staged, threads), staged_input()
    rows = np.random.default_rng(5).integers(-9, 10, x.shape).astype(np.float32)
    loaded = tap(0, WORKSPACE, 0, ROW)
    stored = tap(2, OUTPUT, 0, ROW, BLOCKS * ROW, stride=ROW)
    # The first row of the block's image: seen seven times.
    first = tap(2, OUTPUT, 0, ROW, 2 * BLOCKS * ROW, stride=7 * ROW, every=7)
    total = 3 * BLOCKS * ROW
    given = np.zeros((1, total), np.uint8)
    given[0, : BLOCKS * ROW] = rows.reshape(-1).view(np.uint8)
    for force, used in ((0, x), (1, rows)):
        taps = np.array([(*loaded[:-1], force), stored, first], np.int64)
        output, observed = model.run_tapped(x, taps=taps, total_bytes=total, forced=given)
        expected = staged_reference(used)
        np.testing.assert_array_equal(output, expected)
        seen = observed.view(np.float32).reshape(3, *x.shape)
        np.testing.assert_array_equal(seen[0], x)
        np.testing.assert_array_equal(seen[1], expected)
        np.testing.assert_array_equal(seen[2], np.broadcast_to(expected[:, :1], x.shape))


def test_two_taps_of_one_place_see_the_same(host_bundle: Bundle) -> None:
    """What a tap sees depends on whether another one came before it and forced."""
    array, ones = toy_input(), np.ones((1, 2 * 384), np.uint8)
    for order in ((0, 1), (1, 0)):
        taps = np.array([tap(1, ARENA, 0, 384, 384 * i, force=i) for i in order], np.int64)
        _, observed = Model(host_bundle).run_tapped(array, taps=taps, total_bytes=2 * 384, forced=ones)
        scaled = toy_values(array, {})[0]["scaled"]
        np.testing.assert_array_equal(observed.view(np.float32).reshape(2, BATCH, -1), np.stack([scaled, scaled]))


@pytest.fixture(scope="module")
def two_sets(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The toy network with the same kernels for two kinds of cores."""
    folder = tmp_path_factory.mktemp("sets")
    plan = toy_plan()
    sets = (KernelSetSteps("in-order", plan.steps),)
    return write_bundle(
        folder / "bundle",
        kernels_objects=[compile_kernels(folder, "x86_64")],
        plan=dataclasses.replace(plan, kernel_set="out-of-order", other_sets=sets),
        target=dataclasses.replace(HOST, kernel_sets=(KernelSet("out-of-order", ""), KernelSet("in-order", ""))),
        model_info={},
        cache=ObjectCache(cache_folder()),
    )


def test_taps_of_other_kernel_sets_do_nothing(two_sets: Bundle) -> None:
    """A value is read from, or forced into, the place that it has with other kernels."""
    model, array, other = Model(two_sets), toy_input(), toy_forced(BATCH)
    assert model.kernel_set == "out-of-order"
    elsewhere = toy_taps(VALUES)
    elsewhere[:, 0] = 1
    taps = np.concatenate([elsewhere, toy_taps(["sums"])])
    output, observed = model.run_tapped(array, taps=taps, total_bytes=TOTAL_BYTES, forced=toy_bytes(other))
    values, expected = toy_values(array, {"sums": other["sums"]})
    np.testing.assert_array_equal(observed, toy_bytes(values))
    np.testing.assert_array_equal(output, expected)
    output, observed = model.run_tapped(array, taps=elsewhere, total_bytes=TOTAL_BYTES, forced=toy_bytes(other))
    np.testing.assert_array_equal(output, reference(array))
    assert not observed.any()


@pytest.fixture(scope="module")
def two_outputs(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The scaled input and the sums as two outputs, which lie end to end in the plan and nowhere near in memory."""
    folder = tmp_path_factory.mktemp("outputs")
    plan = toy_plan()
    ends = (Argument(Space.OUTPUT, 0), Argument(Space.OUTPUT, 384))
    steps = (
        plan.steps[0],
        dataclasses.replace(plan.steps[1], arguments=(*plan.steps[1].arguments[:2], ends[0])),
        dataclasses.replace(plan.steps[2], arguments=(ends[0], plan.steps[2].arguments[1], ends[1])),
    )
    outputs = (TensorSpecification("scaled", (BATCH, 48)), TensorSpecification("sums", (BATCH, HIDDEN)))
    return write_bundle(
        folder / "bundle",
        kernels_objects=[compile_kernels(folder, "x86_64")],
        plan=dataclasses.replace(plan, steps=steps, outputs=outputs),
        target=HOST,
        model_info={},
        cache=ObjectCache(cache_folder()),
    )


def test_each_output_is_a_place_of_its_own(two_outputs: Bundle) -> None:
    """A tap of the second output reads after the end of the first one's buffer."""
    model, array = Model(two_outputs), toy_input()
    taps = np.array([tap(1, OUTPUT, 0, 384, force=1), tap(2, OUTPUT, 384, 320, 384)], np.int64)
    other = toy_forced(BATCH)
    given = toy_bytes(other)[:, :704]
    outputs, observed = model.run_tapped(array, taps=taps, total_bytes=704, forced=given)
    values, _ = toy_values(array, {"scaled": other["scaled"]})
    np.testing.assert_array_equal(observed, toy_bytes({**values, "logits": other["logits"]})[:, :704])
    np.testing.assert_array_equal(outputs[0], other["scaled"])
    np.testing.assert_array_equal(outputs[1], values["sums"])
    for bad in (tap(2, OUTPUT, 380, 8), tap(2, OUTPUT, 384, 324), tap(2, OUTPUT, 704, 1)):
        with pytest.raises(InputError, match="no place"):
            model.run_tapped(array, taps=np.array([bad], np.int64), total_bytes=bad[6])


HUGE = 2**63 - 1
BAD_TAPS = {
    "a kernel set below 0": tap(0, WORKSPACE, 0, 4, kernel_set=-1),
    "a kernel set too far": tap(0, WORKSPACE, 0, 4, kernel_set=1),
    "a step below 0": tap(-1, WORKSPACE, 0, 4),
    "a step too far": tap(3, WORKSPACE, 0, 4),
    "a step far too far": tap(HUGE, WORKSPACE, 0, 4),
    "the input": tap(0, 0, 0, 4),
    "the weights": tap(0, 2, 0, 4),
    "the arena, which is empty": tap(0, ARENA, 0, 4),
    "no space": tap(0, 5, 0, 4),
    "a space below 0": tap(0, -1, 0, 4),
    "an offset below 0": tap(0, WORKSPACE, -4, 4),
    "an offset at the end": tap(0, WORKSPACE, ROW, 4),
    "an offset far behind": tap(0, WORKSPACE, HUGE, 4),
    "the end behind the space": tap(0, WORKSPACE, 4, ROW),
    "the output's end": tap(2, OUTPUT, 4, ROW, stride=ROW),
    "the last block behind the space": tap(0, WORKSPACE, 0, 4, stride=ROW),
    "a stride below 0": tap(2, OUTPUT, 13 * ROW, ROW, stride=-ROW),
    "a stride that overflows": tap(2, OUTPUT, 0, ROW, stride=HUGE),
    "a stride that overflows to 0": tap(2, OUTPUT, 0, ROW, stride=2**62, every=3),
    "every 0": tap(2, OUTPUT, 0, ROW, every=0),
    "every below 0": tap(2, OUTPUT, 0, ROW, every=-1),
    "no bytes": tap(0, WORKSPACE, 0, 0),
    "bytes below 0": tap(0, WORKSPACE, 0, -4),
    "bytes that overflow": tap(0, WORKSPACE, 0, HUGE),
    "a value below 0": tap(0, WORKSPACE, 0, 4, -4),
    "a value behind the buffer": tap(0, WORKSPACE, 0, ROW, 4),
    "a value that overflows": tap(0, WORKSPACE, 0, 4, HUGE),
    "force 2": tap(0, WORKSPACE, 0, 4, force=2),
    "force below 0": tap(0, WORKSPACE, 0, 4, force=-1),
}
BUFFER_BYTES = BLOCKS * ROW


class Direct:
    """The C function, with a good call's arguments, and buffers that must stay as they were after a bad one."""

    def __init__(self, bundle: Bundle) -> None:
        self.model = Model(bundle)
        self.x = staged_input()
        self.output = np.full_like(self.x, 7)
        self.observed = np.full(BUFFER_BYTES, 7, np.uint8)
        self.forced = np.zeros(BUFFER_BYTES, np.uint8)

    def __call__(self, *rows: tuple[int, ...], **changes: Any) -> int:
        taps = np.array(rows, np.int64).reshape(-1, 9)
        arguments = {
            "model": self.model._handle,
            "inputs": (ctypes.c_void_p * 1)(self.x.ctypes.data),
            "outputs": (ctypes.c_void_p * 1)(self.output.ctypes.data),
            "taps": taps.ctypes.data,
            "count": len(taps),
            "observed": self.observed.ctypes.data,
            "forced": self.forced.ctypes.data,
            "bytes": BUFFER_BYTES,
            **changes,
        }
        return int(self.model._library.bnn_run_tapped(*arguments.values()))


@pytest.fixture(scope="module")
def direct(staged: Bundle) -> Iterator[Direct]:
    yield Direct(staged)


@pytest.mark.parametrize("bad", BAD_TAPS.values(), ids=BAD_TAPS.keys())
def test_bad_taps_are_refused_before_anything_runs(direct: Direct, bad: tuple[int, ...]) -> None:
    """A tap from a damaged file reads or writes memory that is not the network's."""
    good = tap(0, WORKSPACE, 0, ROW)
    needed = ctypes.c_size_t()
    tapped_bytes: Callable[..., int] = direct.model._library.bnn_tapped_bytes
    rows = np.array([good, bad], np.int64)
    valid_alone = tapped_bytes(rows[1:].ctypes.data_as(ctypes.c_void_p), ctypes.c_size_t(1), ctypes.byref(needed)) == 0
    # Only the size of the buffer is no matter of the tap alone.
    assert valid_alone == (bad == BAD_TAPS["a value behind the buffer"])
    assert direct(good, bad) == direct(bad) == Status.ARGUMENT
    assert (direct.output == 7).all() and (direct.observed == 7).all()


def test_bad_calls_are_refused(staged: Bundle) -> None:
    """A null pointer is read, or taps that force write what nobody gave."""
    call, good = Direct(staged), tap(0, WORKSPACE, 0, ROW)
    null = (ctypes.c_void_p * 1)()
    for changes in (
        *({name: None} for name in ("model", "inputs", "outputs", "taps", "observed")),
        {"inputs": null},
        {"outputs": null},
        {"bytes": BUFFER_BYTES - 1},
        {"bytes": 0},
    ):
        assert call(good, **changes) == Status.ARGUMENT, changes
    assert call((*good[:-1], 1), forced=None) == Status.ARGUMENT
    assert (call.output == 7).all()
    assert call(good, forced=None) == 0
    np.testing.assert_array_equal(call.observed.view(np.float32), call.x.reshape(-1))
    # No taps, and so no values.
    assert call(taps=None, count=0, observed=None, forced=None, bytes=0) == 0
    np.testing.assert_array_equal(call.output, staged_reference(call.x))


def test_buffers_of_any_alignment(staged: Bundle) -> None:
    """Forced outputs get lost where the caller's buffer is not aligned, or unaligned values fault."""
    call = Direct(staged)
    room = np.zeros(BUFFER_BYTES + 64, np.uint8)
    values = np.zeros(2 * BUFFER_BYTES + 64, np.uint8)
    values[1 + BUFFER_BYTES : 1 + 2 * BUFFER_BYTES] = np.arange(BUFFER_BYTES) % 251
    status = call(
        tap(2, OUTPUT, 0, ROW, stride=ROW, force=1),
        outputs=(ctypes.c_void_p * 1)(room.ctypes.data + 3),
        observed=values.ctypes.data + 1,
        forced=values.ctypes.data + 1 + BUFFER_BYTES,
    )
    assert status == 0
    np.testing.assert_array_equal(room[3 : 3 + BUFFER_BYTES], np.arange(BUFFER_BYTES) % 251)
    np.testing.assert_array_equal(
        values[1 : 1 + BUFFER_BYTES].copy().view(np.float32), staged_reference(call.x).reshape(-1)
    )


def test_a_failing_step_is_named(staged: Bundle) -> None:
    """A kernel's failure is lost in runs with taps, or the model is unusable afterwards."""
    model, x = Model(staged, 2), staged_input()
    taps = np.array([tap(0, WORKSPACE, 0, ROW)], np.int64)
    x[1, 3, 0] = 666
    with pytest.raises(BundleError, match="of layer load reported failure"):
        model.run_tapped(x, taps=taps, total_bytes=BUFFER_BYTES)
    x[1, 3, 0] = 1
    _, observed = model.run_tapped(x, taps=taps, total_bytes=BUFFER_BYTES)
    np.testing.assert_array_equal(observed.view(np.float32).reshape(x.shape), x)


def test_python_says_what_is_wrong(host_bundle: Bundle) -> None:
    """Wrong arrays reach the library, or the error does not say what was expected."""
    model, array, taps = Model(host_bundle), toy_input(4), toy_taps()
    good = np.zeros((2, TOTAL_BYTES), np.uint8)

    def refused(
        match: str, taps: np.ndarray = taps, total: int = TOTAL_BYTES, forced: np.ndarray | None = good
    ) -> None:
        with pytest.raises(InputError, match=match):
            model.run_tapped(array, taps=taps, total_bytes=total, forced=forced)

    refused("int64 of shape", taps.astype(np.int32))
    refused("int64 of shape", taps[:, :8])
    refused("int64 of shape", taps[0])
    refused(f"take {TOTAL_BYTES} bytes of values, and not {TOTAL_BYTES - 1}", total=TOTAL_BYTES - 1)
    refused("Tap 1 is of step 4, and .* has 4 steps", np.array([taps[0], tap(4, ARENA, 0, 4)], np.int64))
    refused("no values were given", toy_taps(["sums"]), forced=None)
    refused(rf"uint8 of shape \(2, {TOTAL_BYTES}\)", forced=good[:1])
    refused("expected uint8", forced=good.astype(np.int8))
    refused("no place of the network", np.array([tap(0, ARENA, 704, 4)], np.int64), 4, None)
    model._library = SimpleNamespace()  # type: ignore[assignment] - as of a bundle without the function
    with pytest.raises(BundleError, match="too old for taps; compile the model again"):
        model.run_tapped(array, taps=taps, total_bytes=TOTAL_BYTES)


def test_function_for_tvm(host_bundle: Bundle) -> None:
    """Over RPC, taps see or force other values, or a wrong call reads memory that is not its own."""
    library = tvm.runtime.load_module(str(host_bundle.library))
    handle, array, other = library["bnn_create"](2), toy_input(4), toy_forced(4)
    source, output = tvm.runtime.tensor(array), tvm.runtime.empty((4, HIDDEN), "float32")
    observed, given = tvm.runtime.empty((2, TOTAL_BYTES), "uint8"), tvm.runtime.tensor(toy_bytes(other))
    taps, call = tvm.runtime.tensor(toy_taps(["scaled"])), library["bnn_run_tapped"]
    for arguments in (
        (),
        (handle, source, output, taps, observed),
        (handle, source, output, taps, observed, 1),
        (handle, source, output, taps, observed, "forced"),
        (handle, source, output, taps, observed, 0),
        (handle, source, output, taps, 0, given),
        (handle, source, output, 0, observed, given),
        (handle, source, output, taps, tvm.runtime.empty((2, TOTAL_BYTES - 1), "uint8"), given),
        (handle, source, output, taps, tvm.runtime.empty((3, TOTAL_BYTES), "uint8"), given),
        (handle, source, output, taps, observed, tvm.runtime.empty((1, TOTAL_BYTES), "uint8")),
        (handle, source, output, tvm.runtime.tensor(toy_taps()[:, :8].copy()), observed, given),
        (handle, output, source, taps, observed, given),
        (0, source, output, taps, observed, given),
    ):
        assert call(*arguments) == -Status.ARGUMENT, arguments
    assert call(handle, source, output, taps, observed, given) == 0
    values, expected = toy_values(array, {"scaled": other["scaled"]})
    np.testing.assert_array_equal(output.numpy(), expected)
    np.testing.assert_array_equal(observed.numpy(), toy_bytes(values))
    assert call(handle, source, output, tvm.runtime.tensor(toy_taps()), observed, 0) == 0
    np.testing.assert_array_equal(observed.numpy(), toy_bytes(toy_values(array, {})[0]))
    library["bnn_destroy"](handle)


@pytest.fixture(scope="module")
def three_valued(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A network with signs of three values, thresholds per channel and words that are rolled; batch 2."""
    import onnx

    from tests.frontend.test_three_valued_signs import network

    folder = tmp_path_factory.mktemp("three")
    onnx.save(network(), str(folder / "x.onnx"))
    compile_model(folder / "x.onnx", "host", folder / "bundle", batch=2)
    return Bundle.open(folder / "bundle")


@pytest.mark.parametrize("which", ["tiny_bundle", "three_valued"])
def test_compiled_networks(request: pytest.FixtureRequest, which: str) -> None:
    """In a compiled network, what a step computed goes on changing after it was seen; forcing a value to what it is changes
    something; or forcing another one changes something before it, or nothing after it."""
    found = request.getfixturevalue(which)
    bundle = found if isinstance(found, Bundle) else Bundle.open(found)
    table, random = open_table(bundle), np.random.default_rng(0)
    keys = [entry.key for entry in table.entries]
    x = random.standard_normal((2 * bundle.batch, *bundle.inputs[0].shape[1:])).astype(np.float32)
    model = Model(bundle, 2)
    plain = model(x)
    output, observed = model.run_tapped(x, taps=table.taps(), total_bytes=table.total_bytes)
    assert output.tobytes() == plain.tobytes()
    again = model.run_tapped(x, taps=table.taps(keys), total_bytes=table.total_bytes, forced=observed)
    assert again[0].tobytes() == plain.tobytes() and (again[1] == observed).all()
    values = table.split(observed)
    signs = [entry for entry in table.entries if entry.kind == "words"]
    assert any(entry.ternary for entry in signs) == (which == "three_valued")
    for entry in {signs[0].key: signs[0], **{e.key: e for e in signs if e.ternary}, signs[-1].key: signs[-1]}.values():
        levels = (-1, 0, 1) if entry.ternary else (-1, 1)
        other = random.choice(levels, entry.to_onnx(values[entry.key]).shape).astype(np.int8)
        forced = table.join({entry.key: entry.from_onnx(other)}, 2)
        output, seen = model.run_tapped(x, taps=table.taps([entry.key]), total_bytes=table.total_bytes, forced=forced)
        changed = [key for key in keys if table.split(seen)[key].tobytes() != values[key].tobytes()]
        assert changed and keys.index(changed[0]) > keys.index(entry.key), (entry.key, changed)
        assert output.tobytes() != plain.tobytes()
