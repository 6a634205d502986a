"""What went wrong with a board behind TVM's RPC, in one sentence that says what to do.

The phrases looked for are those of TVM 0.27's src/runtime/rpc/{rpc_socket_impl,rpc_endpoint}.cc and of the dynamic loader.
"""

from __future__ import annotations

from bnn_deploy.bundle.bundle import Bundle

START_SERVER = "`python -m tvm.exec.rpc_server --host 127.0.0.1`"


def explain(board: str, operation: str, text: str, bundle: Bundle | None, seconds: float | None = None) -> str:
    """One sentence about a failed request.

    Args:
        board: its address.
        operation: of ``rpc_worker``: connect, load, run, …
        text: what TVM, the board or the dead client said.
        bundle: what runs there, if anything.
        seconds: how long nothing was heard, if that is the trouble.
    """
    if operation == "start":
        return f"TVM's RPC client does not start here ({_first(text) or 'no answer'}); reinstall apache-tvm."
    if operation == "connect":
        return f"{board}: {_connecting(text, seconds)}"
    if seconds is not None:
        return (
            f"{board}: did not answer within {seconds:g} s ({_doing(operation)}); look whether the board is alive, or give it "
            "more with --timeout."
        )
    if "load dynamic shared library" in text:
        return f"{board}: {_loading(text, bundle)}"
    if operation == "run_tapped" and bundle is not None and "bnn_run_tapped" in text:
        return f"The bundle {bundle.path} is too old for taps; compile the model again."
    if operation == "load" and "Cannot find function" in text:
        return f"{board}: its TVM is another version than the one here; run `pip install apache-tvm` of the same version there."
    return f"{board}: went away {_doing(operation)} ({_first(text)}); look at the server's output on the board."


def _connecting(text: str, seconds: float | None) -> str:
    if seconds is not None:
        return (
            f"no answer from a TVM RPC server within {seconds:g} s; it serves one client at a time and may have another one, "
            "or the board is off, or something else listens there."
        )
    if "Connect to" in text and "failed" in text:
        return f"nothing listens there; start {START_SERVER} on the board, and the ssh tunnel that leads to it."
    if "matches key" in text:
        return "the server there was started with a key; reach it through its tracker (tracker://HOST:PORT/KEY)."
    if "protocol version mismatch" in text:
        return (
            f"the server there speaks another version of TVM's RPC protocol ({_versions(text)}); install the apache-tvm on "
            "the board that is installed here."
        )
    if "is not TVM RPC server" in text:
        return f"what listens there is no TVM RPC server; give the address of one, started with {START_SERVER}."
    if "cannot obtain address" in text:
        return "there is no such host; check the name."
    return f"the connection was lost at once ({_first(text)}); look whether a TVM RPC server runs there, or only the tunnel to it."


def _loading(text: str, bundle: Bundle | None) -> str:
    reason = _first(text.rpartition("Failed to load dynamic shared library")[2])
    if bundle is None:
        return f"cannot load the library ({reason})."
    library = (
        f"the library of {bundle.path}, which is for {bundle.architecture} (target {bundle.target}) and glibc 2.17"
    )
    if "cannot open shared object file" in reason or "wrong ELF class" in reason:
        return f"is no {bundle.architecture} machine, so it cannot load {library}; compile the model for the board's processor."
    return f"cannot load {library} ({reason}); see docs/fleets.md for what a board needs."


def _versions(text: str) -> str:
    start = text.find("server protocol")
    return _first(text[start:]) if start >= 0 else "which one it does not say"


def _doing(operation: str) -> str:
    return {
        "load": "while the bundle was copied there",
        "create": "while the network was prepared",
        "run": "in the middle of a batch",
        "run_tapped": "in the middle of a batch",
        "profile": "in the middle of a profile",
        "text": "while it was asked what it is",
        "close": "while it was given back",
    }[operation]


def _first(text: str) -> str:
    """The line that says most: TVM puts "Error caught from RPC call" before it. It may come from the board, so it is cleaned."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and "Error caught from RPC call" not in line]
    return "".join(letter if letter.isprintable() else "?" for letter in lines[0][:300]).rstrip(".") if lines else ""
