"""A profile as Chrome trace events, for chrome://tracing and https://ui.perfetto.dev.

One inference on a time line, each kernel with its median time. Kernels that run block of rows by block of rows are drawn
once, with all their blocks together. The format: "Trace Event Format", complete events ("X") and metadata ("M").
"""

from __future__ import annotations

import json
from typing import Any

from bnn_deploy.profiling.model import BoardReport, ProfileReport


def profile_trace(report: ProfileReport) -> bytes:
    """JSON; each board is a process of its own, times are microseconds."""
    events: list[dict[str, Any]] = []
    for process, board in enumerate(report.boards, start=1):
        events += _board(process, board, report)
    other = {"target": report.target, "device": report.device, "model": report.model, "created": report.created}
    document = {"traceEvents": events, "displayTimeUnit": "ns", "otherData": other}
    return json.dumps(document, indent=1, allow_nan=False).encode()


def _board(process: int, board: BoardReport, report: ProfileReport) -> list[dict[str, Any]]:
    place = {"pid": process, "tid": 1}
    name = board.board + (" (emulated: no latencies)" if board.emulated else "")
    total = sum(kernel.us.median for kernel in board.kernels)
    events: list[dict[str, Any]] = [
        {"name": "process_name", "ph": "M", **place, "args": {"name": name}},
        {"name": "thread_name", "ph": "M", **place, "args": {"name": f"kernels (threads: {report.threads})"}},
        {
            "name": f"inference of batch {report.batch}",
            "cat": "network",
            "ph": "X",
            "ts": 0,
            "dur": total,
            **place,
            "args": {"latency_ms": board.latency_ms.median, "emulated": board.emulated, "repeat": report.repeat},
        },
    ]
    start = 0.0
    for kernel in board.kernels:
        arguments = {
            "layer": kernel.layer,
            "bytes": kernel.bytes,
            "bmacs": kernel.bmacs,
            "gmacs_per_s": kernel.gmacs_per_s,
            "us_quartiles": list(kernel.us.quartiles),
        }
        events.append(
            {
                "name": kernel.name,
                "cat": kernel.kind,
                "ph": "X",
                "ts": start,
                "dur": kernel.us.median,
                **place,
                "args": arguments,
            }
        )
        start += kernel.us.median
    return events
