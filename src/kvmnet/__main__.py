"""`python3 -m kvmnet` is the same as `kvmnet`."""

from kvmnet.cli.main import run

run()
