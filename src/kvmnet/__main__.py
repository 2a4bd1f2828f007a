"""`python3 -m kvmnet` is the same as `kvmnet`."""

import sys

from kvmnet.cli.main import main

sys.exit(main())
