"""``python -m nvmelm``: the same as the console script."""

import sys

from nvmelm.cli import main

if __name__ == "__main__":
    sys.exit(main())
