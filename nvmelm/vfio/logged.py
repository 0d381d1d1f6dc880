"""One controlled function that a VMM has opened: how it is reached, what is recorded of it, and its DMA logging.

What logging is answered with where the controller cannot log is in :mod:`nvmelm.vfio.dirty`; what each arc does is in
:mod:`nvmelm.vfio.function`.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import InitVar, dataclass, field

from nvmelm.host import AdminQueue, Host
from nvmelm.inventory.find import PrimaryRef
from nvmelm.inventory.opened import OpenPrimary, open_primary
from nvmelm.inventory.picture import Tracking
from nvmelm.inventory.vm_moves import Event, Held, Moves
from nvmelm.vfio.dirty import MemoryLog
from nvmelm.vfio.habits import Habits
from nvmelm.vfio.journal import MoveJournal
from nvmelm.vfio.options import Options
from nvmelm.vfio.seam import LogRange, Opening, Refusal


@dataclass(slots=True)
class LoggedFunction:
    """A controlled function whose writes to its guest's memory can be logged.

    Args:
        ref: the controlling function.
        record: what the host's records say of it; carried on when the interposer began anew.
    """

    host: Host
    ref: PrimaryRef
    opening: Opening
    record: InitVar[Held]
    options: Options
    habits: Habits
    _moves: Moves = field(init=False)
    _journal: MoveJournal = field(init=False)
    _suspended: bool = False
    _able: Tracking | None = None
    _log: MemoryLog | None = None

    def __post_init__(self, record: Held) -> None:
        self._moves = Moves(self.host)
        self._journal = MoveJournal(self._moves, record)

    @property
    def held(self) -> Held:
        """Return what the host's records say of the function."""
        return self._journal.held

    def can_log(self) -> bool:
        """Return whether logging is answered: by the controller, or with "all dirty" where the operator lets it be."""
        if self._able is None:
            with self._journal.answering("PROBE"), self._session() as opened:
                self._able = opened.picture(users=False).primary.tracking
        return self._able.memory or self.options.all_dirty

    def logging_start(self, ranges: Sequence[LogRange], page_size: int) -> int:
        """Begin to log what the controller writes; ENOTTY where it cannot and the operator wants it said."""
        if not self.can_log() or self._able is None:
            raise Refusal(errno.ENOTTY)
        with self._journal.answering("DMA_LOGGING_START"):
            if self._log is not None:
                raise Refusal(errno.EINVAL, f"{self._name} logs already")
            self._log = MemoryLog(self._with_queue, self.held.cntlid, self._able, ranges, page_size)
            if self._log.note:
                self._journal.note(Event.ALL_DIRTY, self.held.stream, self._log.note)
            return self._log.page_size

    def logging_report(self, iova: int, length: int, page_size: int) -> bytes:
        """Return a bitmap of the pages that were written."""
        with self._journal.answering("DMA_LOGGING_REPORT"):
            if self._log is None:
                raise Refusal(errno.EINVAL, f"{self._name} does not log")
            return self._log.report(iova, length, page_size, suspended=self._suspended)

    def logging_stop(self) -> None:
        """Stop logging; a second time does nothing."""
        log, self._log = self._log, None
        if log is not None:
            with self._journal.answering("DMA_LOGGING_STOP"):
                log.stop()

    @property
    def _name(self) -> str:
        return f"{self.held.address} (controller {self.held.cntlid:#06x})"

    @contextmanager
    def _session(self) -> Iterator[OpenPrimary]:
        with open_primary(self.host, self.ref, change=True) as pf:
            yield pf

    def _with_queue(self, work: Callable[[AdminQueue], object]) -> None:
        with self._session() as opened:
            work(opened.queue)
