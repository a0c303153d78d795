"""Calibration files of several cameras for tests, in the formats of other programs."""

from __future__ import annotations

import cv2
import numpy as np
import yaml

from metrabs_ros.conversions.transforms import quaternions


def camera_to_world(camera):
    """Return the pose of a camera, [4, 4], in metres."""
    matrix = np.linalg.inv(camera.extrinsic_matrix)
    matrix[:3, 3] /= 1000
    return matrix


def write_pose2sim(file, cameras, image_shape, **changes):
    """Write a .toml file; changes replace values, as texts, of all cameras."""
    height, width = image_shape
    lines = []
    for name, camera in cameras.items():
        vector = cv2.Rodrigues(camera.extrinsic_matrix[:3, :3])[0].ravel().tolist()
        values = {
            'name': f'"{name}"',
            'size': [float(width), float(height)],
            'matrix': camera.intrinsic_matrix.tolist(),
            'distortions': (camera.distortion_coeffs.tolist() + [0.0] * 4)[:4],
            'rotation': vector,
            'translation': (camera.extrinsic_matrix[:3, 3] / 1000).tolist(),
            'fisheye': 'false',
            **changes,
        }
        lines.append(f'[{name}]')
        lines += [f'{key} = {value}' for key, value in values.items() if value is not None]
    file.write_text('\n'.join([*lines, '[metadata]', 'adjusted = false', 'error = 0.0', '']))
    return file


def write_qualisys(file, cameras, image_shape, left=0, top=0, **changes):
    """Write a .qca.txt file of an image that is a region of the sensor."""
    height, width = image_shape
    lines = ['<calibration><cameras>']
    for name, camera in cameras.items():
        (fx, _, cx), (_, fy, cy), _ = camera.intrinsic_matrix.tolist()
        lens = (camera.distortion_coeffs.tolist() + [0.0] * 4)[:4]
        pose = camera_to_world(camera)
        # By columns, and with the axes of Qualisys: y up, looking along -z.
        rotation = (pose[:3, :3] @ np.diag([1.0, -1.0, -1.0])).T
        values = {f'r{i + 1}{j + 1}': rotation[i, j] for i in range(3) for j in range(3)}
        values |= dict(zip('xyz', 1000 * pose[:3, 3]))
        values |= {
            'focalLengthU': 64 * fx,
            'focalLengthV': 64 * fy,
            'centerPointU': 64 * (cx + left),
            'centerPointV': 64 * (cy + top),
            'radialDistortion1': lens[0],
            'radialDistortion2': lens[1],
            'tangentalDistortion1': lens[2],
            'tangentalDistortion2': lens[3],
            **changes,
        }
        written = ' '.join(f'{key}="{value!s}"' for key, value in values.items())
        lines += [
            f'<camera serial="{name}" viewrotation="0">',
            f'<fov_video left="{left}" top="{top}" right="{left + width - 1}" '
            f'bottom="{top + height - 1}"/>',
            f'<transform {written}/><intrinsic {written}/></camera>',
        ]
    file.write_text('\n'.join([*lines, '</cameras></calibration>']))
    return file


def extrinsics(cameras, parent='map'):
    """Return the content of a file of extrinsics."""
    poses = {name: camera_to_world(camera) for name, camera in cameras.items()}
    return {
        'cameras': {
            name: {
                'parent_frame': parent,
                'child_frame': f'{name}_optical_frame',
                'translation': pose[:3, 3].tolist(),
                'rotation': quaternions(pose[None, :3, :3])[0].tolist(),
            }
            for name, pose in poses.items()
        }
    }


def write_folder(folder, cameras, image_shape, poses=None):
    """Write a folder with a ROS calibration of each camera and their extrinsics."""
    folder.mkdir(exist_ok=True)
    height, width = image_shape
    for name, camera in cameras.items():
        lens = (camera.distortion_coeffs.tolist() + [0.0] * 5)[:5]
        values = {
            'image_width': width,
            'image_height': height,
            'camera_name': name,
            'camera_matrix': {'data': camera.intrinsic_matrix.ravel().tolist()},
            'distortion_model': 'plumb_bob',
            'distortion_coefficients': {'data': lens},
        }
        (folder / f'{name}.yaml').write_text(yaml.safe_dump(values))
    poses = extrinsics(cameras) if poses is None else poses
    (folder / 'extrinsics.yaml').write_text(yaml.safe_dump(poses))
    return folder
