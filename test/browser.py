"""Headless browser for tests of web pages."""

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
    """Return TCP ports that are not in use."""
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(('', 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


@contextlib.contextmanager
def open_page(address, size=(1600, 900), arguments=()):
    """Open a page in Chromium; skip the test if Chromium is not installed."""
    chromium = shutil.which('chromium') or shutil.which('chromium-browser')
    if chromium is None:
        pytest.skip('Chromium is not installed (apt-get install chromium)')
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


def wait_for_screenshot(page, evaluate, file=None):
    """
    Take screenshots until one meets a condition.

    Parameters
    ----------
    page
        The page.
    evaluate
        Returns None if a screenshot does not meet the condition.
    file
        File for the last screenshot; None to not store it.

    Returns
    -------
    The result of `evaluate`.
    """
    deadline_s = time.monotonic() + TIMEOUT_S
    while True:
        screenshot = take_screenshot(page)
        if file is not None:
            cv2.imwrite(str(file), screenshot[..., ::-1])
        result = evaluate(screenshot)
        if result is not None:
            return result
        assert time.monotonic() < deadline_s, f'the condition is not met after {TIMEOUT_S} s'
        time.sleep(POLL_PERIOD_S)
