"""Declare a structure once, line for line like the specification's table, and read or build its bytes.

::

    class SecondaryControllerEntry(Layout, size=32):
        scid = U16(0, "Secondary Controller Identifier")
        pcid = U16(2, "Primary Controller Identifier")

Offsets are written, not computed, so that a reviewer can read them down the table. Overlapping or overflowing fields
fail when the module is imported. Everything is little-endian (NVM Express Base Specification 2.1, section 1.4).

A :class:`Word` does the same for the bit ranges of one command dword.
"""

from __future__ import annotations

from typing import Any, ClassVar, Generic, Self, TypeVar, overload

from nvmelm.errors import MalformedError
from nvmelm.harmless import harmless

Buffer = bytes | bytearray | memoryview
T = TypeVar("T", int, str, bytes)


class Field(Generic[T]):
    """One field of a :class:`Layout`: a byte offset, a byte size and the specification's words for it.

    Attributes:
        end: offset of the first byte behind the field.
    """

    def __init__(self, offset: int, size: int, doc: str) -> None:
        self.offset = offset
        self.size = size
        self.end = offset + size
        self.doc = doc
        self.name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Field[T]: ...
    @overload
    def __get__(self, instance: Layout, owner: type) -> T: ...
    def __get__(self, instance: Layout | None, owner: type) -> Field[T] | T:
        if instance is None:
            return self
        return self.decode(instance.raw[self.offset : self.end])

    def decode(self, raw: bytes) -> T:
        """Return the value of exactly :attr:`size` bytes.

        Raises:
            MalformedError: bytes of this kind of field cannot be read.
        """
        raise MalformedError(f"field {self.name} has no decoder")

    def encode(self, value: Any) -> bytes:
        """Return exactly :attr:`size` bytes.

        Raises:
            ValueError: the value does not fit the field.
        """
        raise ValueError(f"field {self.name} has no encoder")


class _Unsigned(Field[int]):
    width: ClassVar[int]

    def __init__(self, offset: int, doc: str) -> None:
        super().__init__(offset, self.width, doc)

    def decode(self, raw: bytes) -> int:
        return int.from_bytes(raw, "little")

    def encode(self, value: Any) -> bytes:
        number = int(value)
        if not 0 <= number < 1 << (8 * self.size):
            raise ValueError(f"{self.name}={number} does not fit {self.size} bytes")
        return number.to_bytes(self.size, "little")


class U8(_Unsigned):
    """An unsigned integer of 1 byte."""

    width = 1


class U16(_Unsigned):
    """An unsigned integer of 2 bytes."""

    width = 2


class U32(_Unsigned):
    """An unsigned integer of 4 bytes."""

    width = 4


class U64(_Unsigned):
    """An unsigned integer of 8 bytes."""

    width = 8


class U128(_Unsigned):
    """An unsigned integer of 16 bytes."""

    width = 16


class Text(Field[str]):
    r"""A space- or NUL-padded string.

    Bytes that are not printable ASCII read as ``\xNN``: nothing is lost, and no device can send terminal control.
    """

    def __init__(self, offset: int, size: int, doc: str) -> None:
        super().__init__(offset, size, doc)

    def decode(self, raw: bytes) -> str:
        return harmless(raw.rstrip(b" \0").decode("ascii", "backslashreplace"))

    def encode(self, value: Any) -> bytes:
        encoded = str(value).encode("ascii")
        if len(encoded) > self.size:
            raise ValueError(f"{self.name}={value!r} is longer than {self.size} bytes")
        return encoded.ljust(self.size, b" ")


class Raw(Field[bytes]):
    """Bytes kept as they are."""

    def __init__(self, offset: int, size: int, doc: str) -> None:
        super().__init__(offset, size, doc)

    def decode(self, raw: bytes) -> bytes:
        return bytes(raw)

    def encode(self, value: Any) -> bytes:
        if len(value) != self.size:
            raise ValueError(f"{self.name} is {self.size} bytes, not {len(value)}")
        return bytes(value)


class Layout:
    """A structure of a fixed size whose fields are declared as class attributes."""

    size: ClassVar[int] = 0
    fields: ClassVar[dict[str, Field[Any]]] = {}

    def __init_subclass__(cls, *, size: int, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.size = size
        cls.fields = {name: value for name, value in vars(cls).items() if isinstance(value, Field)}
        end, last = 0, ""
        for name, field in sorted(cls.fields.items(), key=lambda item: item[1].offset):
            if field.offset < end:
                raise TypeError(f"{cls.__name__}.{name} overlaps {last}")
            if field.end > size:
                raise TypeError(f"{cls.__name__}.{name} ends at {field.end}, behind the structure's {size} bytes")
            end, last = field.end, name

    def __init__(self, raw: Buffer) -> None:
        """Wrap exactly :attr:`size` bytes.

        Raises:
            MalformedError: too few or too many bytes.
        """
        if len(raw) != self.size:
            raise MalformedError(f"{type(self).__name__} is {self.size} bytes, not {len(raw)}")
        self.raw = bytes(raw)

    @classmethod
    def at(cls, buffer: Buffer, offset: int = 0) -> Self:
        """Wrap the :attr:`size` bytes at an offset of a larger buffer.

        Raises:
            MalformedError: the buffer ends inside the structure.
        """
        return cls(buffer[offset : offset + cls.size])

    @classmethod
    def pack(cls, **values: Any) -> bytes:
        """Build the structure's bytes; fields left out, and reserved bytes, are zero.

        Raises:
            ValueError: an unknown field, or a value that does not fit.
        """
        raw = bytearray(cls.size)
        for name, value in values.items():
            if name not in cls.fields:
                raise ValueError(f"{cls.__name__} has no field {name}")
            field = cls.fields[name]
            raw[field.offset : field.end] = field.encode(value)
        return bytes(raw)

    def values(self) -> dict[str, Any]:
        """Return every field's value by name, in the order of declaration."""
        return {name: field.decode(self.raw[field.offset : field.end]) for name, field in self.fields.items()}

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and isinstance(other, Layout) and self.raw == other.raw

    def __hash__(self) -> int:
        return hash((type(self), self.raw))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.values().items())})"


class Word:
    """The bit ranges of one dword, written ``high:low`` as the specification writes them.

    >>> Word(sel="7:0", mos="31:16").pack(sel=2, mos=3) == 0x0003_0002
    True
    """

    def __init__(self, **ranges: str) -> None:
        self._ranges: dict[str, tuple[int, int]] = {}
        taken = 0
        for name, bits in ranges.items():
            high, _, low = bits.partition(":")
            shift = int(low or high)
            mask = (1 << (int(high) - shift + 1)) - 1
            if mask <= 0 or int(high) > 31 or taken & (mask << shift):
                raise TypeError(f"bits {bits} of {name} are impossible or already taken")
            taken |= mask << shift
            self._ranges[name] = (shift, mask)

    def pack(self, **values: int) -> int:
        """Return the dword; ``ValueError`` when a value does not fit its bits."""
        word = 0
        for name, value in values.items():
            shift, mask = self._ranges[name]
            if not 0 <= value <= mask:
                raise ValueError(f"{name}={value} does not fit in {mask.bit_length()} bits")
            word |= value << shift
        return word

    def unpack(self, word: int) -> dict[str, int]:
        """Return every named range of a dword."""
        return {name: word >> shift & mask for name, (shift, mask) in self._ranges.items()}
