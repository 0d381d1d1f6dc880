"""A virtual machine that libvirt runs."""
