"""``bnn-deploy run``: a bundle on the images of a .npy file."""

from __future__ import annotations

from pathlib import Path

import click

from bnn_deploy.cli.options import FILE, device_options, format_option, print_result, threads_option
from bnn_deploy.progress import status_line


@click.command("run", short_help="Run a bundle on images in a .npy file.")
@click.argument("bundle", type=FILE)
@click.option(
    "--input",
    "input_path",
    type=FILE,
    required=True,
    metavar="x.npy",
    help="float32 images (N, channels, height, width).",
)
@click.option("--output", "output_path", type=FILE, required=True, metavar="y.npy", help="File to write the logits to.")
@device_options
@threads_option
@format_option
def run_command(
    bundle: Path, input_path: Path, output_path: Path, device: str, timeout: float, threads: int, output_format: str
) -> None:
    """Run BUNDLE on the images of x.npy and write its outputs to y.npy."""
    from bnn_deploy.bundle.bundle import Bundle
    from bnn_deploy.data.arrays import load_images
    from bnn_deploy.devices.registry import get_device
    from bnn_deploy.files import require_writable, save_array

    with status_line() as progress:
        opened = Bundle.open(bundle)
        chosen = get_device(device, timeout)
        images = load_images(input_path, opened.inputs[0].shape[1:])
        require_writable(output_path)
        output = chosen.run(opened, images, threads, progress)
        save_array(output_path, output)
    result = {"output": str(output_path), "shape": list(output.shape), "dtype": str(output.dtype), "device": device}
    print_result(result, output_format, lambda: f"{output_path}: {output.dtype} {tuple(output.shape)}")
