"""Namespace Attachment: which controllers see a namespace."""

from __future__ import annotations

import pytest

from nvmelm.commands import namespace


@pytest.mark.parametrize(("build", "select"), [(namespace.attach, 0), (namespace.detach, 1)])
def test_attachment_sends_a_controller_list(build: object, select: int) -> None:
    command = build(3, [0x102, 1])
    assert (command.opcode, command.nsid, command.words) == (0x15, 3, (select, 0, 0, 0, 0, 0))
    assert command.data_out == bytes.fromhex("0200 0100 0201").ljust(4096, b"\0")
    assert command.data_in_length == 0


@pytest.mark.parametrize("cntlids", [[], [1, 1], [0x10000], [-1]])
def test_lists_that_cannot_be_meant_are_refused(cntlids: list[int]) -> None:
    with pytest.raises(ValueError, match=r"controllers|cntlid"):
        namespace.attach(1, cntlids)
