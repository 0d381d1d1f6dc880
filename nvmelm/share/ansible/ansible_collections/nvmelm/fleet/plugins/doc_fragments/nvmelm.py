"""What the documentation of every module of this collection says."""


class ModuleDocFragment:
    """Options that all modules share."""

    DOCUMENTATION = r"""
options:
  executable:
    description: Program to run on the managed host.
    type: str
    default: nvmelm
  host:
    description:
      - The world nvmelm works in; C(local) when it is left out.
      - C(emulated:DIR) works on an emulated host.
    type: str
  agree:
    description: Agree beforehand to what nvmelm would ask, such as taking a VF from what uses it.
    type: bool
    default: false
requirements:
  - nvmelm on the managed host
"""
