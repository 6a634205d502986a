"""A profile as trace events."""

from __future__ import annotations

import json

import jsonschema
import pytest

from bnn_deploy.profiling.model import ProfileReport
from bnn_deploy.report.profile_trace import profile_trace

# "Trace Event Format", https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU: what a complete and
# a metadata event must have.
TRACE_SCHEMA = {
    "type": "object",
    "required": ["traceEvents"],
    "properties": {
        "traceEvents": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name", "ph", "pid", "tid", "args"],
                "properties": {
                    "name": {"type": "string"},
                    "ph": {"enum": ["X", "M"]},
                    "pid": {"type": "integer"},
                    "tid": {"type": "integer"},
                },
                "if": {"properties": {"ph": {"const": "X"}}},
                "then": {
                    "required": ["ts", "dur", "cat"],
                    "properties": {"ts": {"type": "number", "minimum": 0}, "dur": {"type": "number", "minimum": 0}},
                },
            },
        },
        "displayTimeUnit": {"enum": ["ms", "ns"]},
    },
}


def test_trace(nasty: ProfileReport) -> None:
    """Breaks if a trace viewer refuses the file, or kernels overlap, leave gaps or lose their time."""
    document = json.loads(profile_trace(nasty))
    jsonschema.validate(document, TRACE_SCHEMA)
    events = [event for event in document["traceEvents"] if event["ph"] == "X" and event["cat"] != "network"]
    (board,) = nasty.boards
    assert [event["dur"] for event in events] == [kernel.us.median for kernel in board.kernels]
    assert [event["args"]["layer"] for event in events] == [kernel.layer for kernel in board.kernels]
    end = 0.0
    for event in events:
        assert event["ts"] == pytest.approx(end)
        end += event["dur"]
    (whole,) = (event for event in document["traceEvents"] if event.get("cat") == "network")
    assert whole["dur"] == pytest.approx(end)
