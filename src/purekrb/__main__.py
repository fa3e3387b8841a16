"""`python -m purekrb`: the same as the `purekrb` command."""

import sys

from purekrb.cli import main

__all__: list[str] = []

if __name__ == "__main__":
    sys.exit(main())
