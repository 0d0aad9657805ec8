"""``python -m distributed_pg`` is the ``distributed-pg`` command."""

import sys

from distributed_pg.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
