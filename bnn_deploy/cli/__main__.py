"""``python -m bnn_deploy.cli`` is ``bnn-deploy``."""

from __future__ import annotations

from bnn_deploy.cli import main

main()
