"""Whether the state of one controlled function can be set in another, before anything stops."""

from __future__ import annotations

DOCUMENTATION = r"""
module: nvmelm_compat
short_description: Compare a source and a destination
description:
  - Runs C(nvmelm compat check) and returns the verdict with every reason. Fails when they do not fit, unless
    I(fail_when_incompatible=false). Changes nothing.
options:
  source:
    description: A manifest's file, a tree, C(PF/CNTLID), or C(ssh://HOST/PF/CNTLID).
    type: str
    required: true
  destination:
    description: The same.
    type: str
    required: true
  policy:
    description: File with the site's rules, on the managed host.
    type: path
  rsh:
    description: What replaces ssh.
    type: str
  program:
    description: What to run on another host.
    type: str
  fail_when_incompatible:
    description: Whether an incompatible pair fails the task.
    type: bool
    default: true
extends_documentation_fragment: nvmelm.fleet.nvmelm
author: the nvmelm project
"""

EXAMPLES = r"""
- name: Can it go there
  nvmelm.fleet.nvmelm_compat:
    source: nvme0/0x0042
    destination: ssh://other/nvme0/0x0042
"""

RETURN = r"""
compatible:
  description: Whether nothing blocks.
  type: bool
  returned: always
nvmelm:
  description: The verdict (schema nvmelm.verdict).
  type: dict
  returned: always
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.nvmelm.fleet.plugins.module_utils import nvmelm

_INCOMPATIBLE = 4


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **nvmelm.COMMON_ARGUMENTS,
            "source": {"type": "str", "required": True},
            "destination": {"type": "str", "required": True},
            "policy": {"type": "path"},
            "rsh": {"type": "str"},
            "program": {"type": "str"},
            "fail_when_incompatible": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    asked = module.params
    options = {name: asked[name] for name in ("policy", "rsh", "program")}
    command = nvmelm.words(module, "compat", "check", **options, names=[asked["source"], asked["destination"]])
    verdict = nvmelm.run(module, command, changes=False, good=(0, _INCOMPATIBLE))
    fits = bool(verdict.get("compatible"))
    if not fits and asked["fail_when_incompatible"]:
        blocking = [reason["message"] for reason in verdict.get("reasons", []) if reason["severity"] == "blocks"]
        module.fail_json(msg="; ".join(blocking) or "not compatible", compatible=False, nvmelm=verdict)
    module.exit_json(changed=False, compatible=fits, nvmelm=verdict)


if __name__ == "__main__":
    main()
