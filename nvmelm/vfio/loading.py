"""The arc out of RESUMING: registers, admin queue, Set State. The VMM has restored configuration space and vectors.

::

    off at the source        AQA, ASQ, ACQ and CC are written, nothing else
    arrives disabled         the same with CC.EN clear: the guest's driver finds its controller not ready and resets it
    restores it by itself    Suspend, Set State; the registers are the source's then, and nothing more is done
    all others               registers with CC.EN last, CSTS.RDY, wind the admin queue, Suspend, Set State

A controller that is on, or suspended, is reset first. One that was begun with and failed is reset again: it holds
nothing of the state, and does not run.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from nvmelm.commands import AdminCommandError
from nvmelm.compat.manifest import Manifest
from nvmelm.compat.verdict import judge
from nvmelm.errors import ImageError, IncompatibleError, NotSupportedError, NvmelmError
from nvmelm.host import AdminQueue
from nvmelm.inventory import state_reader
from nvmelm.state import restore as state_restore
from nvmelm.state import running
from nvmelm.state.image.reader import Image
from nvmelm.vfio.habits import Habits
from nvmelm.vfio.passport import Passport
from nvmelm.vfio.registers import CC_ENABLE, AdminRegisters, Controller, reachable
from nvmelm.vfio.seam import Opening
from nvmelm.vfio.stream import SavedAdminQueue, StreamHeader
from nvmelm.vfio.winding import Rings, wind

_UNIDENTIFIED = (
    "{} event request(s) of the guest stand under substitute identifiers: the ring does not show theirs any more"
)
_DISABLED = "the controller arrived disabled: its guest's driver resets it"


@dataclass(frozen=True, slots=True)
class LoadOutcome:
    """What was loaded.

    Attributes:
        suspended: the controller stands still and has to be resumed.
        notes: what is not as it was at the source.
    """

    suspended: bool
    notes: tuple[str, ...] = ()


def warm_up(manifest: Manifest) -> None:
    """Load what an arrival needs while no VM waits for it: what judges, and what explains a refused command."""
    from nvmelm.commands import describe  # noqa: F401
    from nvmelm.wire import status_table  # noqa: F401

    judge(Manifest.parse(manifest.dumps()), manifest)


class LoadingError(Exception):
    """Something failed after the controller was touched; its cause says what."""


def require_room(saved: SavedAdminQueue | None, passport: Passport) -> None:
    """Refuse more event requests than a controller here keeps: it would answer the others at once.

    Raises:
        IncompatibleError: there are more.
    """
    outstanding = saved.position().outstanding if saved is not None else 0
    if outstanding > passport.event_requests:
        raise IncompatibleError(
            f"the guest has {outstanding} event requests outstanding, and a controller here keeps "
            f"{passport.event_requests}",
            fix="migrate to a controller with the source's AERL",
            reason="event-requests",
        )


def require_fit(image: Image, passport: Passport) -> None:
    """Refuse a state that a controller here does not take.

    Raises:
        IncompatibleError: with all reasons.
    """
    state_restore.check_fits(image.header, state_restore.Target.of(passport.picture.primary))


class Loader:
    """Puts what a stream carries into one controller.

    Args:
        queue: of the primary controller, held for the whole of it.
        passport: of this end.
        habits: what was found out of devices of its kind.
    """

    def __init__(self, opening: Opening, queue: AdminQueue, cntlid: int, passport: Passport, habits: Habits) -> None:
        self._habits = habits
        self._opening = opening
        self._queue = queue
        self._cntlid = cntlid
        self._target = state_restore.Target.of(passport.picture.primary)
        self._limit = passport.picture.primary.max_transfer_bytes

    def load(self, header: StreamHeader, image: Callable[[], Image | None]) -> LoadOutcome:
        """Load a stream that :func:`require_room` and :func:`require_fit` have let pass.

        Args:
            image: verifies the image and returns it.

        Raises:
            LoadingError: the controller was touched, and reset.
            NvmelmError: the stream is unfit; the controller was not touched.
        """
        verified = image()
        try:
            with reachable(self._opening.registers, dma=True):
                return self._touch(header, verified)
        finally:
            if verified is not None:
                verified.close()

    def _touch(self, header: StreamHeader, image: Image | None) -> LoadOutcome:
        try:
            self._clean()
            return self._fill(header, image)
        except Exception as error:
            with suppress(NvmelmError, OSError):
                self._reset()
            raise LoadingError() from error  # made here, so that it cannot be what it is raised from

    def _fill(self, header: StreamHeader, image: Image | None) -> LoadOutcome:
        registers = header.registers.values()
        if image is None:
            self._write(registers)
            return LoadOutcome(suspended=False)
        if self._habits.may_restore(image.header, self._target):
            restores = self._restores_by_itself(registers, image)
            self._habits.learn(image.header, self._target, restores=restores)
            if restores:
                return LoadOutcome(suspended=True)
        if header.admin_queue is None:
            self._write(replace(registers, cc=registers.cc & ~CC_ENABLE))
            return LoadOutcome(suspended=False, notes=(_DISABLED,))
        self._wound(registers, header.admin_queue)
        running.suspend(self._queue, self._cntlid)
        self._set(image, retries=state_restore.RETRIES)
        unidentified = header.admin_queue.unidentified
        return LoadOutcome(suspended=True, notes=(_UNIDENTIFIED.format(unidentified),) if unidentified else ())

    def _restores_by_itself(self, registers: AdminRegisters, image: Image) -> bool:
        """Return whether the state alone brings the controller back, admin queue and all; if not, it is clean again."""
        try:
            running.suspend(self._queue, self._cntlid)
            self._set(image, retries=0)
            controller = Controller(self._opening.registers)
            if controller.read() == registers and controller.ready:
                return True
        except ImageError:
            raise
        except (AdminCommandError, NotSupportedError):
            pass  # it takes no state before it is enabled
        self._reset()
        return False

    def _wound(self, registers: AdminRegisters, saved: SavedAdminQueue) -> None:
        controller = Controller(self._opening.registers)
        controller.enable(registers)
        if Rings.read(self._opening.memory, registers).sha256 != saved.rings_sha256:
            raise ImageError(
                "the guest's memory here does not hold the admin queue that its controller left with",
                cause="the VM's memory has not arrived, or is another VM's",
                fix="load the state after the memory, as VMMs do",
                reason="admin-queue-differs",
            )
        wind(controller, self._opening.memory, registers, saved.position())

    def _set(self, image: Image, *, retries: int) -> None:
        state_restore.restore(
            self._queue,
            self._cntlid,
            image,
            target=self._target,
            device_bytes=self._limit,
            suspended=True,
            retries=retries,
        )

    def _clean(self) -> None:
        """Make sure that the controller is off and not suspended."""
        if Controller(self._opening.registers).enabled or state_reader.is_suspended(
            self._queue, self._cntlid, self._target.formats
        ):
            self._reset()

    def _reset(self) -> None:
        """Reset the function, and end a suspension that outlives it."""
        self._opening.registers.reset()
        running.resume(self._queue, self._cntlid)

    def _write(self, registers: AdminRegisters) -> None:
        """Write the registers of a controller that stays off."""
        Controller(self._opening.registers).write(registers)
