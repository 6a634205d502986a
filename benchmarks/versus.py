"""One network, run by bnn-deploy and by others, in turns within one process: ratios of their times.

python benchmarks/versus.py bcdnet_a                                        best target of this machine, one thread
python benchmarks/versus.py bcdnet_a.onnx bimlp_m.onnx --threads 1,2        also two threads against one
python benchmarks/versus.py bcdnet_a --target x86-64-v3,x86-64-v4-vpopcntdq several targets against each other
python benchmarks/versus.py bcdnet_a.onnx --bundle built_before             a bundle instead of compiling

Against onnxruntime with the same ONNX file, the PyTorch model it came from (as it is, and with the signs of its weights
computed once), and, with ``--lce FILE.tflite`` and where it can be imported, Larq Compute Engine. Before anything is timed,
all of them must compute the same: exit code 1 if they do not. Asserts nothing about time.
"""

from __future__ import annotations

import json
import sys
import tempfile
from functools import partial
from pathlib import Path

import click
import contestants
import numpy as np
from interleaved import Times, interleave, spread
from model_files import onnx_file
from program import run

from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.compiler import compile_model
from bnn_deploy.errors import ModelFileError
from bnn_deploy.export.provenance import rebuild
from bnn_deploy.files import file_sha256
from bnn_deploy.onnx_files.reading import load_onnx
from bnn_deploy.references.whole_model import Reference, open_reference

# float32 sums of at most a few thousand terms, in different orders through some forty layers: about 40 * sqrt(4096) * 2**-24
# of the largest logit, were every error to add up. One flipped sign moves logits by much more.
CLOSE = 40 * 4096**0.5 * 2.0**-24
# Seconds that threads of the one before may take to fall asleep.
PAUSE = 0.005


@click.command()
@click.argument("models", nargs=-1, required=True)
@click.option(
    "--target", "targets", default="host", show_default=True, help="One or more of ours, with commas between."
)
@click.option("--threads", default="1", show_default=True, help="One or more numbers, with commas between.")
@click.option("--batch", default=1, show_default=True, help="Images in one call.")
@click.option("--bundle", type=click.Path(path_type=Path), help="Ours, compiled before from the one MODEL.")
@click.option("--against", default="onnxruntime,pytorch", show_default=True, help="Others; empty for none.")
@click.option("--lce", type=click.Path(path_type=Path), help="The network as converted for Larq Compute Engine.")
@click.option("--rounds", default=20, show_default=True, help="How often everything has its turn.")
@click.option("--calls", default=3, show_default=True, help="Timed calls in one turn.")
@click.option("--json", "report", type=click.Path(path_type=Path), help="Also write all times to this file.")
def main(
    models: tuple[str, ...],
    targets: str,
    threads: str,
    batch: int,
    bundle: Path | None,
    against: str,
    lce: Path | None,
    rounds: int,
    calls: int,
    report: Path | None,
) -> None:
    """Time MODELS (an ONNX file, name or name:variant) in ours and in others."""
    if bundle is not None and len(models) > 1:
        raise click.UsageError("--bundle goes with one MODEL.")
    counts = [int(count) for count in threads.split(",")]
    others = [name for name in against.split(",") if name]
    if unknown := set(others) - {"onnxruntime", "pytorch"}:
        raise click.UsageError(f"--against knows onnxruntime and pytorch, not {', '.join(sorted(unknown))}.")
    results, agreed = [], True
    with tempfile.TemporaryDirectory() as folder:
        for model in models:
            path = onnx_file(model, Path(folder))
            bundles = [Bundle.open(bundle)] if bundle is not None else []
            if bundle is None:
                for target in targets.split(","):
                    bundles.append(compile_model(path, target, Path(folder) / f"{target}.bundle", batch=batch))
            elif bundles[0].manifest["model"].get("onnx_sha256") not in (
                None,
                file_sha256(path),
            ):
                raise click.UsageError(f"{bundle} was not compiled from {path}.")
            reference = open_reference("onnxruntime", path)
            runs = _runs(path, reference, bundles, counts, others, lce)
            images, exact = _images(reference, batch)
            print(f"{model}: batch {batch}, {rounds} rounds of {calls} calls", flush=True)
            if not _agree(runs, images, exact):
                agreed = False
                continue
            times = interleave({name: partial(run, images) for name, (_, run) in runs.items()}, rounds, calls, PAUSE)
            results.append(_result(model, batch, runs, times))
            _print(results[-1])
    if report is not None:
        report.write_text(json.dumps(results, indent=1) + "\n")
    sys.exit(0 if agreed else 1)


def _runs(
    path: Path, reference: Reference, bundles: list[Bundle], counts: list[int], others: list[str], lce: Path | None
) -> dict[str, tuple[str, contestants.Run]]:
    """(group, run) by name; a group is one program at several numbers of threads."""
    runs = {}

    def add(group: str, make: object) -> None:
        for count in counts:
            runs[f"{group}, {count} thread{'s' * (count > 1)}"] = (group, make(count))

    for bundle in bundles:
        add(f"ours {bundle.target}", lambda count, bundle=bundle: contestants.ours(bundle, count))
    if "onnxruntime" in others:
        add("onnxruntime", lambda count: contestants.onnxruntime(path, count))
    if "pytorch" in others:
        try:
            metadata = {item.key: item.value for item in load_onnx(path).metadata_props}
            module = rebuild(metadata, None, path, reference.input_shape, reference.classes).module
        except ModelFileError as error:
            print(f"PyTorch is left out: {error}")
        else:
            add("pytorch", lambda count: contestants.pytorch(module, count))
            frozen = contestants.frozen(module)
            add("pytorch, weights frozen", lambda count: contestants.pytorch(frozen, count))
    try:
        make = contestants.larq_interpreter()
    except ImportError as error:
        print(f"Larq Compute Engine is left out: it cannot be imported ({error}).")
    else:
        if lce is None:
            print("Larq Compute Engine is left out: give the converted network with --lce FILE.tflite.")
        else:
            add("larq", lambda count: make(lce.read_bytes(), count))
    return runs


def _images(reference: Reference, batch: int) -> tuple[np.ndarray, bool]:
    """One batch, and whether every activation is known to keep a margin from its threshold on it."""
    dataset = reference.default_dataset(batch)
    images = np.concatenate([chunk for chunk, _ in dataset.chunks(batch)])
    exact = reference.calibration is not None and reference.calibration.samples >= batch
    return np.ascontiguousarray(images), exact


def _agree(runs: dict[str, tuple[str, contestants.Run]], images: np.ndarray, exact: bool) -> bool:
    """Compare all outputs with the last one of onnxruntime (or the first of all) and say how far they are apart."""
    outputs = {name: np.asarray(run(images)) for name, (group, run) in runs.items() if group != "larq"}
    base = next((name for name in outputs if name.startswith("onnxruntime")), next(iter(outputs)))
    expected, bound = outputs[base], CLOSE * np.abs(outputs[base]).max()
    agreed = True
    for name, output in outputs.items():
        difference = np.abs(output - expected).max()
        same = bool((output.argmax(1) == expected.argmax(1)).all()) and (not exact or difference <= bound)
        agreed &= same
        if name != base:
            print(f"  {'agrees' if same else 'DIFFERS'}: {name} and {base}, largest difference {difference:.2g}")
    return agreed


def _result(
    model: str, batch: int, runs: dict[str, tuple[str, contestants.Run]], times: dict[str, Times]
) -> dict[str, object]:
    """Everything measured, as JSON: milliseconds, and how many times faster each of ours is than each other."""
    ratios = [
        {
            "ours": ours,
            "other": other,
            "times_faster": spread(times[other].wall / times[ours].wall),
            "times_less_processor_time": spread(times[other].processor / times[ours].processor),
        }
        for ours in runs
        for other in runs
        if ours.startswith("ours") and ours != other and _comparable(ours, other, runs)
    ]
    milliseconds = {
        name: {
            **spread(1e3 * values.wall),
            "processor": spread(1e3 * values.processor),
            "rounds": (1e3 * values.wall).tolist(),
        }
        for name, values in times.items()
    }
    return {"model": model, "batch": batch, "milliseconds": milliseconds, "ratios": ratios}


def _comparable(ours: str, other: str, runs: dict[str, tuple[str, contestants.Run]]) -> bool:
    """Another program at as many threads, or the same one at other numbers of threads; each pair of ours once."""
    same_threads = ours.rpartition(", ")[2] == other.rpartition(", ")[2]
    names = list(runs)
    if runs[ours][0] == runs[other][0]:
        return names.index(ours) > names.index(other)
    return same_threads and (not other.startswith("ours") or names.index(ours) > names.index(other))


def _print(result: dict[str, object]) -> None:
    print(f"  {'milliseconds':<44}{'median':>9}{'min':>9}{'p10':>9}{'p90':>9}{'processor':>11}")
    for name, row in result["milliseconds"].items():
        clock = "".join(f"{row[key]:9.2f}" for key in ("median", "min", "p10", "p90"))
        print(f"  {name:<44}{clock}{row['processor']['median']:11.2f}")
    print("  times faster: median (p10 to p90) of all rounds; the same of processor time, which waiting is not part of")
    for entry in result["ratios"]:
        clock, processor = entry["times_faster"], entry["times_less_processor_time"]
        print(
            f"  {entry['ours']} than {entry['other']}: {clock['median']:.2f} ({clock['p10']:.2f} to {clock['p90']:.2f}); "
            f"{processor['median']:.2f} ({processor['p10']:.2f} to {processor['p90']:.2f})"
        )


if __name__ == "__main__":
    run(main)
