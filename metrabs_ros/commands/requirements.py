"""What commands require before they start: packages, and names of new files."""

from __future__ import annotations

import importlib.util
import os
import pathlib
from collections.abc import Iterable

from metrabs_ros.regular_file import shown


def require_package(module: str, command: str, package: str) -> None:
    """
    Raise an ImportError that names the package to install if a module is missing.

    Parameters
    ----------
    module
        Name of the module.
    command
        Name of the command that needs it.
    package
        Name for pip of the package that contains it.
    """
    if importlib.util.find_spec(module) is None:
        raise ImportError(f'{command} needs {package}: pip install {package}')


def require_new_file(
    file: pathlib.Path, overwrite: bool, inputs: Iterable[pathlib.Path] = ()
) -> None:
    """Raise a ValueError if an output file exists, is an input, or cannot be created."""
    if os.path.lexists(file) and not overwrite:
        raise ValueError(f'{shown(file)} already exists; --overwrite replaces it')
    if os.path.isdir(file):
        raise ValueError(f'{shown(file)} is a folder; name the file to write')
    if not os.path.isdir(file.absolute().parent):
        raise ValueError(f'{shown(file)} cannot be written: its folder does not exist')
    # Otherwise a device such as /dev/null would be replaced by a file.
    if os.path.lexists(file) and not (os.path.isfile(file) or os.path.islink(file)):
        raise ValueError(f'{shown(file)} is a device or a pipe; name the file to write')
    for source in inputs:
        if os.path.exists(file) and os.path.exists(source) and os.path.samefile(file, source):
            raise ValueError(f'the output {shown(file)} is an input; name another file')
