"""Text to model and back. Pure: no I/O."""
