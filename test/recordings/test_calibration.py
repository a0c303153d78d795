"""Reading of calibration files of ROS tools, and approximate calibrations."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from metrabs_ros.conversions.cameras import to_camera
from metrabs_ros.node.demo_camera import to_message
from metrabs_ros.recordings.calibration import (
    Calibration,
    UnusableCalibration,
    read_calibration,
)


def test_a_ros_calibration_is_read(tmp_path):
    file = tmp_path / 'camera.yaml'
    file.write_text(
        yaml.safe_dump(
            {
                'image_width': 640,
                'image_height': 480,
                'camera_name': 'front',
                'camera_matrix': {
                    'rows': 3,
                    'cols': 3,
                    'data': [500, 0, 320, 0, 500, 240, 0, 0, 1],
                },
                'distortion_model': 'plumb_bob',
                'distortion_coefficients': {'rows': 1, 'cols': 5, 'data': [0.1, 0, 0, 0, 0]},
            }
        )
    )
    info = read_calibration(file)
    assert (info.width, info.height, info.distortion_model) == (640, 480, 'plumb_bob')
    assert list(info.k)[:3] == [500, 0, 320]
    assert list(info.d) == [0.1, 0, 0, 0, 0]


@pytest.mark.parametrize('content', ['', 'a: [', 'image_width: 640', 'camera_matrix: 7'])
def test_files_without_a_calibration_are_rejected(tmp_path, content):
    file = tmp_path / 'camera.yaml'
    file.write_text(content)
    with pytest.raises(UnusableCalibration, match='is neither a ROS calibration'):
        read_calibration(file)
    with pytest.raises(UnusableCalibration, match='cannot be read'):
        read_calibration(tmp_path / 'missing.yaml')


def test_an_approximate_calibration_has_the_field_of_view():
    info = Calibration.from_fov(90, (480, 640, 3))
    assert list(info.k) == pytest.approx([320, 0, 320, 0, 320, 240, 0, 0, 1])


def test_a_camera_info_from_ros2_topic_echo_is_read(tmp_path):
    file = tmp_path / 'info.yaml'
    roi = {'x_offset': 100, 'y_offset': 50, 'height': 200, 'width': 300, 'do_rectify': False}
    printed = {
        'header': {'stamp': {'sec': 1, 'nanosec': 2}, 'frame_id': 'camera'},
        'height': 480,
        'width': 640,
        'distortion_model': 'plumb_bob',
        'd': [0.0] * 5,
        'k': [500.0, 0.0, 320.0, 0.0, 500.0, 240.0, 0.0, 0.0, 1.0],
        'roi': roi,
    }
    file.write_text(yaml.safe_dump(printed) + '---\n')
    read = read_calibration(file)
    camera = to_camera(read, (200, 300))
    assert camera.intrinsic_matrix[:2, 2].tolist() == [220, 190]
    assert to_message(read).roi.x_offset == 100


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.floats(allow_nan=False)
    | st.text('kd', max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(['k', 'd', 'width', 'height', 'roi']), inner, max_size=5)
    ),
    max_leaves=10,
)


@given(json_values)
def test_any_yaml_value_is_read_or_rejected(tmp_path_factory, values):
    file = tmp_path_factory.getbasetemp() / 'any.yaml'
    file.write_text(yaml.safe_dump(values))
    try:
        read_calibration(file)
    except UnusableCalibration:
        return
