"""What the processes of a group agree on before they train: that all can, and that all train the same.

Rank 0 alone looks at the run's folder, writes and prints.  What goes wrong anywhere ends the run
everywhere, and is told once.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from typing import Any, TypeVar

from minicnn.app import provenance
from minicnn.app.command_line import Diverged, Interrupted, Told
from minicnn.app.experiment import Experiment
from minicnn.app.settings import flag_of
from minicnn.backends import BackendUnavailable
from minicnn.distributed import Group, PeerError
from minicnn.schema import short

Value = TypeVar("Value")

_TOLD = (ValueError, OSError, BackendUnavailable, MemoryError)
"""Errors that are told in one line."""


def of_first(group: Group, make: Callable[[], Value]) -> Value:
    """What ``make`` gives on rank 0, on all ranks.  Its error ends all."""
    made = None
    with everywhere(group):
        if group.is_first:
            made = make()
    return group.tell(made)  # type: ignore[return-value]


@contextmanager
def everywhere(group: Group) -> Iterator[None]:
    """What is done within must succeed on all ranks: an error of one of them ends all, and rank 0 tells it.

    Nothing within may wait for the other ranks.
    """
    error: BaseException | None = None
    try:
        yield
    except _TOLD as raised:
        if isinstance(raised, PeerError):
            raise
        error = raised
    messages = group.gather(None if error is None else str(error) or type(error).__name__)
    wrong = [f"rank {rank}: {message}" for rank, message in enumerate(messages) if message is not None]
    if wrong and not group.is_first:
        raise Told
    if wrong:
        raise error or ValueError(wrong[0])


_SECONDS_TO_TELL = 1.0
"""torchrun ends all ranks as soon as one has ended with an error: rank 0 must have told why by then."""


@contextmanager
def one_voice(group: Group) -> Iterator[None]:
    """Let rank 0 tell what all know; another rank tells only its own errors, with its number."""
    try:
        yield
    except (Told, Diverged, Interrupted):
        if group.is_first:
            raise
        time.sleep(_SECONDS_TO_TELL)
        raise Told from None
    except _TOLD as error:
        if group.is_first or isinstance(error, PeerError):
            raise
        raise ValueError(f"rank {group.rank}: {error}") from error


def check_alike(group: Group, experiment: Experiment) -> None:
    """All ranks are about to train the same.

    Raises: ValueError on rank 0, naming the first difference and the rank; Told on the others
    """
    if group.size == 1:
        return
    all_facts = group.gather(_facts(experiment))
    with everywhere(group):
        for rank, facts in enumerate(all_facts):
            for name, expected in all_facts[0].items():
                if (got := facts.get(name)) != expected:
                    wanted = f"expected {short(expected)} as on rank 0"
                    raise ValueError(f"rank {rank}: {name}: {wanted}, got {short(got)}")


def _facts(experiment: Experiment) -> dict[str, Any]:
    """What decides the bits of a run, by names that a user understands."""
    config, dataset = experiment.config, experiment.dataset
    settings = asdict(config)
    found: dict[str, Any] = {"backend": experiment.model.backend.label}
    found |= {f"version of {name}": v for name, v in provenance.versions(experiment.model.backend).items()}
    found |= {flag_of(f.name): settings[f.name] for f in fields(config) if not f.metadata["free"]}
    found["fingerprint of the data"] = dataset.fingerprint[:12]
    checksum = 0
    for array in experiment.model.state_dict().values():
        checksum = zlib.crc32(array.tobytes(), checksum)
    found["checksum of the first weights"] = f"{checksum:08x}"
    return found
