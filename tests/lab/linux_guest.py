"""A Linux guest that writes numbered blocks: the lab's own kernel, its modules, and busybox, as an initramfs.

It mounts a file system on its NVMe function and then, again and again, writes a block past the page cache, reads it
back and compares it; has the controller scanned again, which takes admin commands; and says on its console how far it
is. A line from outside ends it: it unmounts, says so, and powers off.
"""

from __future__ import annotations

import lzma
import os
import re
import shutil
import subprocess
from pathlib import Path

_XZ, _ELF = b"\xfd7zXZ\x00", b"\x7fELF"
_MODULES = ("nvme", "ext4")

_INIT = """\
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
while read module; do insmod /modules/$module || echo "guest: no $module"; done </modules/order
until test -b /dev/nvme0n1; do sleep 0.1; done
mount -t ext4 /dev/nvme0n1 /mnt
(read line; : >/end) </dev/ttyS0 &
block=0
until test -e /end; do
  yes "block $block" | head -c 4096 >/written
  dd if=/written of=/mnt/blocks bs=4096 seek=$((block % 256)) conv=notrunc oflag=direct 2>/dev/null
  dd if=/mnt/blocks of=/read bs=4096 skip=$((block % 256)) count=1 iflag=direct 2>/dev/null
  cmp /written /read || echo "guest: block $block differs"
  test $((block % 4)) != 0 || echo 1 >/sys/class/nvme/nvme0/rescan_controller
  block=$((block + 1))
  echo "guest: blocks $block admin $(sed -n 's/^ *[0-9]*: *\\([0-9]*\\) .*nvme0q0$/\\1/p' /proc/interrupts)"
done
umount /mnt
echo "guest: ended, $(dmesg | grep -ciE 'nvme.*(timeout|error|reset|abort|changed)|protection fault|oops') complaints"
poweroff -f
"""

#: What the guest says on its console, a line after each block.
PROGRESS = re.compile(r"guest: blocks (\d+) admin (\d+)")
COMPLAINTS = re.compile(r"guest: ended, (\d+) complaints")


def kernel(into: Path, image: Path) -> Path:
    """Unpack a packaged kernel, which QEMU starts by its PVH entry: inside, unpacking itself would take it minutes.

    Raises:
        LookupError: there is no compressed kernel in the image.
    """
    packed = image.read_bytes()
    at = packed.find(_XZ)
    while at >= 0:
        try:
            unpacked = lzma.LZMADecompressor().decompress(packed[at:])
        except lzma.LZMAError:
            unpacked = b""
        if unpacked.startswith(_ELF):
            path = into / "vmlinux"
            path.write_bytes(unpacked)
            return path
        at = packed.find(_XZ, at + 1)
    raise LookupError(f"{image} holds no kernel that xz packed")


def initramfs(into: Path, release: str) -> Path:
    """Make the guest's file system, which the kernel unpacks into its memory.

    Args:
        release: of the kernel whose modules go into it.
    """
    root = into / "root"
    for directory in ("bin", "proc", "sys", "dev", "mnt", "modules"):
        (root / directory).mkdir(parents=True, exist_ok=True)
    busybox = shutil.which("busybox")
    assert busybox is not None
    shutil.copy(busybox, root / "bin/busybox")
    modules = [path for name in _MODULES for path in _needed(name, release)]
    for path in modules:
        shutil.copy(path, root / "modules")
    (root / "modules/order").write_text("".join(f"{path.name}\n" for path in dict.fromkeys(modules)))
    (root / "init").write_text(_INIT)
    (root / "init").chmod(0o755)
    names = "\n".join(sorted(str(path.relative_to(root)) for path in root.rglob("*"))).encode()
    archive = into / "initramfs"
    with archive.open("wb") as output:
        subprocess.run(["busybox", "cpio", "-o", "-H", "newc"], cwd=root, input=names, stdout=output, check=True)
    return archive


def machine(vmlinux: Path, archive: Path) -> list[str]:
    """Return QEMU's words for the guest, without its functions and its console's other end."""
    options = "console=ttyS0 quiet panic=-1 mitigations=off nokaslr nosmp no_timer_check"
    return ["-m", "160M", "-kernel", str(vmlinux), "-initrd", str(archive), "-append", options]


def running_kernel() -> Path:
    """Return the image of the kernel that runs."""
    return Path("/boot", f"vmlinuz-{os.uname().release}")


def _needed(module: str, release: str) -> list[Path]:
    """Return a module's file after those it needs; none with instructions of one processor: they would be emulated."""
    shown = subprocess.run(
        ["modprobe", "-S", release, "--show-depends", module], capture_output=True, text=True, check=True
    )
    paths = [Path(line.split()[1]) for line in shown.stdout.splitlines() if line.startswith("insmod ")]
    return [path for path in paths if "/arch/" not in str(path)]
