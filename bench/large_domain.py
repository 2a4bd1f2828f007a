"""Writes a guest's definition of a given size (MiB), as one with thousands of disks would be."""

from __future__ import annotations

import sys
from pathlib import Path

HEAD = """<domain type='kvm'>
  <name>large</name>
  <memory unit='KiB'>1048576</memory>
  <os>
    <type arch='x86_64' machine='pc-q35-7.2'>hvm</type>
  </os>
  <devices>
    <interface type='network'>
      <mac address='52:54:00:6c:3c:01'/>
      <source network='default'/>
      <model type='virtio'/>
    </interface>
"""
DISK = """    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' discard='unmap'/>
      <source file='/var/lib/libvirt/images/disk-{number}.qcow2'/>
      <target dev='vd{number}' bus='virtio'/>
      <address type='pci' domain='0x0000' bus='0x04' slot='0x00' function='0x0'/>
    </disk>
"""
TAIL = "  </devices>\n</domain>\n"


def main() -> None:
    path, size = Path(sys.argv[1]), int(sys.argv[2]) * 1024 * 1024
    parts = [HEAD]
    length = len(HEAD) + len(TAIL)
    while length < size:
        parts.append(DISK.format(number=len(parts)))
        length += len(parts[-1])
    path.write_text("".join([*parts, TAIL]))


main()
