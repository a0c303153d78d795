"""A browser without a display."""

from __future__ import annotations

import contextlib
import shutil
import socket
import time

import cv2
import numpy as np
import pytest

ARGUMENTS = (
    *('--no-sandbox', '--use-angle=swiftshader', '--enable-unsafe-swiftshader'),
    '--ignore-gpu-blocklist',
)
TIMEOUT_S = 600.0
POLL_PERIOD_S = 2.0


def free_ports(count):
    """Return ports that nobody listens on."""
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(('', 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


@contextlib.contextmanager
def open_page(address, size=(1600, 900), arguments=()):
    """Open a page in Chromium with arguments; skip the test where there is none."""
    chromium = shutil.which('chromium') or shutil.which('chromium-browser')
    if chromium is None:
        pytest.skip('there is no Chromium here (apt-get install chromium)')
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=[*ARGUMENTS, *arguments]
        )
        try:
            page = browser.new_page(viewport={'width': size[0], 'height': size[1]})
            page.set_default_timeout(1000 * TIMEOUT_S)
            page.goto(address)
            yield page
        finally:
            browser.close()


def take_screenshot(page):
    """Return a screenshot, [H, W, 3], RGB."""
    data = np.frombuffer(page.screenshot(), np.uint8)
    return cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]


def wait_for_screenshot(page, shows, keep=None):
    """Take screenshots until one shows what it should; return what it shows."""
    deadline_s = time.monotonic() + TIMEOUT_S
    while True:
        picture = take_screenshot(page)
        if keep is not None:
            cv2.imwrite(str(keep), picture[..., ::-1])
        found = shows(picture)
        if found is not None:
            return found
        assert time.monotonic() < deadline_s, f'not seen in {TIMEOUT_S} s'
        time.sleep(POLL_PERIOD_S)
