"""What a tracker says is not trusted: answers that are wrong, endless or cut off end in one sentence."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from bnn_deploy.devices.rpc_address import parse_tracker_address
from bnn_deploy.devices.tracker_client import MAGIC, TrackerClient
from bnn_deploy.errors import DeviceError


def message(value: object) -> bytes:
    data = json.dumps(value).encode()
    return struct.pack("<i", len(data)) + data


@contextmanager
def tracker(answer: bytes) -> Iterator[str]:
    """The address of a program that greets as a tracker does, and answers the first request with ``answer``."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4)
                connection.sendall(struct.pack("<i", MAGIC))
                connection.recv(1 << 16)
                connection.sendall(answer)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(1 << 16):
                    pass

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"tracker://127.0.0.1:{listener.getsockname()[1]}/key"
        thread.join(10)
        assert not thread.is_alive()


def boards(*entries: object) -> bytes:
    return message([0, {"server_info": list(entries), "queue_info": {}}])


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "went away"),
        (b"\x10\0\0\0short", "went away"),
        (struct.pack("<i", -1), "TVM's protocol does not know"),
        (struct.pack("<i", 1 << 30), "TVM's protocol does not know"),
        (b"\x04\0\0\0nope", "TVM's protocol does not know"),
        (b"\x20\x4e\0\0" + b"[" * 20000, "TVM's protocol does not know"),
        (message([1, {}]), "TVM's protocol does not know"),
        (message({"server_info": []}), "TVM's protocol does not know"),
        (message([0, {"server_info": 3}]), "TVM's protocol does not know"),
        (boards({"key": "server:key"}), "TVM's protocol does not know"),
        (boards(), "its keys are: none at all"),
        (boards({"key": "server:\x1b[2Jother", "addr": ["127.0.0.1", 1]}), "its keys are: none at all"),
        (boards({"key": "server:key", "addr": [None, 1]}), "by no address"),
        (boards({"key": "server:key", "addr": ["10.0.0.1", 1]}), "names the board 10.0.0.1:1"),
        (boards(*[{"key": "server:key", "addr": ["127.0.0.1", 1]}] * 101), "at most 100"),
    ],
)
def test_nonsense_is_refused(answer: bytes, words: str) -> None:
    """A tracker's answer ends in a traceback, fills the memory, writes control characters, or starts a thousand processes."""
    with tracker(answer) as address, TrackerClient(parse_tracker_address(address)) as client:
        with pytest.raises(DeviceError, match=words) as caught:
            client.boards_of_key()
        client.close()
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "grant", [3, ["127.0.0.1", 1], ["127.0.0.1", 1, 2], ["10.0.0.1", 1, "key:0.1"], ["127.0.0.1\n", 1, "key:0.1"]]
)
def test_wrong_grants_are_refused(grant: object) -> None:
    """A tracker sends this machine anywhere instead of to a board."""
    with tracker(message([0, grant])) as address, TrackerClient(parse_tracker_address(address)) as client:
        with pytest.raises(DeviceError):
            client.request(5)
        client.close()


def test_a_request_gives_up_in_time() -> None:
    """A key whose boards are taken keeps a command waiting for longer than it was told to."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(struct.pack("<i", MAGIC))
                while connection.recv(1 << 16):
                    pass

        thread = threading.Thread(target=greet, daemon=True)
        thread.start()
        address = parse_tracker_address(f"tracker://127.0.0.1:{listener.getsockname()[1]}/key")
        with TrackerClient(address) as client:
            assert client.request(0.2) is None
        thread.join(10)
        assert not thread.is_alive()
