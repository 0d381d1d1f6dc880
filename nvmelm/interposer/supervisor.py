"""One VMM under the filter: its calls are received, and answered or let run, until its last process has ended.

A thread for each VMM waits in the kernel and takes the calls in turn; what may last goes to the function's own thread
(:mod:`nvmelm.interposer.device`). No call can end the supervisor: what is not understood runs as if nobody were there,
and what fails on our side is an errno for the VMM and a sentence for the journal.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

from nvmelm.errors import NvmelmError
from nvmelm.interposer import features, memory
from nvmelm.interposer.caller import Process, Processes
from nvmelm.interposer.descriptors import Descriptors, Place
from nvmelm.interposer.device import Access, Device, Say
from nvmelm.interposer.filter import (
    MEMORY_CALLS,
    VFIO_DEVICE_BIND_IOMMUFD,
    VFIO_DEVICE_FEATURE,
    VFIO_DEVICE_RESET,
    VFIO_GROUP_GET_DEVICE_FD,
)
from nvmelm.interposer.job import Job, in_words
from nvmelm.interposer.kernel import PCI_ADDRESS, Identity, Kernel
from nvmelm.interposer.notification import Listener, Notification
from nvmelm.interposer.record import Event, RecordFile, nothing
from nvmelm.vfio.seam import Functions, Opening, Refusal

#: drivers/vfio/group.c takes a page of name and options.
_LONGEST_NAME = 4096

_NO_PTRACE = (
    "a VMM's call cannot be looked at, so its VM cannot migrate: {why}; nvmelm must be root, or have CAP_SYS_PTRACE, "
    "or be the VMM's parent where Yama lets it"
)
_CONFINED = (
    "a security module keeps {address} from being handed to its VMM ({why}), so it cannot migrate; nvmelm host check "
    "tells what the VMM's confinement needs"
)


class Supervisor:
    """What answers one VMM.

    Args:
        listener: hands its calls over; closed when the VMM has ended.
        vm: what the VM is called, asked when a function is opened.
        record: takes what a restart has to know.
    """

    def __init__(
        self,
        listener: Listener,
        functions: Functions,
        kernel: Kernel,
        say: Say,
        vm: Callable[[int], str],
        record: RecordFile | None = None,
    ) -> None:
        self._listener = listener
        self._functions = functions
        self._kernel = kernel
        self._say = say
        self._vm = vm
        self.processes = Processes()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC)
        self._leaving = False
        self._said: set[str] = set()
        self._record = record
        self.descriptors = Descriptors(record.add if record else nothing)
        self.mappings = memory.Mappings(record.add if record else nothing)

    def run(self) -> None:
        """Answer until the VMM has ended, or until :meth:`stop`."""
        try:
            while self._listener.wait(self._wake):
                call = self._listener.receive()
                if call is not None:
                    self.take(call)
                if self._record is not None and self._record.is_roomy:
                    self._record.rewrite(self.events())
        finally:
            for device in self.descriptors.devices():
                if self._leaving:
                    device.leave()
                else:
                    self._close(device)
            self._listener.close()
            os.close(self._wake)

    def stop(self) -> None:
        """Let :meth:`run` return, from another thread, once what is under way has been answered.

        The VMM still has its devices, and whoever has the listener next may take them up.
        """
        self._leaving = True
        os.eventfd_write(self._wake, 1)

    def events(self) -> Iterator[Event]:
        """Return the fewest events that lead to what is mapped and open now."""
        for mapping in self.mappings.ranges():
            yield memory.as_event(mapping)
        yield from self.descriptors.events()

    def take(self, call: Notification) -> None:
        """Answer a call, or let it run, whatever it is."""
        try:
            if self._dispatch(call):
                return
        except Refusal as refusal:
            if refusal.reason:
                self._say_once(refusal.reason)
            self._listener.answered(call, refusal.errno)
            return
        except OSError as error:  # of the caller's, as a rule: the kernel will say the same
            if error.errno in (errno.EPERM, errno.EACCES):
                self._say_once(_NO_PTRACE.format(why=error.strerror))
        except NvmelmError as error:
            self._say(in_words(error))
        except Exception as error:  # a bug of ours is no reason to take the VM down
            self._say(f"this is a bug in nvmelm, and a VM's call ran without it: {error!r}")
        with suppress(OSError):
            self._listener.let_run(call)

    def _say_once(self, sentence: str) -> None:
        if sentence not in self._said:
            self._said.add(sentence)
            self._say(sentence)

    def _dispatch(self, call: Notification) -> bool:
        """Return whether the call was answered, or will be; else it is to run."""
        process = self.processes.of(call.tid)
        if call.request not in (VFIO_DEVICE_FEATURE, VFIO_DEVICE_RESET):
            for device in self.descriptors.closed():
                self._close(device)
        if call.request in (VFIO_DEVICE_FEATURE, VFIO_DEVICE_RESET):
            return self._device_call(call, process)
        if call.request == VFIO_GROUP_GET_DEVICE_FD:
            return self._open(call, process)
        if call.request == VFIO_DEVICE_BIND_IOMMUFD:
            self._bind(call, process)
        elif call.request in MEMORY_CALLS:
            memory.note(self.mappings, call.request, process, call.descriptor, call.argument)
        return False

    # -- opening

    def _open(self, call: Notification, process: Process) -> bool:
        """Open a group's device for the VMM, so that we know which descriptor it is."""
        try:
            name = process.read_text(call.argument, _LONGEST_NAME)
        except ValueError:
            return False
        address = name.split(b" ")[0].decode("ascii", "replace")
        if not PCI_ADDRESS.fullmatch(address):
            return False
        with process.copy(call.descriptor) as group:
            if not self._listener.waits(call):
                return True
            if not self._kernel.is_group(group):
                return False
            try:
                fd = self._kernel.open_device(group, name)
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):  # ours, not the VMM's
                    return False
                raise Refusal(error.errno or errno.EIO) from error
        try:
            return self._hand_over(call, process, address, fd)
        finally:
            os.close(fd)

    def _hand_over(self, call: Notification, process: Process, address: str, fd: int) -> bool:
        """Give the VMM its device; ours knows of it before, so that no call can come too early."""
        device = self._function(process, address, fd)
        number = None
        try:
            number = self._listener.give_descriptor(call, fd)
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
                raise Refusal(error.errno) from error
            self._say(_CONFINED.format(address=address, why=error.strerror), address=address)
            return False
        finally:
            if device is not None and number is None:
                self._close(device)
            elif number is not None:
                self.descriptors.add(Place(process.pid, number), Identity.of(fd), device)
        return True

    def reopen(self, process: Process, number: int, address: str, fd: int) -> None:
        """Take up a device that the VMM has had open since before we began."""
        known = (device for device in self.descriptors.devices() if device.address == address)
        try:
            device = next(known, None) or self._function(process, address, fd, reopened=True)
        except NvmelmError as error:
            self._say(in_words(error), address=address)
            return
        if device is not None:
            self.descriptors.add(Place(process.pid, number), Identity.of(fd), device)

    def _function(self, process: Process, address: str, fd: int, *, reopened: bool = False) -> Device | None:
        """Ask for the function that the VMM opens; what it had open of that address before is closed."""
        for former in self.descriptors.devices():
            if former.address == address:
                self._close(former)
        access = Access(self._kernel)
        opening = Opening(address, process.pid, self._vm(process.pid), access, self.mappings, access, reopened)
        with access.through(fd):
            function = self._functions.open(opening)
        if function is None:
            return None
        return Device(address, function, access, self._say, reopened=reopened)

    def _bind(self, call: Notification, process: Process) -> None:
        """Forget what a device's own node was before: it is opened anew, and asked about next."""
        with process.copy(call.descriptor) as fd:
            if self._kernel.address(fd) is None or not self._listener.waits(call):
                return
            former = self.descriptors.find(process, call.descriptor, fd)
            if former is not None:
                self._close(former)
            self.descriptors.bind(Place(process.pid, call.descriptor))

    def _close(self, device: Device) -> None:
        self.descriptors.forget(device)
        try:
            device.close()
        except Refusal as refusal:
            device.say(refusal)

    # -- an open device

    def _device_call(self, call: Notification, process: Process) -> bool:
        with ExitStack() as held:
            fd = process.take(call.descriptor)
            held.callback(os.close, fd)
            device = self._device(process, call.descriptor, fd)
            if device is None:
                return False
            request = None
            if call.request == VFIO_DEVICE_FEATURE:
                request = features.read_request(process, call.argument)
                if request is None:
                    return False
            if self._listener.waits(call):
                held.pop_all()  # it is the answer's now
                job = Job(self._listener, self._kernel, call, process, device, request, fd)
                (device.at_once if request is not None and request.is_quick else device.in_turn)(job)
            return True

    def _device(self, process: Process, number: int, fd: int) -> Device | None:
        device = self.descriptors.find(process, number, fd)
        if device is not None:
            return device
        bound = self.descriptors.is_bound(Place(process.pid, number))
        address = self._kernel.address(fd) if bound else None
        device = None if address is None else self._function(process, address, fd)
        if device is not None:
            self.descriptors.add(Place(process.pid, number), Identity.of(fd), device)
        return device
