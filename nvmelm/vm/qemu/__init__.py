"""A virtual machine behind QEMU's own monitor."""
