"""Training in several processes (ranks) that torchrun starts, one for each device; all functions are trivial for one.

Every rank computes its share of each batch. Losses sum what they count over the ranks (`losses/ranks.py`), so each rank
gets the loss of the whole batch and the gradient of its own samples; the gradients' sum is that of one process with the
same batch. Rank 0 prepares, validates, writes and decides when to stop; the others follow.
"""

from __future__ import annotations

import datetime
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, distributed, nn

from medseg.errors import ConfigError, MachineError, MedsegError, MissingPartError
from medseg.inference.device import resolve_device

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

__all__ = ["ONE", "Part", "Ranks", "ranks_of_torchrun"]

_log = logging.getLogger("medseg")
T = TypeVar("T")
# Ranks wait for rank 0 while it prepares and validates. One that has died is noticed by its closed connection.
LONGEST_WAIT = datetime.timedelta(days=1)
# Numbers in a message between ranks: large enough for bandwidth, small beside a network's activations.
BUCKET = 2**23


@dataclass(frozen=True, slots=True)
class Part:
    """What a rank computes at a time.

    Args:
        numbers: which samples of the batch.
        share: of the batch's samples, those that all ranks compute in this part, 0 to 1.
    """

    numbers: range
    share: float


@dataclass(frozen=True, slots=True)
class Ranks:
    """The processes of a training, and which of them this is.

    Args:
        rank: from 0.
        size: number of processes.
        store: where they leave notes; None for one process.

    Example:
        >>> [list(part.numbers) for part in Ranks(rank=1, size=2).parts(batch_size=8, accumulate=2)]
        [[2, 3], [6, 7]]
    """

    rank: int = 0
    size: int = 1
    store: Store | None = None

    def parts(self, batch_size: int, accumulate: int) -> list[Part]:
        """What this rank computes of every batch; each part of a batch is divided among all ranks.

        Raises:
            ConfigError: a part has fewer samples than there are ranks.
        """
        if batch_size // accumulate < self.size:
            ranks = f"{self.size} processes" if self.size > 1 else "1 process"
            fewer = ", or start fewer processes" if self.size > 1 else ""
            raise ConfigError(
                f"a batch of {batch_size} cannot be divided among {ranks} in {accumulate} parts "
                f"(training.accumulate), as each computes at least one sample of each part; give a plan of batch_size "
                f"{self.size * accumulate} or more (training.batch_size for a new plan), or fewer parts{fewer}"
            )
        parts = []
        for n in range(accumulate):
            whole = _piece(range(batch_size), n, accumulate)
            parts.append(Part(_piece(whole, self.rank, self.size), len(whole) / batch_size))
        return parts

    def all_sum(self, value: Tensor) -> Tensor:
        """The sum of a tensor over the ranks; its gradient is that of the rank's own values."""
        if self.size == 1:
            return value
        with self._answered():
            total: Tensor = _AllSum.apply(value)  # type: ignore[no-untyped-call]
        return total

    def sum_gradients(self, net: nn.Module) -> None:
        """Add up the gradients of all ranks, in buckets of one type."""
        if self.size == 1:
            return
        waiting: dict[torch.dtype, list[Tensor]] = {}
        for parameter in net.parameters():
            if parameter.grad is not None:
                bucket = waiting.setdefault(parameter.grad.dtype, [])
                bucket.append(parameter.grad)
                if sum(grad.numel() for grad in bucket) >= BUCKET:
                    self._sum_in_place(waiting.pop(parameter.grad.dtype))
        for bucket in waiting.values():
            self._sum_in_place(bucket)

    def _sum_in_place(self, grads: list[Tensor]) -> None:
        flat = torch.cat([grad.flatten() for grad in grads])
        with self._answered():
            distributed.all_reduce(flat)
        for grad, total in zip(grads, torch.split(flat, [grad.numel() for grad in grads]), strict=True):
            grad.copy_(total.view_as(grad))

    def same_weights(self, net: nn.Module) -> None:
        """Give every rank the weights and buffers of rank 0."""
        if self.size > 1:
            with self._answered():
                for value in net.state_dict().values():
                    distributed.broadcast(value, 0)

    def agreed(self, elapsed_seconds: float, signal: int) -> tuple[float, int]:
        """The clock of rank 0, and the largest number of a signal that any rank has received, 0 for none."""
        if self.size == 1:
            return elapsed_seconds, signal
        told = torch.tensor([elapsed_seconds if self.rank == 0 else -1.0, float(signal)], dtype=torch.float64)
        with self._answered():
            distributed.all_reduce(told, distributed.ReduceOp.MAX)
        return float(told[0]), int(told[1])

    def from_first(self, call: Callable[[], T]) -> T:
        """What `call` gives on rank 0, where alone it runs; it must be picklable.

        Raises:
            MedsegError: on rank 0, what `call` raises.
            SystemExit: on the other ranks then, with the same exit code, as rank 0 says why.
        """
        if self.size == 1:
            return call()
        told: list[Any] = [None, None]
        if self.rank == 0:
            try:
                told[0] = call()
            except MedsegError as error:
                told[1] = error.exit_code
                self._tell(told)
                raise
        self._tell(told)
        value, exit_code = told
        if exit_code is not None and self.rank > 0:
            raise SystemExit(exit_code)
        return value  # type: ignore[no-any-return]

    def _tell(self, values: list[Any]) -> None:
        with self._answered():
            distributed.broadcast_object_list(values, 0, device=torch.device("cpu"))

    @contextmanager
    def _answered(self) -> Iterator[None]:
        """Messages between ranks: one that stays without an answer ends this rank, too."""
        try:
            yield
        except RuntimeError as error:
            raise _LostError(
                f"one of the {self.size} processes of this training has ended, and the others end with it (noticed by "
                f"rank {self.rank}); continue from the last checkpoint with --resume, on any number of processes"
            ) from error

    def speaks(self) -> bool:
        """Whether this rank is the first to say why the training ends; it is said once."""
        try:
            return self.store is None or self.store.add("medseg/said", 1) == 1
        except RuntimeError:
            return True  # The store has died with the process that kept it.


ONE = Ranks()
"""A training in one process."""


class _LostError(MachineError):
    """Another rank has ended."""


class _AllSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.detach().clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


def _piece(numbers: range, n: int, count: int) -> range:
    """Part n of `count`, which differ by one in length at most."""
    return numbers[n * len(numbers) // count : (n + 1) * len(numbers) // count]


@contextmanager
def ranks_of_torchrun(device: str) -> Iterator[tuple[Ranks, torch.device]]:
    """The ranks that torchrun has started, connected until the block ends, and the device of this one.

    Without torchrun, and in a training of one process, there is one rank. A process group that the program has made
    itself is used, and left as it is.

    Args:
        device: as in the configuration; 'auto' and 'cuda' give each rank of a machine a GPU of its own.

    Raises:
        ConfigError: a device that is not there, or that cannot be shared.
        MachineError: the processes do not reach each other.
        SystemExit: another process has ended, which one of the others logs.
        MissingPartError: a torch without `torch.distributed`.
    """
    initialized = distributed.is_available() and distributed.is_initialized()
    size = distributed.get_world_size() if initialized else _number("WORLD_SIZE", 1)
    if size == 1:
        yield ONE, resolve_device(device)
        return
    mine = _device_of_rank(device, size)
    if initialized:
        yield Ranks(distributed.get_rank(), size), mine
        return
    ranks = Ranks(_number("RANK", 0), size, _connected(mine))
    if ranks.rank > 0:
        _log.setLevel(logging.WARNING)
    try:
        yield ranks, mine
    except _LostError as error:
        # Said here, as the signal by which torchrun now ends this process may come before the command's last line.
        if ranks.speaks():
            _log.error("%s", error)
        raise SystemExit(MachineError.exit_code) from error
    except MedsegError:
        ranks.speaks()
        raise
    finally:
        distributed.destroy_process_group()


def _connected(device: torch.device) -> Store:
    if not distributed.is_available():
        raise MissingPartError(
            "this build of torch cannot train in several processes; install another, or train in one"
        )
    from torch._C._distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    try:
        found: tuple[Store, int, int] = next(iter(rendezvous("env://", timeout=LONGEST_WAIT)))
        # After a restart by torchrun, the same store still holds the addresses of the former processes.
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        store, rank, size = PrefixStore(f"medseg/attempt{attempt}", found[0]), found[1], found[2]
        # Messages on the CPU are small and pass through gloo on every device.
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        distributed.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=LONGEST_WAIT)
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise MachineError(f"the processes of this training do not reach each other ({reason})") from None
    return store


def _device_of_rank(name: str, size: int) -> torch.device:
    if name in ("auto", "cuda") and torch.cuda.is_available():
        local, there = _number("LOCAL_RANK", 0), torch.cuda.device_count()
        if local >= there:
            raise ConfigError(
                f"process {local + 1} of this machine has no GPU, as there are {there}; start at most as many "
                f"processes (torchrun --nproc-per-node {there}), or train with device=cpu"
            )
        torch.cuda.set_device(local)
        return resolve_device(f"cuda:{local}")
    device = resolve_device(name)
    if device.type != "cpu":
        raise ConfigError(f"device is {name}, but a training of {size} processes takes auto, cpu or cuda")
    return device


def _number(variable: str, default: int) -> int:
    text = os.environ.get(variable, "")
    if text and not text.isdecimal():
        raise ConfigError(f"the environment variable {variable} is {text!r}; torchrun sets it to a number")
    return int(text) if text else default
