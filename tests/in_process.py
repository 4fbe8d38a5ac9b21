"""Decoding without processes of its own: most tests of what is decoded need not wait for them to start."""

from __future__ import annotations

import pickle
import signal
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Self


class InProcess:
    """Stands in for ProcessPoolExecutor: does the work at once, on pickled copies as other processes do."""

    def __init__(
        self, _workers: int, _context: Any, begin: Callable[..., None], arguments: tuple[Any, ...]
    ):
        before = signal.getsignal(signal.SIGINT)
        begin(*pickle.loads(pickle.dumps(arguments)))
        signal.signal(signal.SIGINT, before)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(self, work: Callable[..., Any], *arguments: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(pickle.loads(pickle.dumps(work(*pickle.loads(pickle.dumps(arguments))))))
        return done

    def shutdown(self, **_: object) -> None:
        pass
