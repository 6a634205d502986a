"""``bnn-deploy targets``: what can be compiled for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from bnn_deploy.cli.options import format_option, print_result
from bnn_deploy.errors import TargetError
from bnn_deploy.report.text import table

if TYPE_CHECKING:
    from bnn_deploy.targets.base import Target


@click.command("targets", short_help="List the compilation targets.")
@format_option
def targets_command(output_format: str) -> None:
    """List the names that compile --target takes; the one that 'host' stands for here is marked.

    For GPUs, it also lists the architectures that --target cuda --arch takes, and the instruction of their binary layers.
    """
    from bnn_deploy.targets.registry import host_target

    try:
        host = host_target()
    except TargetError:
        host = None
    print_result(_result(host), output_format, lambda: _text(host))


def _result(host: Target | None) -> dict[str, Any]:
    from bnn_deploy.targets.cuda.architectures import ARCHITECTURES, architecture
    from bnn_deploy.targets.registry import all_targets

    targets = [
        {
            "name": target.name,
            "architecture": target.architecture,
            "mcpu": target.mcpu,
            "kernel_sets": [{"name": kernels.name, "mcpu": kernels.mcpu} for kernels in target.kernel_sets],
            "description": target.description,
            "gpu": None
            if target.gpu is None
            else {"arch": target.gpu.arch, "dot_product": architecture(target.gpu.sm).dot_product},
            "host": target == host,
        }
        for target in all_targets()
    ]
    gpus = [
        {
            "arch": row.name,
            "dot_product": row.dot_product,
            "reason": row.reason,
            "binary_macs_per_clock": row.binary_macs_per_clock,
            "ptx_isa": row.ptx_isa,
        }
        for row in ARCHITECTURES
    ]
    return {"targets": targets, "gpus": gpus, "host": host.name if host else None}


def _text(host: Target | None) -> str:
    from bnn_deploy.targets.cuda import CUDA
    from bnn_deploy.targets.cuda.architectures import ARCHITECTURES
    from bnn_deploy.targets.registry import all_targets

    targets = [
        (
            target.name,
            target.architecture + (f" + {target.gpu.arch}" if target.gpu else ""),
            target.description + (" (this machine)" if target == host else ""),
        )
        for target in all_targets()
    ]
    targets.append((CUDA, "x86_64 + --arch", "any of the GPUs below"))
    gpus = [(row.name, row.dot_product, row.reason) for row in ARCHITECTURES]
    target_table = table(("target", "architecture", "description"), targets, left=3)
    return f"{target_table}\n\n{table(('--arch', 'dot product', 'because'), gpus, left=3)}"
