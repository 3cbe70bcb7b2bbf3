"""Notices that a rank of a group died, stopped or hangs, and tells every rank which one.

Each rank writes a sign of life into the group's store and reads that of the next one. Whoever finds a rank lost writes
its name there, the first one counts, and all ranks leave what they wait for. Transfers are waited for in a thread of
its own, since the transport itself cannot be interrupted.
"""

from __future__ import annotations

import atexit
import threading
import time
from collections.abc import Sequence
from queue import SimpleQueue
from typing import Any

import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore

from ...encoders.errors import InvalidInputError, RankFailure

__all__ = ["Watch", "lost", "watch_of"]

_Store = Any  # PyTorch does not export the type

_INTERVAL = 0.25  # seconds between two signs of life
_LOST = "lost"  # the key under which the lost rank stands
_FAREWELL = 10.0  # seconds that the end of a process waits for the transport to give up
_LEFT = "left"  # the last sign of a rank that ended in good order

_watches: dict[dist.ProcessGroup, Watch] = {}


class _Waiting:
    """Transfers that the waiting thread waits for."""

    def __init__(self, works: Sequence[dist.Work]) -> None:
        self.works, self.done = works, threading.Event()
        self.error: RuntimeError | None = None


class Watch:
    """Watches over a group while it is entered.

    Args:
        group: None for all processes.
        patience: seconds without a sign of life after which a process counts as lost.

    Within `patience` and two seconds more every rank learns of a process that died or was stopped, however far it is in
    the ring. A process that lives but does not come to an exchange is found when the group's own timeout has passed.
    """

    def __init__(self, group: dist.ProcessGroup | None, *, patience: float) -> None:
        world = group or dist.group.WORLD
        assert world is not None, "a process group was initialised"
        self._group, self.patience = world, patience
        self._rank, self._size = dist.get_rank(group), dist.get_world_size(group)
        self._queue: SimpleQueue[_Waiting | None] = SimpleQueue()
        self._ended = threading.Event()
        self._exchanges = 0
        self._verdict: tuple[int, str] | None = None
        self._asked = False
        self._ticked = time.monotonic()

    def __enter__(self) -> Watch:
        """Begins to watch; all ranks enter their watches together."""
        if self._group in _watches:
            raise InvalidInputError("This group is watched already.", hint="do not enter `parallel` twice")
        store: _Store = self._group.get_group_store()
        number = store.add(f"watches/{self._rank}", 1)  # a name for this watch that no earlier one had
        store = PrefixStore(f"watch {number}", store.clone())
        _watches[self._group] = self
        store.set(f"{self._rank}", "0 0")
        self._thread = threading.Thread(target=self._watch, args=(store,), name="watch over ranks", daemon=True)
        self._thread.start()
        self._waiter = threading.Thread(target=self._wait_for_all, name="wait for ranks", daemon=True)
        self._waiter.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        """Ends; a rank that ends with an error of its own is lost for the others."""
        del _watches[self._group]
        if isinstance(error, SystemExit) and not error.code:
            error = None
        if error is not None and self._verdict is None:
            self._verdict = self._rank, f"it ended with {kind.__name__ if kind else 'an error'}: {error}"
        self._ended.set()
        self._queue.put(None)
        self._thread.join(2.0)  # so that it says its last word before this process ends
        # A thread that comes back from the transport, or lets go of what it sent, while Python ends would crash it.
        if error is None:
            self._waiter.join()
        else:
            atexit.register(self._waiter.join, _FAREWELL)

    def count(self) -> None:
        """Another exchange begins; all ranks count alike."""
        self._exchanges += 1

    def wait(self, works: Sequence[dist.Work]) -> None:
        """Returns when they are done.

        Raises:
            RankFailure: a rank was lost meanwhile.
            RuntimeError: the transport says so.
        """
        if dist.get_backend(self._group) != "gloo":
            for work in works:  # such work is waited for by a stream of the device, not by this thread
                work.wait()
            self._check()
            return
        waiting = _Waiting(works)
        self._queue.put(waiting)
        while not waiting.done.wait(_INTERVAL / 2):
            self._check()
        if waiting.error is not None:
            raise waiting.error

    def blame(self) -> None:
        """Finds out why the transport failed.

        Raises:
            RankFailure: names the rank, if it could be found.
        """
        for seconds in (self.patience + 3 * _INTERVAL, 4 * _INTERVAL):
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                self._check()
                time.sleep(_INTERVAL / 2)
            self._asked = True  # all are alive: one of them does not come

    def _check(self) -> None:
        verdict = self._verdict
        if verdict is None and time.monotonic() - self._ticked > self.patience + 4 * _INTERVAL:
            verdict = 0, "the store, which the first rank holds, does not answer"
        if verdict is not None:
            time.sleep(2 * _INTERVAL)  # the others shall read it before this rank, which may hold the store, ends
            raise lost((verdict[0],), verdict[1])

    def _wait_for_all(self) -> None:
        while (waiting := self._queue.get()) is not None:
            try:
                for work in waiting.works:
                    work.wait()
            except RuntimeError as error:
                waiting.error = error
            waiting.done.set()

    def _watch(self, store: _Store) -> None:
        follower, seen, changed = (self._rank + 1) % self._size, b"", time.monotonic()
        number = 0
        try:
            while not self._ended.wait(_INTERVAL):
                number += 1
                store.set(f"{self._rank}", f"{number} {self._exchanges}")
                sign = _read(store, f"{follower}")
                if sign != seen or sign in (b"", _LEFT.encode()):  # not yet there, or gone in good order
                    seen, changed = sign, time.monotonic()
                silent = time.monotonic() - changed
                self._ticked = time.monotonic()
                if silent > self.patience:
                    self._tell(store, follower, f"no sign of life for {silent:.1f} seconds")
                elif self._asked:
                    self._ask(store)
                if found := _read(store, _LOST):
                    self._convict(found)
                    return
            if self._verdict is None:
                store.set(f"{self._rank}", _LEFT)
            else:
                self._tell(store, *self._verdict)
        except RuntimeError as error:  # the store is gone, and with it whoever held it
            self._verdict = self._verdict or (0, f"its store does not answer: {str(error).splitlines()[0]}")

    def _ask(self, store: _Store) -> None:
        """Looks for the one rank that has not come to an exchange which the others have begun."""
        signs = [_read(store, f"{rank}").split() for rank in range(self._size)]
        counts = [int(sign[1]) if len(sign) == 2 else -1 for sign in signs]
        counts[self._rank] = self._exchanges
        last = min(counts)
        if counts.count(last) == 1 and last < self._exchanges:
            self._tell(store, counts.index(last), f"it has not come to exchange {last + 1}, for which the others wait")

    def _tell(self, store: _Store, rank: int, reason: str) -> None:
        store.compare_set(_LOST, "", f"{rank} {reason}")

    def _convict(self, found: bytes) -> None:
        rank, _, reason = found.decode(errors="replace").partition(" ")
        self._verdict = int(rank), reason
        if dist.get_backend(self._group) != "gloo":
            self._group.abort()  # frees the device of what would wait for ever


def watch_of(group: dist.ProcessGroup | None) -> Watch | None:
    """The watch over this group, if one is entered."""
    return _watches.get(group or dist.group.WORLD) if _watches else None  # type: ignore[arg-type]


def lost(ranks: tuple[int, ...], reason: str) -> RankFailure:
    """The error for a group of which one of these ranks is lost."""
    return RankFailure("A rank of the group is lost.", ranks=ranks, hint=f"start the group again; {reason}")


def _read(store: _Store, key: str) -> bytes:
    return store.get(key) if store.check([key]) else b""
