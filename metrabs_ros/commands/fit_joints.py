"""The command fit-joints: define custom joints from examples."""

from __future__ import annotations

import argparse
import pathlib
from typing import Any

from metrabs_ros.commands.errors import print_warning
from metrabs_ros.commands.requirements import require_new_file
from metrabs_ros.foreign_text import printable
from metrabs_ros.regular_file import shown

MAX_LINE_CHARS = 3000
"""Maximum length of the line about a joint."""


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers of the command line."""
    parser = commands.add_parser(
        'fit-joints', help='define custom joints from examples of their positions'
    )
    parser.add_argument(
        'examples',
        type=pathlib.Path,
        help='.npz with poses3d, joint_names, custom3d and custom_names; see docs/skeletons.md',
    )
    parser.add_argument('--name', required=True, help='name of the new skeleton')
    parser.add_argument(
        '--source',
        default='blazepose_33',
        help="skeleton of poses3d; '' for all joints of a network; default: blazepose_33",
    )
    parser.add_argument(
        '-o', '--output', type=pathlib.Path, required=True, help='skeleton definition, JSON'
    )
    parser.add_argument('--overwrite', action='store_true', help='replace existing files')
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Fit custom joints, and write their definition."""
    from metrabs_ros.skeletons.custom_joints import fit_custom_joints, read_examples
    from metrabs_ros.skeletons.definition_file import write_definitions

    require_new_file(args.output, args.overwrite, [args.examples])
    result = fit_custom_joints(read_examples(args.examples), args.name, args.source)
    definition = result.definition
    for name, error_mm, weights in zip(
        definition.skeleton.joint_names, result.errors_mm, definition.weights
    ):
        terms = ' + '.join(
            f'{weight:.2f} {source}'
            for source, weight in zip(definition.source_joints, weights)
            if weight
        )
        print(printable(f'{name}: {error_mm:.1f} mm, {terms}', MAX_LINE_CHARS))
    for warning in result.warnings:
        print_warning(warning)
    write_definitions(args.output, [definition])
    print(f'the definition is in {shown(args.output)}')
    return 0
