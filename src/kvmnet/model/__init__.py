"""Frozen, typed data: what a host is made of. No I/O, no formats, no decisions."""
