"""What cannot be looked at at present: said once when it begins, and once when it is over."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from nvmelm.errors import NvmelmError
from nvmelm.watch.lines import Body, Trouble


class Troubles:
    """The looks of one kind that fail at present: of functions by address, or of the host."""

    def __init__(self) -> None:
        self._known: dict[tuple[str | None, str], str] = {}

    def __len__(self) -> int:
        return len(self._known)

    def of(self, what: str) -> set[str]:
        """Return the addresses of the functions whose looks of a kind fail."""
        return {address for address, kind in self._known if address is not None and kind == what}

    def failed(self, what: str, error: NvmelmError, address: str | None = None) -> Iterator[Body]:
        """Say a failure, but not the same one again and again."""
        if self._known.get((address, what)) != error.message:
            self._known[address, what] = error.message
            yield trouble(address, error)

    def works(self, what: str, address: str | None = None) -> Iterator[Body]:
        """Say that a look does not fail any more."""
        if self._known.pop((address, what), None) is not None:
            yield Trouble(primary=address, over=True)

    def without(self, present: Collection[str]) -> Iterator[Body]:
        """Say that the failures of functions that are not there any more are over."""
        gone = ((address, what) for address, what in self._known if address is not None and address not in present)
        for address, what in sorted(gone):
            yield from self.works(what, address)


def trouble(primary: str | None, error: NvmelmError) -> Trouble:
    """Return what failed, of a function or of the host."""
    return Trouble(
        primary=primary, over=False, message=error.message, cause=error.cause, fix=error.fix, reason=error.word
    )
