"""An emulated virtual machine, and the guest in it."""
