"""Every model compiled for every target: seconds (the cache is not used) and bytes. Asserts nothing about time.

python benchmarks/compile_matrix.py                                  all of them: about 20 minutes on one core
python benchmarks/compile_matrix.py bcdnet_a bimlp_s:released        some models, all targets
python benchmarks/compile_matrix.py bimlp_tiny --target rpi4         one target
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import click
from model_files import ALL, onnx_file
from program import run

from bnn_deploy.compiler import compile_model
from bnn_deploy.errors import BnnDeployError
from bnn_deploy.targets.registry import all_targets


@click.command()
@click.argument("models", nargs=-1)
@click.option("--target", "targets", multiple=True, help="A target's name; the default is all of them.")
def main(models: tuple[str, ...], targets: tuple[str, ...]) -> None:
    """Compile MODELS (an ONNX file, name or name:variant; the default is all) for every target, and print seconds and bytes."""
    names = targets or tuple(target.name for target in all_targets())
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        for model in models or ALL:
            started = time.monotonic()
            path = onnx_file(model, Path(folder), batch=1)
            print(f"{model:<20} export              {time.monotonic() - started:6.1f} s", flush=True)
            for target in names:
                started = time.monotonic()
                try:
                    bundle = compile_model(path, target, Path(folder) / "bundle", cache=False)
                except BnnDeployError as error:
                    failures += 1
                    print(f"{model:<20} {target:<19} FAILED: {error}", flush=True)
                    continue
                size = bundle.library.stat().st_size
                print(f"{model:<20} {target:<19} {time.monotonic() - started:6.1f} s {size:>12,} bytes", flush=True)
    print(f"{failures} failures")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    run(main)
