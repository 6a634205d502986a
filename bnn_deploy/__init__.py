"""bnn-deploy: binary neural networks from PyTorch to real devices, with parity checked bit by bit.

Importing this package is cheap: torch, tvm and onnxruntime are imported only by the functions that need them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

# In a checkout passes/, targets/ and models/ lie beside this package; in a wheel they are installed inside it.
if (Path(__file__).parent.parent / "passes" / "__init__.py").is_file():
    __path__.append(str(Path(__file__).parent.parent))

if TYPE_CHECKING:
    from bnn_deploy.runtime.loader import Model

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def load(bundle: str | Path, threads: int = 1) -> Model:
    """Load a compiled bundle for this machine.

    Args:
        bundle: folder written by ``bnn-deploy compile``.
        threads: worker threads that one inference may use.

    Returns:
        A callable: ``load(bundle)(array) -> array``, float32 in and out, shapes as in the bundle's manifest.

    Raises:
        BundleError: the bundle is missing, altered, of a newer format, or for another processor.
    """
    from bnn_deploy.runtime.loader import Model

    return Model(bundle, threads=threads)
