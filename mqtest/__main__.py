"""`python -m mqtest` is `mqtest`."""

import sys

from mqtest.cli import main

if __name__ == "__main__":
    sys.exit(main())
