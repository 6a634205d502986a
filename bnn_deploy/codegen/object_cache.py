"""Machine code that was generated before, in a folder, under a key that is a digest of everything it was made from.

An entry is a file named by its key: 32 bytes of SHA-256 of what follows, then an ELF object. An entry that does not match its
digest is as good as absent. The cache never makes a compilation fail: a folder that cannot be written to is one that stays empty.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

VARIABLE = "BNN_DEPLOY_CACHE"
LARGEST_CACHE = 1 << 30
_DIGEST_BYTES = 32
_SUFFIX = ".object"


def cache_folder() -> Path:
    """``$BNN_DEPLOY_CACHE``, else ``bnn-deploy`` in ``$XDG_CACHE_HOME`` or ``~/.cache``; it need not exist."""
    if os.environ.get(VARIABLE):
        return Path(os.environ[VARIABLE])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bnn-deploy"


def content_key(parts: Iterable[str | bytes]) -> str:
    """SHA-256 over the parts and their lengths, so that no two lists of parts share a key."""
    digest = hashlib.sha256()
    for part in parts:
        content = part.encode() if isinstance(part, str) else part
        digest.update(len(content).to_bytes(8, "little") + content)
    return digest.hexdigest()


class ObjectCache:
    """Object files by key.

    Args:
        folder: where entries are; made when the first one is stored. None: nothing is kept.
        largest: bytes that all entries may take; beyond that, the ones that were not used for longest go.
    """

    def __init__(self, folder: Path | None, largest: int = LARGEST_CACHE) -> None:
        self.folder = folder
        self.largest = largest

    def get(self, key: str, path: Path, make: Callable[[], None]) -> bool:
        """Have the object of ``key`` at ``path``: a copy of the entry, or else ``make()`` writes it there and it is kept.

        Returns:
            whether it was there already.
        """
        content = self._read(key)
        if content is not None:
            path.write_bytes(content)
            return True
        make()
        self._store(key, path.read_bytes())
        return False

    def _read(self, key: str) -> bytes | None:
        if self.folder is None:
            return None
        entry = self.folder / (key + _SUFFIX)
        try:
            stored = entry.read_bytes()
        except OSError:
            return None
        digest, content = stored[:_DIGEST_BYTES], stored[_DIGEST_BYTES:]
        if hashlib.sha256(content).digest() != digest:
            return None
        # Used now, so among the last to go; in somebody else's folder reading is enough.
        with contextlib.suppress(OSError):
            os.utime(entry)
        return content

    def _store(self, key: str, content: bytes) -> None:
        if self.folder is None:
            return
        temporary = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle, temporary = tempfile.mkstemp(_SUFFIX, dir=self.folder)
            with os.fdopen(handle, "wb") as stream:
                stream.write(hashlib.sha256(content).digest() + content)
            os.replace(temporary, self.folder / (key + _SUFFIX))
            _shrink(self.folder, self.largest)
        except OSError:
            # A full disk or a read-only home: the object exists, it is only not kept.
            if temporary is not None:
                Path(temporary).unlink(missing_ok=True)


NO_CACHE = ObjectCache(None)


def _shrink(folder: Path, largest: int) -> None:
    """Remove the entries that were not used for longest, until the rest takes no more than ``largest`` bytes."""
    total = 0
    entries = [(status.st_mtime_ns, status.st_size, path) for path, status in _statuses(folder)]
    for _, size, path in sorted(entries, reverse=True):
        total += size
        if total > largest:
            path.unlink(missing_ok=True)


def _statuses(folder: Path) -> Iterable[tuple[Path, os.stat_result]]:
    for path in folder.glob(f"*{_SUFFIX}"):
        try:
            yield path, path.stat()
        except FileNotFoundError:
            continue  # another process removed it
