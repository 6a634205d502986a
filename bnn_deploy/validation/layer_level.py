"""Level 2: does each layer, given the reference's inputs, compute the reference's outputs?

Every binarised value, and every real value that the reference knows, is compared and then replaced by the reference's: so no layer
inherits the differences of those before it. The reference does not come from the compiler: what the front end or a pass got
wrong shows here. A binarised value may differ where the reference was within the margin of its threshold, for both answers are
right there; a real one by the margin of the largest in its tensor.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from bnn_deploy.bundle.tensor_table import Key, TensorEntry, TensorTable
from bnn_deploy.progress import ReportProgress, quiet
from bnn_deploy.references.layer_values import LayerReference, LayerValues, SignValues
from bnn_deploy.references.margin import RELATIVE_MARGIN
from bnn_deploy.validation.kernel_level import LevelOutcome, TappedSession
from bnn_deploy.validation.report import LevelResult
from bnn_deploy.validation.tally import Occasion, Tally

NAME = "layers"
LOGITS = "logits"


def compare_layers(
    session: TappedSession,
    reference: LayerReference,
    table: TensorTable,
    batches: Sequence[np.ndarray],
    *,
    margin: float | None = None,
    output: str,
    exact: Mapping[str, str] | None = None,
    progress: ReportProgress = quiet,
) -> LevelOutcome:
    """Compare every value that both sides have.

    Args:
        session: the bundle on its device.
        reference: the file, the PyTorch model or a golden file.
        table: where the bundle holds its values.
        batches: the images of each batch of the bundle.
        margin: the part of each tensor's largest value that rounding may change; None takes the reference's own of each.
        output: name of the network's output.
        exact: binarised value -> real value, as in ``GraphPaths``; where the reference knows both, rounding explains nothing.
        progress: told of every batch.
    """
    comparison = _Comparison(session, reference, table, margin, output, exact or {})
    for number, images in enumerate(batches):
        progress(f"level 2: batch {number + 1} of {len(batches)}")
        comparison.add(images, Occasion(number * len(images), len(images)))
    rows = tuple(tally.result() for tally in comparison.in_order())
    counted = sum(len(images) for images in batches)
    # The logits alone localise nothing: level 3 has them.
    passed = any(row.step >= 0 for row in rows) and all(row.passed for row in rows)
    result = LevelResult(2, NAME, reference.name, counted, ("data",), rows, passed)
    return LevelOutcome(result, tuple(dict.fromkeys((*comparison.notes, *comparison.warnings(rows)))))


@dataclass
class _Comparison:
    session: TappedSession
    reference: LayerReference
    table: TensorTable
    margin: float | None
    output: str
    exact: Mapping[str, str]
    tallies: dict[Key, Tally] = field(default_factory=dict)
    logits: Tally | None = None
    signs: dict[str, SignValues] = field(default_factory=dict)
    misfits: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)

    def add(self, images: np.ndarray, occasion: Occasion) -> None:
        # What the network makes of signs by moving them (rolls, concatenations) are real values to the reference.
        asked = dict.fromkeys(entry.tensor for entry in self.table.entries)
        # A golden file has no real values, and so no places.
        signs = {place.tensor for place in getattr(self.reference, "places", ())}
        wanted = self.reference.capture(images, [tensor for tensor in asked if tensor not in signs])
        self.notes += wanted.notes
        self.signs = dict(wanted.signs)
        expected = {
            entry.key: value for entry in self.table.entries if (value := self._expected(entry, wanted)) is not None
        }
        known = self.table.select(expected.keys())
        # A 0 that the bundle cannot store is compared, but not put in its place.
        forced = {entry.key: entry.from_onnx(expected[entry.key]) for entry in known.entries if _fits(entry, expected)}
        taps = known.taps(force=set(forced))
        outputs, observed = self.session.run_tapped(images, taps, known.total_bytes, known.join(forced))
        arrays = known.split(observed)
        for entry in known.entries:
            if entry.tensor == self.output:
                continue
            # Rounding makes no sign of three values one of two.
            exact = not _fits(entry, expected) or (self.exact.get(entry.tensor), "floats") in forced
            self._compare(entry, expected[entry.key], entry.to_onnx(arrays[entry.key]), wanted, exact, occasion)
        if self.logits is None:
            self.logits = Tally(self._output_entry(wanted.logits))
        found = np.asarray(observed_output(known, arrays, self.output, outputs), np.float32)
        limit = self._margin_of(self.output, wanted)
        self.logits.add_floats(wanted.logits, found.reshape(wanted.logits.shape), limit, occasion)

    def _expected(self, entry: TensorEntry, wanted: LayerValues) -> np.ndarray | None:
        """The reference's value in the layout of ONNX; None if it has none."""
        sign = wanted.signs.get(entry.tensor)
        value = sign.values if sign is not None else wanted.floats.get(entry.tensor)
        if value is None:
            return None
        if value.shape != entry.onnx_shape:
            self.misfits.add(entry.tensor)
            return None
        return value

    def _margin_of(self, tensor: str, wanted: LayerValues) -> float:
        return wanted.float_margins.get(tensor, RELATIVE_MARGIN) if self.margin is None else self.margin

    def _compare(
        self,
        entry: TensorEntry,
        expected: np.ndarray,
        found: np.ndarray,
        wanted: LayerValues,
        exact: bool,
        occasion: Occasion,
    ) -> None:
        sign = wanted.signs.get(entry.tensor)
        tally = self.tallies.setdefault(entry.key, Tally(entry))
        if sign is not None:
            tally.kind, tally.fed_by = "bits", sign.fed_by
            tally.add_signs(expected, found, sign, self.margin, occasion, exact)
        elif entry.kind == "words":
            tally.add_bits(expected, found, occasion)
        else:
            tally.add_floats(expected, found, self._margin_of(entry.tensor, wanted), occasion)

    def _output_entry(self, logits: np.ndarray) -> TensorEntry:
        entry = self.table.find(self.output, "floats")
        return entry or TensorEntry(self.output, "floats", LOGITS, -1, logits.shape, 0, False, False, ())

    def in_order(self) -> list[Tally]:
        rows = [self.tallies[entry.key] for entry in self.table.entries if entry.key in self.tallies]
        return [*rows, *([self.logits] if self.logits is not None else [])]

    def warnings(self, rows: Sequence[object]) -> Iterator[str]:
        compared = {tensor for tensor, _ in self.tallies}
        if not compared:
            yield (
                f"Level 2 compared nothing but the logits: {self.reference.name} and the bundle have no value in common; "
                "give the file that the bundle was compiled from, or compile it again."
            )
            return
        absent = [sign.layer for sign in self.signs.values() if sign.tensor not in compared]
        if absent:
            yield (
                f"{len(absent)} of {len(self.signs)} binarisations of the reference were not compared by themselves, for the "
                f"bundle does not store them as one value: {_names(absent)}; what follows them was."
            )
        strange = [
            entry.layer for entry in self.table.entries if entry.kind == "words" and entry.tensor not in compared
        ]
        if strange:
            yield (
                f"{len(strange)} packed values of the bundle were not compared, for the reference has none of their names: "
                f"{_names(strange)}."
            )
        if self.misfits:
            yield (
                f"{len(self.misfits)} values of the reference have another shape than in the bundle and "
                f"were not compared: {_names(sorted(self.misfits))}."
            )


def _fits(entry: TensorEntry, expected: Mapping[Key, np.ndarray]) -> bool:
    return entry.kind == "floats" or entry.ternary or bool(expected[entry.key].all())


def observed_output(table: TensorTable, arrays: dict[Key, np.ndarray], name: str, outputs: np.ndarray) -> np.ndarray:
    """The logits that were computed: where they are an entry, ``outputs`` has what was forced instead."""
    entry = table.find(name, "floats")
    return outputs if entry is None else entry.to_onnx(arrays[entry.key])


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown
