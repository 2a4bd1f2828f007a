"""The only I/O, one door for each kind."""
