"""``bnn-deploy targets``: what can be compiled for."""

from __future__ import annotations

import click

from bnn_deploy.cli.options import format_option, print_result, table


@click.command("targets", short_help="List the compilation targets.")
@format_option
def targets_command(output_format: str) -> None:
    """List the names that compile --target takes; the one that 'host' stands for here is marked."""
    from bnn_deploy.errors import TargetError
    from bnn_deploy.targets.registry import all_targets, host_target

    try:
        host = host_target()
    except TargetError:
        host = None
    rows = [
        {
            "name": target.name,
            "architecture": target.architecture,
            "mcpu": target.mcpu,
            "kernel_sets": [{"name": kernels.name, "mcpu": kernels.mcpu} for kernels in target.kernel_sets],
            "description": target.description,
            "host": target == host,
        }
        for target in all_targets()
    ]

    def text() -> str:
        cells = [
            (
                str(row["name"]),
                str(row["architecture"]),
                str(row["description"]) + (" (this machine)" if row["host"] else ""),
            )
            for row in rows
        ]
        return table(("target", "architecture", "description"), cells, left=3)

    print_result({"targets": rows, "host": host.name if host else None}, output_format, text)
