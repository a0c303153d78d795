#!/usr/bin/env python3
"""
Print the distances of the people in each frame of a video or of a folder of images, without ROS.

    python examples/people_from_video.py VIDEO_OR_FOLDER [FIELD_OF_VIEW_DEGREES]
"""

import pathlib
import sys

import cv2

import metrabs_ros


def frames(source):
    """Yield the images of a video or folder, one after the other, as uint8 RGB arrays."""
    if source.is_dir():
        for file in sorted(source.iterdir()):
            if (image := cv2.imread(str(file))) is not None:
                yield image[..., ::-1]
        return
    video = cv2.VideoCapture(str(source))
    while (image := video.read()[1]) is not None:
        yield image[..., ::-1]


def main(source, fov_degrees=55.0):
    """Print a line for each frame."""
    model = metrabs_ros.load_model('blazepose')
    skeleton = model.convention('coco_17').skeleton
    for number, image in enumerate(frames(pathlib.Path(source))):
        prediction = model.detect_poses(
            image, default_fov_degrees=float(fov_degrees), skeleton='coco_17'
        )
        people = metrabs_ros.People.of_prediction(prediction, skeleton, image.shape)
        distances = ', '.join(f'{distance / 1000:.1f} m' for distance in people.distances_mm)
        print(f'frame {number}: {len(people)} people: {distances}')


if __name__ == '__main__':
    main(*sys.argv[1:])
