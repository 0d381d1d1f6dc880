"""nvmelm: the NVMe controlling-function live-migration manager.

The controlled function (a secondary controller, an SR-IOV VF) takes no part in its own migration; everything is asked
of the controlling function (the primary controller, the PF) through its admin queue, on stock Linux drivers. See
``docs/index.md`` for the layers, from :mod:`nvmelm.wire` (bytes) up to :mod:`nvmelm.cli` (verbs).
"""

__version__ = "0.1.0"
