"""What a host has: its controlling functions and what is below them, and whether it is ready."""

from __future__ import annotations

DOCUMENTATION = r"""
module: nvmelm_facts
short_description: Gather what nvmelm knows of a host
description:
  - Returns the controlling functions of a host with their controlled functions, and the findings of C(nvmelm host
    check), as facts below C(nvmelm). Changes nothing.
options:
  pf:
    description: Controlling functions to look into; all of them when it is left out.
    type: list
    elements: str
  check:
    description: Whether to ask for the findings of C(nvmelm host check), too.
    type: bool
    default: true
extends_documentation_fragment: nvmelm.fleet.nvmelm
author: the nvmelm project
"""

EXAMPLES = r"""
- name: What is there
  nvmelm.fleet.nvmelm_facts:
"""

RETURN = r"""
ansible_facts:
  description: C(nvmelm.primaries) by PCI address (schema nvmelm.primary); C(nvmelm.check) (schema nvmelm.host_check)
    when it was asked for.
  type: dict
  returned: always
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.nvmelm.fleet.plugins.module_utils import nvmelm

_NOT_READY = 3


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **nvmelm.COMMON_ARGUMENTS,
            "pf": {"type": "list", "elements": "str"},
            "check": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    names = module.params["pf"]
    if names is None:
        listed = nvmelm.run(module, nvmelm.words(module, "list"), changes=False)
        names = [primary["address"] for primary in listed["primaries"]]
    pictures = [nvmelm.run(module, nvmelm.words(module, "show", names=[name]), changes=False) for name in names]
    facts: dict[str, Any] = {"primaries": {picture["primary"]["address"]: picture for picture in pictures}}
    if module.params["check"]:
        facts["check"] = nvmelm.run(module, nvmelm.words(module, "host", "check"), changes=False, good=(0, _NOT_READY))
    module.exit_json(changed=False, ansible_facts={"nvmelm": facts})


if __name__ == "__main__":
    main()
