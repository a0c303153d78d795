"""The command fetch: download weights."""

from __future__ import annotations

import argparse
from typing import Any

from metrabs_ros.weights import store


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers of the command line."""
    parser = commands.add_parser(
        'fetch', help='download the weights of a model that are not part of the package'
    )
    parser.add_argument('model', choices=store.MODELS)
    parser.add_argument(
        '--url', help='address of a mirror; for blazepose_heavy also the path of a local file'
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Download the weights of a model."""
    if args.model in store.BUNDLED:
        print(f'the {args.model} weights are part of the package')
    else:
        print(f'the {args.model} weights are in {store.fetch(args.model, args.url)}')
    return 0
