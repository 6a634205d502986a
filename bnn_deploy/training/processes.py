"""The processes that train one network together: torchrun's, or the only one."""

from __future__ import annotations

import atexit
import gc
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from inspect import signature
from itertools import count as count_from
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed import PrefixStore, rendezvous  # type: ignore[attr-defined]  # documented, but in no __all__
from torch.nn.parallel import DistributedDataParallel

from bnn_deploy.errors import InputError, ToolError, message_lines
from bnn_deploy.training.synchronised_batch_norm import synchronise_batch_norm

# How long a process waits for another one: above a checkpoint of the first one or a stall of its data. The connections of
# a process that ends are closed, so that those that wait for it stop at once; this is for one that hangs.
PATIENCE = timedelta(minutes=10)
_starts = count_from(0)


@dataclass(frozen=True)
class Processes:
    """This process among all that train together. With one process, every method is trivial.

    Attributes:
        rank: number of this process, from 0.
        count: number of processes.
        device: where this process computes.
    """

    rank: int
    count: int
    device: torch.device

    @classmethod
    def single(cls, device: str = "cpu") -> Processes:
        """One process on ``device``, whatever the environment says; raises InputError as ``start`` does."""
        return cls(0, 1, _device(device, local_rank=0, count=1))

    @classmethod
    def start(cls, device: str | None = None) -> Processes:
        """Join the processes that torchrun started (RANK, WORLD_SIZE, LOCAL_RANK); without torchrun, one process.

        Args:
            device: "cpu", "cuda" or "cuda:N"; None is "cuda" where there is a GPU, else "cpu". Each of several processes
                of a machine takes the GPU of its own number. They talk by gloo on CPUs and by NCCL on GPUs.

        Raises:
            InputError: a device that does not exist or is not known, or numbers of torchrun that cannot be.
            ToolError: the processes do not find each other.
        """
        rank, count, local_rank = _torchrun(os.environ)
        name = device or ("cuda" if torch.cuda.is_available() else "cpu")
        processes = cls(rank, count, _device(name, local_rank, count))
        if count > 1:
            if processes.device.type == "cuda":
                torch.cuda.set_device(processes.device)
            backend = "nccl" if processes.device.type == "cuda" else "gloo"
            try:
                store, _, _ = next(rendezvous("env://", rank, count, timeout=PATIENCE))
                # A name of its own: torchrun's store outlives a group, and a second one would find the first one's addresses.
                store = PrefixStore(f"training {next(_starts)}", store)
                dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=PATIENCE)
                # DistributedDataParallel is part of a cycle, which keeps the group's threads. One that wants Python's lock
                # while Python ends is killed by it, and takes the process with it (SIGABRT).
                atexit.register(gc.collect)
            except (RuntimeError, ValueError) as error:
                raise ToolError(
                    f"Process {rank} of {count} could not join the others by {backend} ({message_lines(error)[0]}); start all "
                    "of them with torchrun, and if they are on several machines see that these reach each other."
                ) from error
        return processes

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that prints and writes files."""
        return self.rank == 0

    def prepare(self, model: nn.Module) -> nn.Module:
        """The model on this process's device, its batch normalisation over the images of all processes together.

        Parameters and buffers stay the same objects and keep their names.
        """
        model = model.to(self.device)
        if self.count == 1:
            return model
        if self.device.type == "cuda":
            converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]  # torch's
            return converted
        return synchronise_batch_norm(model)

    def wrap(self, model: nn.Module) -> nn.Module:
        """A module whose backward leaves the mean of all processes' gradients in the parameters of ``model``.

        Every parameter must take part in ``forward``, and only ``forward`` of the result averages, so that a model with
        another entry (``BCDNet.heads``) needs a module around it first. The initial parameters become those of the first
        process; buffers must be equal already. Its ``no_sync()``, as DistributedDataParallel's, is for gradients that are
        accumulated in between.
        """
        if self.count == 1:
            return model
        devices = [self.device.index] if self.device.type == "cuda" else None
        # Synchronised statistics are equal in all processes; copying the first one's before each pass would change
        # nothing, at the cost of another message. PyTorch 2.13 renamed the argument.
        renamed = "forward_sync_buffers" in signature(DistributedDataParallel).parameters
        without_buffers: Any = {"forward_sync_buffers" if renamed else "broadcast_buffers": False}
        return DistributedDataParallel(model, device_ids=devices, **without_buffers)

    def total(self, tensor: Tensor) -> Tensor:
        """The sum of ``tensor`` over all processes, a tensor of its own without gradient."""
        result = tensor.detach().clone()
        if self.count > 1:
            dist.all_reduce(result)
        return result

    def any(self, flag: bool) -> bool:
        """Whether ``flag`` is true in any process."""
        return bool(self.total(torch.tensor(int(flag), device=self.device)).item())

    def barrier(self) -> None:
        """Wait until every process has come here."""
        if self.count > 1:
            dist.barrier()

    def close(self) -> None:
        """Leave the group."""
        if self.count > 1 and dist.is_initialized():
            dist.destroy_process_group()

    def __enter__(self) -> Processes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Leave the group, and raise ToolError where the reason is that another process is gone."""
        # After an error NCCL might wait for the others before it leaves, and they for this process. Gloo closes its
        # connections, which ends the others' waiting.
        if error is None or self.device.type == "cpu":
            self.close()
        if isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error)):
            raise ToolError(
                f"Process {self.rank} of {self.count} lost another one that trains with it, which ended or does not answer "
                f"({message_lines(error)[0]}); see what that one said, then resume."
            ) from error


def _torchrun(environment: Mapping[str, str]) -> tuple[int, int, int]:
    """(rank, count, rank within this machine) of the environment; (0, 1, 0) without torchrun."""
    if "WORLD_SIZE" not in environment:
        return 0, 1, 0
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    texts = [environment.get(name, "") for name in names]
    if all(re.fullmatch(r"\d{1,6}", text, re.ASCII) for text in texts):
        rank, count, local_rank = (int(text) for text in texts)
        if local_rank <= rank < count:
            return rank, count, local_rank
    found = ", ".join(f"{name}={text!r}" for name, text in zip(names, texts, strict=True))
    raise InputError(
        f"The environment says {found}, but training in several processes needs whole numbers with LOCAL_RANK <= RANK < "
        "WORLD_SIZE; start it with torchrun, or unset these variables."
    )


def _device(name: str, local_rank: int, count: int) -> torch.device:
    match = re.fullmatch(r"cpu|cuda(?::(\d{1,3}))?", name, re.ASCII)
    if match is None:
        raise InputError(f"Unknown device {name!r} to train on; choose 'cpu', 'cuda' or 'cuda:N'.")
    if name == "cpu":
        return torch.device("cpu")
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if match[1] and count > 1:
        raise InputError(
            f"{count} processes cannot all train on {name}; give 'cuda', which takes the GPU of each process's number."
        )
    index = int(match[1] or local_rank)
    if index >= found:
        raise InputError(
            f"Training on {name} needs GPU {index} but PyTorch finds {found} on this machine; choose 'cpu', a smaller "
            "number or fewer processes, or install a PyTorch for CUDA."
        )
    return torch.device("cuda", index)
