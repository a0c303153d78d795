"""Entry point of the command line, and of ``python -m metrabs_ros``."""

from __future__ import annotations

import sys

from metrabs_ros import startup_signals

# The handlers must be in place before the imports of the command line, which take seconds.
startup_signals.exit_on_signals(startup_signals.COMMAND_STATUSES)


def main() -> int:
    """Run the command line and return the exit status."""
    from metrabs_ros import cli

    return cli.main()


if __name__ == '__main__':
    sys.exit(main())
