"""`python -m qwenterm` is `qwenterm`."""

import sys

from qwenterm.cli import main

sys.exit(main())
