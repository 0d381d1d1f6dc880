"""The lines that call our migration.c from QEMU's hw/nvme, and how they get there.

Each line is put beside an anchor: a piece of QEMU's own text that must be there exactly once. So a QEMU whose code has
moved is refused with the anchor that is missing, and nothing is put where it does not belong.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

#: What is added as whole files, beside QEMU's.
FILES = ("migration.c", "migration.h")
PLACE = Path("hw/nvme")
HERE = Path(__file__).parent


class BuildError(Exception):
    """The emulator cannot be built here; the message says what to install or to change."""


@dataclass(frozen=True)
class Hook:
    """Lines to put directly after an anchor, or before it.

    Attributes:
        file: the file in QEMU's source tree.
        anchor: text that is in it exactly once, as it is there.
        lines: what is added, with its line ends.
    """

    file: str
    anchor: str
    lines: str
    before: bool = False


HOOKS = (
    # State: a parameter and a structure in every controller, and the property.
    Hook("hw/nvme/nvme.h", '#include "block/nvme.h"\n', '#include "migration.h"\n'),
    Hook("hw/nvme/nvme.h", "    bool     msix_exclusive_bar;\n", "    bool     hmlms;\n"),
    Hook(
        "hw/nvme/nvme.h",
        "    } next_pri_ctrl_cap;    /* These override pri_ctrl_cap after reset */\n",
        "\n    NvmeMigration migration;\n",
    ),
    Hook(
        "hw/nvme/ctrl.c",
        '    DEFINE_PROP_STRING("serial", NvmeCtrl, params.serial),\n',
        '    DEFINE_PROP_BOOL("hmlms", NvmeCtrl, params.hmlms, false),\n',
    ),
    # The code: after all it calls, before the first that is not called by what is called by it.
    Hook(
        "hw/nvme/ctrl.c",
        "static uint16_t nvme_admin_cmd(NvmeCtrl *n, NvmeRequest *req)\n{\n",
        '#include "migration.c"\n\n',
        before=True,
    ),
    Hook(
        "hw/nvme/ctrl.c",
        "static void nvme_process_sq(void *opaque);\n",
        "static void nvme_migration_init(NvmeCtrl *n);\n"
        "static void nvme_migration_effects(NvmeCtrl *n, NvmeEffectsLog *log);\n"
        "static uint16_t nvme_migration_formats(NvmeCtrl *n, NvmeRequest *req);\n"
        "static void nvme_migration_progress(NvmeCtrl *n);\n"
        "static void nvme_migration_reset(NvmeCtrl *n);\n",
    ),
    # What it says of itself.
    Hook("hw/nvme/ctrl.c", "    nvme_init_ctrl(n, pci_dev);\n", "    nvme_migration_init(n);\n"),
    Hook(
        "hw/nvme/ctrl.c",
        "    memcpy(log.acs, nvme_cse_acs, sizeof(nvme_cse_acs));\n",
        "    nvme_migration_effects(n, &log);\n",
    ),
    Hook(
        "hw/nvme/ctrl.c",
        "    case NVME_ID_CNS_CTRL:\n",
        "    case 0x20:\n        return nvme_migration_formats(n, req);\n",
        before=True,
    ),
    # The commands.
    Hook(
        "hw/nvme/ctrl.c",
        "                             nvme_adm_opc_str(req->cmd.opcode));\n",
        "\n    if (nvme_migration_has(n, req->cmd.opcode)) {\n        return nvme_migration_cmd(n, req);\n    }\n",
    ),
    # A held controller fetches nothing and reports nothing.
    Hook(
        "hw/nvme/ctrl.c",
        "    while (!(nvme_sq_empty(sq) || QTAILQ_EMPTY(&sq->req_list))) {\n",
        "    if (n->migration.held) {\n        return;\n    }\n\n",
        before=True,
    ),
    Hook(
        "hw/nvme/ctrl.c",
        "    trace_pci_nvme_process_aers(n->aer_queued);\n",
        "\n    if (n->migration.held) {\n        return;\n    }\n",
    ),
    # Completions were posted: it may be idle now.
    Hook("hw/nvme/ctrl.c", "    if (cq->tail != cq->head) {\n", "    nvme_migration_progress(n);\n", before=True),
    # A reset: its namespaces are drained, its queues are still there.
    Hook("hw/nvme/ctrl.c", "        nvme_ns_drain(ns);\n    }\n", "    nvme_migration_reset(n);\n"),
)


def insert(root: Path, hooks: tuple[Hook, ...] = HOOKS) -> None:
    """Put the hooks into a source tree: all of them, or none.

    Raises:
        BuildError: a file or an anchor is not there exactly once, or a hook is there already.
    """
    texts: dict[str, str] = {}
    for hook in hooks:
        text = texts[hook.file] if hook.file in texts else _read(root / hook.file)
        found = text.count(hook.anchor)
        if found != 1:
            raise BuildError(
                f"{hook.file} has this {found} times where it must be once, so this QEMU is not one that the lab can "
                f"extend:\n{hook.anchor.rstrip()}"
            )
        placed = hook.lines + hook.anchor if hook.before else hook.anchor + hook.lines
        if placed in text:
            raise BuildError(f"{hook.file} has the lab's lines already: unpack the source anew")
        texts[hook.file] = text.replace(hook.anchor, placed)
    for name, text in texts.items():
        (root / name).write_text(text)


def copy_files(root: Path) -> None:
    """Copy our files beside QEMU's, where they differ: what did not change is not compiled again."""
    for name in FILES:
        source, target = HERE / name, root / PLACE / name
        if not target.exists() or target.read_bytes() != source.read_bytes():
            shutil.copyfile(source, target)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError as error:
        raise BuildError(f"{path} is not there: this is not the source of a QEMU with hw/nvme") from error
