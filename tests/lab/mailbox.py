"""A guest that a test drives: firmware of some hundred bytes does the accesses that a mailbox in its memory asks for.

Debian's binaries of QEMU have no qtest accelerator, and a real guest takes minutes to boot in the lab. So the VM's
firmware is this: it goes into 32-bit mode and polls five words of memory; the memory is a file that the test maps as
well. The test *is* the guest's driver: it puts rings and data into the file and asks for what only a processor can do.

::

    0x10000  asked   a number that grows; the firmware acts when it differs from `done`
    0x10004  what    1 read memory, 2 write memory, 3 read a port, 4 write a port
    0x10008  where   physical address, or port
    0x1000c  value   what to write, or what was read
    0x10010  done    `asked`, once the access was made

After a migration the words are as they were, and the same firmware polls them in the destination's file.
"""

from __future__ import annotations

import mmap
import struct
import time
from pathlib import Path

KiB = 1024
#: The image ends at 4 GiB; the processor begins 16 bytes before its end.
IMAGE_BYTES = 64 * KiB
CODE, RESET = 0xF000, 0xFFF0
MAILBOX = 0x10000
READ, WRITE, READ_PORT, WRITE_PORT = 1, 2, 3, 4
DEADLINE_S = 180.0
CONFIG_ADDRESS, CONFIG_DATA = 0xCF8, 0xCFC

#: 16-bit code at 0xF000, 32-bit code from 0xF020, descriptors from 0xF080.
_CODE = {
    0x00: "fa"  # cli
    "2e660f011680f0"  # lgdt cs:[0xf080]
    "0f20c0 0c01 0f22c0"  # cr0 |= 1, protected mode
    "66ea20f0ffff0800",  # far jump into the flat code segment
    0x20: "b810000000 8ed8"  # ds = the flat data segment
    "be00000100"  # esi = the mailbox
    "f390 8b06 3b4610 74f7"  # idle: pause until asked != done
    "8b5608 8b4e04"  # edx = where, ecx = what
    "49 7507 8b1a 895e0c eb17"  # 1: value = memory[where]
    "49 7507 8b5e0c 891a eb0d"  # 2: memory[where] = value
    "49 7506 ed 89460c eb04"  # 3: value = in(where)
    "8b460c ef"  # 4: out(where, value)
    "8b06 894610 ebc9",  # done = asked; back to idle
    0x80: "1700 88f0ffff 0000"  # 24 bytes of descriptors at 0xfffff088
    "0000000000000000"  # none
    "ffff0000009acf00"  # 8: code, 0 to 4 GiB
    "ffff00000092cf00",  # 16: data, 0 to 4 GiB
}


def firmware() -> bytes:
    """Return the image for QEMU's ``-bios``."""
    image = bytearray(b"\xf4" * IMAGE_BYTES)  # hlt
    for offset, words in _CODE.items():
        code = bytes.fromhex(words)
        image[CODE + offset : CODE + offset + len(code)] = code
    near = (CODE - (RESET + 3)) & 0xFFFF
    image[RESET : RESET + 3] = b"\xe9" + struct.pack("<H", near)
    return bytes(image)


class Processor:
    """What the guest's processor can be asked for, over the file that is the VM's memory.

    A processor that is not running answers nothing; :meth:`ask` then fails after its deadline.
    """

    def __init__(self, memory: Path) -> None:
        with memory.open("r+b") as handle:
            self.memory = mmap.mmap(handle.fileno(), 0)

    def ask(self, what: int, where: int, value: int = 0, deadline_s: float = DEADLINE_S) -> int:
        """Have one access made, and return what was read."""
        (done,) = struct.unpack_from("<I", self.memory, MAILBOX + 16)
        asked = (done + 1) & 0xFFFFFFFF
        struct.pack_into("<III", self.memory, MAILBOX + 4, what, where, value)
        struct.pack_into("<I", self.memory, MAILBOX, asked)
        assert self._answered(asked, deadline_s), f"waited {deadline_s:g} s for the guest's access to {where:#x}"
        return int(struct.unpack_from("<I", self.memory, MAILBOX + 12)[0])

    def runs(self, for_s: float = 2.0) -> bool:
        """Return whether the processor makes an access within so many seconds."""
        (done,) = struct.unpack_from("<I", self.memory, MAILBOX + 16)
        asked = (done + 1) & 0xFFFFFFFF
        struct.pack_into("<III", self.memory, MAILBOX + 4, READ, MAILBOX, 0)
        struct.pack_into("<I", self.memory, MAILBOX, asked)
        return self._answered(asked, for_s)

    def read32(self, address: int) -> int:
        return self.ask(READ, address)

    def write32(self, address: int, value: int) -> None:
        self.ask(WRITE, address, value)

    def config_read(self, bus: int, device: int, function: int, offset: int) -> int:
        """Read four bytes of a function's configuration space, by ports 0xcf8 and 0xcfc."""
        self.ask(WRITE_PORT, CONFIG_ADDRESS, _selector(bus, device, function, offset))
        return self.ask(READ_PORT, CONFIG_DATA)

    def config_write(self, bus: int, device: int, function: int, offset: int, value: int) -> None:
        self.ask(WRITE_PORT, CONFIG_ADDRESS, _selector(bus, device, function, offset))
        self.ask(WRITE_PORT, CONFIG_DATA, value)

    def _answered(self, asked: int, for_s: float) -> bool:
        """Return whether the access is made in time; an access takes a fraction of a millisecond."""
        deadline = time.monotonic() + for_s
        while self._done() != asked:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.0002)
        return True

    def _done(self) -> int:
        return int(struct.unpack_from("<I", self.memory, MAILBOX + 16)[0])


def _selector(bus: int, device: int, function: int, offset: int) -> int:
    return 1 << 31 | bus << 16 | device << 11 | function << 8 | offset & 0xFC
