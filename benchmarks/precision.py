"""
Measure the differences to the official implementation for each engine and precision.

The reproducible checkpoints in test/data/golden have random weights.  The errors of trained
networks have the same magnitude, because they are caused by rounding in the same layers.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import tempfile

import cv2
import machine
import numpy as np
import subjects

import metrabs_ros

GOLDEN = pathlib.Path(__file__).parents[1] / 'test' / 'data' / 'golden'
RESULTS = pathlib.Path(__file__).parent / 'results' / 'precision.json'
ENGINES = (('torch', 'fp32'), ('openvino', 'fp32'), ('openvino', 'bf16'), ('torch', 'fp16'))


def errors(
    model: metrabs_ros.pose_estimator.PoseEstimator, case: dict, official_mm: np.ndarray
) -> dict:
    """Return the errors of a test case."""
    image = cv2.imread(str(GOLDEN.parent / f'{case["image"]}.png'))[..., ::-1]
    prediction = model.estimate_poses(
        np.ascontiguousarray(image),
        case['boxes'],
        intrinsic_matrix=case['K'],
        distortion_coeffs=case.get('dist'),
        extrinsic_matrix=case.get('extrinsic'),
        world_up_vector=case.get('up', (0, -1, 0)),
        num_aug=case['num_aug'],
        antialias_factor=case['antialias'],
        average_aug=case['average'],
        skeleton=case['skeleton'],
    )
    error_mm = np.linalg.norm(prediction['poses3d'] - official_mm, axis=-1)
    relative_error = error_mm / np.linalg.norm(official_mm, axis=-1)
    return {
        'median_mm': float(np.median(error_mm)),
        'worst_mm': float(error_mm.max()),
        'median_percent': 100 * float(np.median(relative_error)),
    }


def main() -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[1])
    parser.add_argument('--crops', type=int, default=8, help='maximum crops of a case in fp16')
    max_fp16_crops = parser.parse_args().crops
    cases = json.loads((GOLDEN / 'cases.json').read_text())
    official = np.load(GOLDEN / 'cases.npz')
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        folders = {}
        for engine, precision in ENGINES:
            case_errors = []
            for i, case in enumerate(cases):
                # Processors without fp16 instructions need several seconds per crop.
                if precision == 'fp16' and len(case['boxes']) * case['num_aug'] > max_fp16_crops:
                    continue
                variant = case['variant']
                if variant not in folders:
                    folders[variant] = pathlib.Path(folder) / variant
                    folders[variant].mkdir()
                    subjects.write_checkpoint(folders[variant], variant)
                try:
                    model = metrabs_ros.load_model(folders[variant], engine, precision, 'cpu')
                except ValueError as error:
                    print(f'{engine} {precision}: {error}')
                    break
                case_errors.append(errors(model, case, official[f'{i:02}/poses3d']))
            if not case_errors:
                continue
            row = {
                'engine': engine,
                'precision': precision,
                'cases': len(case_errors),
                'median_mm': float(np.median([e['median_mm'] for e in case_errors])),
                'worst_median_mm': max(e['median_mm'] for e in case_errors),
                'worst_mm': max(e['worst_mm'] for e in case_errors),
                'median_percent': float(np.median([e['median_percent'] for e in case_errors])),
                'worst_median_percent': max(e['median_percent'] for e in case_errors),
            }
            rows.append(row)
            print(row, flush=True)
    RESULTS.write_text(json.dumps({'machine': machine.describe(), 'rows': rows}, indent=1) + '\n')


if __name__ == '__main__':
    main()
