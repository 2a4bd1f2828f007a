"""The least that a program must do which edits a domain XML with lxml: read, parse, serialise."""

from __future__ import annotations

import sys
from pathlib import Path

from lxml import etree

root = etree.fromstring(Path(sys.argv[1]).read_bytes())
sys.stdout.buffer.write(etree.tostring(root, encoding="UTF-8", xml_declaration=True))
