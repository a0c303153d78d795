"""What commands require before they start: packages, and names of new files."""

from __future__ import annotations

import importlib.util
import os
import pathlib

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


def require_new_file(file: pathlib.Path, overwrite: bool) -> None:
    """Raise a ValueError if an output file exists or cannot be created."""
    if os.path.lexists(file) and not overwrite:
        raise ValueError(f'{shown(file)} already exists; --overwrite replaces it')
    if os.path.isdir(file):
        raise ValueError(f'{shown(file)} is a folder; name the file to write')
    if not os.path.isdir(file.absolute().parent):
        raise ValueError(f'{shown(file)} cannot be written: its folder does not exist')
