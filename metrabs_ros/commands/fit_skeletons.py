"""The command fit-skeletons: fit an affine-combining autoencoder."""

from __future__ import annotations

import argparse
import pathlib
from typing import Any

import numpy as np
from tqdm import tqdm

from metrabs_ros.commands.requirements import require_new_file, require_package
from metrabs_ros.foreign_text import printable
from metrabs_ros.regular_file import shown


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers of the command line."""
    parser = commands.add_parser(
        'fit-skeletons', help='fit an affine-combining autoencoder to poses of many joints'
    )
    parser.add_argument(
        'poses', type=pathlib.Path, help='.npz with poses3d [N, J, 3] in mm and joint_names [J]'
    )
    parser.add_argument(
        '--latents',
        type=int,
        default=0,
        help='number of latent points; default: half of the joints, at most 48',
    )
    parser.add_argument(
        '-o',
        '--output',
        type=pathlib.Path,
        required=True,
        help='matrices, .npz; a picture is next to it',
    )
    parser.add_argument('--overwrite', action='store_true', help='replace existing files')
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Fit an autoencoder, and write it with a picture."""
    require_package('torch', 'fit-skeletons', 'torch')
    require_package('matplotlib', 'fit-skeletons', 'matplotlib')
    from metrabs_ros.report.skeleton_picture import draw_autoencoder
    from metrabs_ros.skeletons import affine_autoencoder
    from metrabs_ros.skeletons.affine_regression import most_common_pose
    from metrabs_ros.skeletons.pose_samples import read_samples

    if args.output.suffix != '.npz':
        raise ValueError(f'--output is {shown(args.output)}; its name must end in .npz')
    picture: pathlib.Path = args.output.with_suffix('.png')
    for file in (args.output, picture):
        require_new_file(file, args.overwrite, [args.poses])
    samples = read_samples(args.poses)
    with tqdm(total=affine_autoencoder.STEP_COUNT, unit='step', desc='fitting') as progress:

        def advance(steps: int) -> None:
            progress.update(steps)

        fitted = affine_autoencoder.fit_autoencoder(samples, args.latents, advance)
    names, errors_mm = samples.joint_names, fitted.errors_mm
    # The largest errors last, where they are seen; unknown ones first.
    for i in np.argsort(np.where(np.isnan(errors_mm), -1, errors_mm)):
        print(f'{printable(names[i])}: {errors_mm[i]:.1f} mm')
    print(f'mean error in poses that were left out: {np.nanmean(errors_mm):.1f} mm')
    fitted.write(args.output)
    draw_autoencoder(fitted, most_common_pose(samples.poses_mm), picture)
    print(f'the autoencoder is in {shown(args.output)}')
    print(f'check the picture {shown(picture)}')
    return 0
