"""What libvirt says, in its own and in QEMU's words, and the reason each becomes."""

from __future__ import annotations

import pytest

from nvmelm.vm.libvirt import refusals as libvirt_refusals

#: Sentences of libvirt 9.0 and what they become.
SENTENCES = [
    ("this function is not supported by the connection driver: virDomainAttachDeviceFlags", 3, "libvirt-unsupported"),
    ("internal error: No more available PCI slots", 1, "no-hotplug-bus"),
    ("Requested operation is not valid: PCI device 0000:01:00.1 is in use by driver QEMU, domain vm2", 55, "in-use"),
    ("Timed out during operation: cannot acquire state change lock (held by monitor=x)", 68, "libvirt-busy"),
    ("internal error: unable to execute QEMU command 'device_add': vfio 0000:01:00.1: group 8 is not viable", 1,
     "group-not-viable"),
    ("authentication unavailable: no polkit agent available to authenticate action", 61, "libvirt-permission"),
    ("access denied", 88, "libvirt-permission"),
    ("something new", 1, "libvirt-error"),
    ("internal error: client socket is closed", 1, "libvirt-lost"),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "number", "reason"), SENTENCES, ids=[row[2] for row in SENTENCES])
def test_what_libvirt_says_becomes_a_reason(sentence: str, number: int, reason: str) -> None:
    error = libvirt_refusals.refusal("attach the VF", number, sentence)
    assert error.reason == reason
    assert sentence in error.message
    assert error.fix
