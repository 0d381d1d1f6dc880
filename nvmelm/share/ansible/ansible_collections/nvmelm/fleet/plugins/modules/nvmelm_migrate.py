"""Step 6: move controlled functions from this host to another."""

from __future__ import annotations

DOCUMENTATION = r"""
module: nvmelm_migrate
short_description: Move controlled functions to another host
description:
  - Runs C(nvmelm migrate) on the source. A move that fails leaves the controllers running here, and the task fails with
    nvmelm's exit code; 9 says that an operator must look.
  - Check mode compares both ends and chooses the targets. With I(all_migratable) a host with nothing marked changes
    nothing.
options:
  pf:
    description: Controlling function here.
    type: str
    required: true
  cntlid:
    description: Controllers to move.
    type: list
    elements: str
  all_migratable:
    description: Move everything that is marked migratable.
    type: bool
    default: false
  to:
    description: C(ssh://[user@]HOST[:port]/PF[/CNTLID,...]).
    type: str
    required: true
  rsh:
    description: What replaces ssh.
    type: str
  program:
    description: What to run on the other host, such as C(sudo nvmelm).
    type: str
  policy:
    description: File with the site's rules, on the managed host.
    type: path
  max_downtime:
    description: Refuse when the dry transfer took longer, seconds.
    type: float
  guest_loses_controller:
    description: Move although a guest here holds a controller and no callouts move that guest along.
    type: bool
    default: false
extends_documentation_fragment: nvmelm.fleet.nvmelm
author: the nvmelm project
"""

EXAMPLES = r"""
- name: Move everything
  nvmelm.fleet.nvmelm_migrate:
    pf: "0000:01:00.0"
    all_migratable: true
    to: ssh://other/0000:01:00.0
"""

RETURN = r"""
nvmelm:
  description: The report (schema nvmelm.migrate); empty when there was nothing to move.
  type: dict
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.nvmelm.fleet.plugins.module_utils import nvmelm


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **nvmelm.COMMON_ARGUMENTS,
            "pf": {"type": "str", "required": True},
            "cntlid": {"type": "list", "elements": "str"},
            "all_migratable": {"type": "bool", "default": False},
            "to": {"type": "str", "required": True},
            "rsh": {"type": "str"},
            "program": {"type": "str"},
            "policy": {"type": "path"},
            "max_downtime": {"type": "float"},
            "guest_loses_controller": {"type": "bool", "default": False},
        },
        required_one_of=[("cntlid", "all_migratable")],
        supports_check_mode=True,
    )
    asked = module.params
    names = ("all_migratable", "to", "rsh", "program", "policy", "max_downtime", "guest_loses_controller")
    options = {name: asked[name] for name in names}
    controllers = [nvmelm.cntlid(module, text) for text in asked["cntlid"] or ()]
    command = nvmelm.words(module, "migrate", **options, names=[asked["pf"], *controllers])
    nothing = ("unmarked",) if asked["all_migratable"] else ()
    report = nvmelm.run(module, command, changes=True, nothing=nothing)
    module.exit_json(changed=nvmelm.changed_by(report), nvmelm=report)


if __name__ == "__main__":
    main()
