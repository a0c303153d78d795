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

import golden
import machine
import subjects

import metrabs_ros

RESULTS = pathlib.Path(__file__).parent / 'results' / 'precision.json'
ENGINES = (('torch', 'fp32'), ('openvino', 'fp32'), ('openvino', 'bf16'), ('torch', 'fp16'))


def main() -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[1])
    parser.add_argument('--crops', type=int, default=8, help='maximum crops of a case in fp16')
    max_fp16_crops = parser.parse_args().crops
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        folders = {}
        for engine, precision in ENGINES:
            case_errors = []
            for case, official_mm in golden.cases():
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
                case_errors.append(golden.errors(model, case, official_mm))
            if not case_errors:
                continue
            row = {
                'engine': engine,
                'precision': precision,
                **golden.summary(case_errors),
            }
            rows.append(row)
            print(row, flush=True)
    RESULTS.write_text(json.dumps({'machine': machine.describe(), 'rows': rows}, indent=1) + '\n')


if __name__ == '__main__':
    main()
