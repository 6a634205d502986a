"""How every benchmark runs: an error of the user's input is one sentence and exit status 2, as on the command line."""

from __future__ import annotations

import sys
from collections.abc import Callable

from bnn_deploy.errors import BnnDeployError


def run(main: Callable[[], object]) -> None:
    """Call ``main``, a click command."""
    try:
        main()
    except BnnDeployError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
