"""Conversion between ROS image messages and OpenCV images."""

from __future__ import annotations

import sys
from typing import Any

import cv2
import numpy as np
import sensor_msgs.msg
from numpy.typing import NDArray

from .boost.cv_bridge_boost import CV_MAT_CNWrap, CV_MAT_DEPTHWrap, cvtColor2, getCvType

_DEPTHS = ('8U', '8S', '16U', '16S', '32S', '32F', '64F')
_DTYPE_NAMES = ('uint8', 'int8', 'uint16', 'int16', 'int32', 'float32', 'float64')


class CvBridgeError(TypeError):
    """Raised if a conversion is not possible."""


class CvBridge:
    """Converts between image messages and OpenCV images (NumPy arrays)."""

    def __init__(self) -> None:
        self.cvtype_to_name = {
            getattr(cv2, f'CV_{depth}C{channels}'): f'{depth}C{channels}'
            for depth in _DEPTHS
            for channels in (1, 2, 3, 4)
        }
        self.cvdepth_to_numpy_depth = dict(enumerate(_DTYPE_NAMES))
        self.numpy_type_to_cvtype = dict(zip(_DTYPE_NAMES, _DEPTHS))
        self.numpy_type_to_cvtype.update(zip(_DEPTHS, _DTYPE_NAMES))

    def dtype_with_channels_to_cvtype2(self, dtype: np.dtype[Any], n_channels: int) -> str:
        """Return the name of the OpenCV type for a NumPy type and a number of channels."""
        if dtype.name not in self.numpy_type_to_cvtype:
            raise CvBridgeError(f'OpenCV does not support images of type {dtype.name}')
        return f'{self.numpy_type_to_cvtype[dtype.name]}C{n_channels}'

    def cvtype2_to_dtype_with_channels(self, cvtype: int) -> tuple[str, int]:
        """Return the NumPy type and the number of channels of an OpenCV type."""
        return self.cvdepth_to_numpy_depth[CV_MAT_DEPTHWrap(cvtype)], CV_MAT_CNWrap(cvtype)

    def encoding_to_cvtype2(self, encoding: str) -> int:
        """Return the OpenCV type of an encoding."""
        try:
            return getCvType(encoding)
        except RuntimeError as error:
            raise CvBridgeError(error) from error

    def encoding_to_dtype_with_channels(self, encoding: str) -> tuple[str, int]:
        """Return the NumPy type and the number of channels of an encoding."""
        return self.cvtype2_to_dtype_with_channels(self.encoding_to_cvtype2(encoding))

    def imgmsg_to_cv2(
        self, img_msg: sensor_msgs.msg.Image, desired_encoding: str = 'passthrough'
    ) -> NDArray[Any]:
        """
        Convert an image message to an OpenCV image.

        Parameters
        ----------
        img_msg
            Image message.
        desired_encoding
            Encoding of the result; ``passthrough`` keeps the encoding of the message.

        Returns
        -------
        [H, W] for one channel, else [H, W, C].  Without conversion and padding, the result is a
        view of the message data.

        Raises
        ------
        CvBridgeError
            If the message is malformed or the conversion is not supported.
        """
        image = self._view(img_msg)
        if desired_encoding == 'passthrough':
            return image
        try:
            return cvtColor2(image, img_msg.encoding, desired_encoding)
        except (RuntimeError, cv2.error) as error:
            raise CvBridgeError(error) from error

    def compressed_imgmsg_to_cv2(
        self,
        cmprs_img_msg: sensor_msgs.msg.CompressedImage,
        desired_encoding: str = 'passthrough',
    ) -> NDArray[Any]:
        """
        Convert a compressed image message to an OpenCV image.

        Raises
        ------
        CvBridgeError
            If the data cannot be decoded or the conversion is not supported.
        """
        data = np.frombuffer(cmprs_img_msg.data, np.uint8)
        image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
        if image is None:
            raise CvBridgeError(
                f'{data.size} bytes with the format {cmprs_img_msg.format!r} cannot be decoded'
            )
        if desired_encoding == 'passthrough':
            return image
        order = {2: 'mono', 3: {3: 'bgr', 4: 'bgra'}.get(image.shape[-1], '')}[image.ndim]
        try:
            return cvtColor2(image, f'{order}{8 * image.itemsize}', desired_encoding)
        except (RuntimeError, cv2.error) as error:
            raise CvBridgeError(error) from error

    def cv2_to_imgmsg(
        self, cvim: NDArray[Any], encoding: str = 'passthrough', header: Any = None
    ) -> sensor_msgs.msg.Image:
        """
        Convert an OpenCV image to an image message.

        Parameters
        ----------
        cvim
            Image [H, W] or [H, W, C].
        encoding
            Encoding of the image; ``passthrough`` uses the OpenCV type.
        header
            Header of the message.

        Raises
        ------
        TypeError
            If the image is not an array.
        CvBridgeError
            If the array type does not match the encoding.
        """
        if not isinstance(cvim, (np.ndarray, np.generic)):
            raise TypeError('Your input type is not a numpy array')
        n_channels = cvim.shape[2] if cvim.ndim > 2 else 1
        cv_type = self.dtype_with_channels_to_cvtype2(cvim.dtype, n_channels)
        message = sensor_msgs.msg.Image()
        message.height, message.width = cvim.shape[:2]
        if header is not None:
            message.header = header
        message.encoding = cv_type if encoding == 'passthrough' else encoding
        if self.encoding_to_cvtype2(message.encoding) != getCvType(cv_type):
            raise CvBridgeError(
                f'encoding specified as {encoding}, but image has incompatible type {cv_type}'
            )
        is_native_big = cvim.dtype.byteorder == '=' and sys.byteorder == 'big'
        message.is_bigendian = int(cvim.dtype.byteorder == '>' or is_native_big)
        message.data.frombytes(np.ascontiguousarray(cvim).data.cast('B'))
        message.step = cvim.shape[1] * n_channels * cvim.dtype.itemsize
        return message

    def cv2_to_compressed_imgmsg(
        self, cvim: NDArray[Any], dst_format: str = 'jpg'
    ) -> sensor_msgs.msg.CompressedImage:
        """
        Convert an OpenCV image to a compressed image message.

        Parameters
        ----------
        cvim
            Image [H, W] or [H, W, C].
        dst_format
            File format supported by OpenCV: bmp, dib, jpeg, jpg, jpe, jp2, png, pbm, pgm, ppm, sr,
            ras, tiff, tif.

        Raises
        ------
        TypeError
            If the image is not an array.
        CvBridgeError
            If the format does not support the array type.
        """
        if not isinstance(cvim, (np.ndarray, np.generic)):
            raise TypeError('Your input type is not a numpy array')
        try:
            _, data = cv2.imencode(f'.{dst_format}', cvim)
        except cv2.error as error:
            raise CvBridgeError(error) from error
        message = sensor_msgs.msg.CompressedImage()
        message.format = dst_format
        message.data.frombytes(data.tobytes())
        return message

    def _view(self, message: sensor_msgs.msg.Image) -> NDArray[Any]:
        """Return the image of a message in native byte order, without row padding."""
        name, channels = self.encoding_to_dtype_with_channels(message.encoding)
        dtype = np.dtype(name).newbyteorder('>' if message.is_bigendian else '<')
        row_bytes = message.width * channels * dtype.itemsize
        if message.step < row_bytes:
            raise CvBridgeError(
                f'the image is wrongly formed: its step is {message.step}, but {message.width} '
                f'pixels of {message.encoding} take {row_bytes} bytes'
            )
        data = message.data
        if isinstance(data, list):
            data = bytes(data)
        if len(data) < message.height * message.step:
            raise CvBridgeError(
                f'the image is wrongly formed: it has {len(data)} bytes of data, but '
                f'{message.height} rows of {message.step} bytes take '
                f'{message.height * message.step}'
            )
        shape = (message.height, message.width, channels)[: 2 if channels == 1 else 3]
        strides = (message.step, channels * dtype.itemsize, dtype.itemsize)[: len(shape)]
        image = np.ndarray(shape, dtype, buffer=data, strides=strides)
        return np.ascontiguousarray(image.astype(dtype.newbyteorder('='), copy=False))
