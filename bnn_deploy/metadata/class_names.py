"""The names of a model's classes in the order of its logits, stored with the model as JSON.

`export` writes them to the ONNX metadata entry ``bnn_deploy.class_names``, and `compile` copies it to the bundle's manifest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from bnn_deploy.errors import ModelFileError
from bnn_deploy.metadata import entries

# Names are those of folders, which have at most 255 bytes; the sum is enough for a million short ones.
LONGEST_NAME = 255
_MOST_CHARACTERS = 16_000_000


def class_names_json(names: Sequence[str]) -> str:
    """The metadata entry, in ASCII."""
    return json.dumps(list(names))


def class_names_of(metadata: Mapping[str, Any], source: str) -> tuple[str, ...] | None:
    """What the metadata of a model's file, or ``manifest["model"]`` of a bundle, say; None if they say nothing.

    Args:
        metadata: of a file that nobody vouches for.
        source: its name, for messages.

    Raises:
        ModelFileError: an entry that is not a list of different names.
    """
    text = metadata.get(entries.CLASS_NAMES)
    if text is None:
        return None
    try:
        if len(text) > _MOST_CHARACTERS:
            raise ValueError
        names = json.loads(text)
        if not isinstance(names, list) or not names:
            raise ValueError
        if not all(isinstance(name, str) and 1 <= len(name) <= LONGEST_NAME for name in names):
            raise ValueError
        if len(set(names)) != len(names):
            raise ValueError
    except (ValueError, TypeError, RecursionError) as error:
        raise ModelFileError(
            f"{source}: its metadata entry {entries.CLASS_NAMES} is not a JSON list of different names of 1 to {LONGEST_NAME} "
            "characters; correct it."
        ) from error
    return tuple(names)
