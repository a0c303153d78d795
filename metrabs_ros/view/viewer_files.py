"""Files of the Rerun web viewer, from the installed rerun-sdk."""

from __future__ import annotations

import importlib.util
import pathlib
import socket
import subprocess
import time
import urllib.request
import zipfile

from metrabs_ros.child_process import end_with_parent

PAGE = 'index.html'
REQUIRED_FILES = (PAGE, 're_viewer.js', 're_viewer_bg.wasm')
OPTIONAL_FILES = ('favicon.ico', 'apple-touch-icon.png')
MAX_FILE_BYTES = 256 << 20
START_TIMEOUT_S = 120.0
POLL_PERIOD_S = 0.02


class ViewerNotFound(OSError):  # noqa: N818
    """The files of the viewer are not available; the message states the reason."""


def load_viewer_files() -> dict[str, bytes]:
    """
    Return the files of the viewer by their names.

    Some releases of rerun-sdk contain an archive of the files; in other releases they are part of
    the executable.  In the latter case the executable is started to download them over the
    loopback interface.  Its server is not used for the view, because it does not reject requests
    of other web pages.

    Raises
    ------
    ViewerNotFound
        If the installed rerun-sdk has no web viewer.
    """
    archive = _find_file('rerun', 'web_viewer.zip')
    if archive is not None:
        return _from_archive(archive)
    executable = _find_file('rerun_cli', 'rerun')
    if executable is None:
        raise ViewerNotFound('the installed rerun-sdk has no web viewer: pip install rerun-sdk')
    return _from_executable(executable)


def _find_file(package: str, name: str) -> pathlib.Path | None:
    spec = importlib.util.find_spec(package)
    for folder in spec.submodule_search_locations or () if spec else ():
        if (pathlib.Path(folder) / name).is_file():
            return pathlib.Path(folder) / name
    return None


def _from_archive(archive: pathlib.Path) -> dict[str, bytes]:
    with zipfile.ZipFile(archive) as opened:
        known = {pathlib.PurePosixPath(name).name: name for name in opened.namelist()}
        missing = [name for name in REQUIRED_FILES if name not in known]
        if missing:
            raise ViewerNotFound(f'{archive} does not contain {", ".join(missing)}')
        return {
            name: opened.read(known[name])
            for name in (*REQUIRED_FILES, *OPTIONAL_FILES)
            if name in known
        }


def _from_executable(executable: pathlib.Path) -> dict[str, bytes]:
    page_port, data_port = _free_loopback_ports(2)
    process = subprocess.Popen(
        [
            *(str(executable), '--serve-web', '--bind', '127.0.0.1'),
            *('--web-viewer-port', str(page_port), '--port', str(data_port)),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=end_with_parent,
    )
    try:
        _wait_for_server(process, page_port)
        files = {
            name: _fetch(f'http://127.0.0.1:{page_port}/{name}')
            for name in (*REQUIRED_FILES, *OPTIONAL_FILES)
        }
    finally:
        process.kill()
        process.wait()
    missing = [name for name in REQUIRED_FILES if files[name] is None]
    if missing:
        raise ViewerNotFound(f'{executable} does not serve {", ".join(missing)}')
    return {name: content for name, content in files.items() if content is not None}


def _wait_for_server(process: subprocess.Popen[bytes], port: int) -> None:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline_s:
        if _fetch(f'http://127.0.0.1:{port}/{PAGE}') is not None:
            return
        time.sleep(POLL_PERIOD_S)
    status = process.poll()
    failure = 'does not respond' if status is None else f'ended with exit status {status}'
    executable = process.args[0]  # type: ignore[index]
    raise ViewerNotFound(f'the viewer of rerun-sdk, {executable!r}, {failure}')


def _fetch(address: str) -> bytes | None:
    # Proxies of the environment must not be used for the loopback interface.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(address, timeout=START_TIMEOUT_S) as response:
            content: bytes = response.read(MAX_FILE_BYTES)
            return content
    except OSError:
        return None


def _free_loopback_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(('127.0.0.1', 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()
