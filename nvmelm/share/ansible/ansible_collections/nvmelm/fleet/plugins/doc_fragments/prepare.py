"""What the documentation of nvmelm_source and nvmelm_destination says alike."""


class ModuleDocFragment:
    """Options of a preparation."""

    DOCUMENTATION = r"""
options:
  pf:
    description: Controlling function, by node, PCI address or serial number.
    type: str
    required: true
  vfs:
    description: Number of virtual functions. Required unless I(state=released).
    type: int
  vq:
    description: VQ resources for each; an even share when it is left out.
    type: int
  vi:
    description: VI resources for each; an even share when it is left out.
    type: int
  unmarked:
    description: Leave the mark out, for controllers that cannot migrate.
    type: bool
    default: false
  expires:
    description: How long the marks hold, such as C(8h) or C(2d).
    type: str
  state:
    description: Whether the host is prepared, or as nvmelm found it.
    type: str
    choices: [prepared, released]
    default: prepared
"""
