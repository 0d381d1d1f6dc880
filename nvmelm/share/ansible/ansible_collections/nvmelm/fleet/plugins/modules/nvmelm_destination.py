"""Steps 1 to 4 on the host that takes."""

from __future__ import annotations

DOCUMENTATION = r"""
module: nvmelm_destination
short_description: Prepare a host that takes NVMe controllers
description:
  - Enables virtual functions, shares out their resources, brings their controllers online, marks them I(resumable) and
    binds them to vfio-pci, as C(nvmelm destination prepare) does; or brings everything back with I(state=released).
  - Check mode is nvmelm's own dry run. The answer whether anything changed is nvmelm's.
extends_documentation_fragment:
  - nvmelm.fleet.nvmelm
  - nvmelm.fleet.prepare
author: the nvmelm project
"""

EXAMPLES = r"""
- name: Prepare four controllers
  nvmelm.fleet.nvmelm_destination:
    pf: "0000:01:00.0"
    vfs: 4
"""

RETURN = r"""
nvmelm:
  description: The document nvmelm printed (schema nvmelm.change).
  type: dict
  returned: always
controllers:
  description: The controlled functions with a virtual function, as they are now.
  type: list
  elements: dict
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.nvmelm.fleet.plugins.module_utils import nvmelm


def main() -> None:
    """Run the module."""
    nvmelm.prepare(AnsibleModule, "destination")


if __name__ == "__main__":
    main()
