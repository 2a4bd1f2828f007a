"""Pure decisions: no I/O, no formats."""
