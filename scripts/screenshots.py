"""Makes the pictures of docs/pictures anew from a finished run, in headless Chromium.

    python scripts/screenshots.py data     # the data folder of `distill`

kedro viz is started for the time it takes, on a port of this machine. Look at every picture before it is committed.
"""

import argparse
import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import kedro_viz.utils
import websocket  # comes with jupyterlab, extra notebooks
from PIL import Image

PROJECT = Path(__file__).parents[1]
PICTURES = PROJECT / "docs/pictures"
PORT, DEBUGGING = 4178, 9333
SETTINGS = {"showFeatureHints": False, "view": "flowchart", "theme": "light"}  # of kedro viz, in the browser
QUIET = "[class*=update-reminder], .feature-hints {display: none !important}"
PLACES = """(() => {  // of this machine are nobody's concern
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
  for (let node = walker.nextNode(); node; node = walker.nextNode()) node.data = node.data.replaceAll(%s, "")
})()"""
WAIT = 60  # seconds for the server to answer
DATASETS = {
    "viz_losses": "student.stage_one_losses",
    "viz_samples": "stage_two_2_samples",
    "viz_latents": "teacher_latents",
    "viz_model": "fractional_167.student",
    "viz_report": "report",
    "viz_runs": "runs",
}
PANEL = ".pipeline-metadata__title"


def main() -> None:
    """All pictures, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="data folder of a finished run of distill")
    data: Path = parser.parse_args().data  # shown as it is typed
    PICTURES.mkdir(exist_ok=True)
    report = max((data / "08_reporting/report.html").glob("*/report.html"))
    photograph(report.resolve().as_uri(), "report", size=(1200, 1400))
    photograph(report.resolve().as_uri(), "report_narrow", size=(400, 900))
    options = ["--no-browser", f"--port={PORT}", f"--params=data={data}"]
    command = [sys.executable, "-m", "kedro", "viz", "run", *options]
    silent: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
    with subprocess.Popen(command, cwd=PROJECT, **silent) as server:  # noqa: S603
        try:
            wait_for(f"http://127.0.0.1:{PORT}/api/main")
            photograph(page(), "viz_lineage", (1500, 1100), ".pipeline-node")
            for name, node in DATASETS.items():
                photograph(f"{page()}&sid={node_id(node)}", name, ready=PANEL)
        finally:
            os.killpg(server.pid, signal.SIGTERM)  # kedro viz serves from a child of its own


def page(pipeline: str = "distill") -> str:
    """The address of one pipeline's graph."""
    return f"http://127.0.0.1:{PORT}/?pid={pipeline}"


def node_id(name: str) -> str:
    """What kedro viz calls a dataset. Raises KeyError for a name that the main job does not have."""
    from kedro.framework.project import pipelines
    from kedro.framework.startup import bootstrap_project

    bootstrap_project(PROJECT)
    pipeline = pipelines["distill"]
    if name not in pipeline.datasets():
        raise KeyError(name)
    return str(kedro_viz.utils._hash(name))


def wait_for(address: str) -> None:
    """Until a server answers. Raises TimeoutError when it does not."""
    end = time.monotonic() + WAIT
    while time.monotonic() < end:
        try:
            urlopen(address, timeout=5).close()  # noqa: S310  # of this machine
        except (URLError, OSError):
            time.sleep(1)
        else:
            return
    raise TimeoutError(f"{address} does not answer; run `kedro viz run` to see why")


def photograph(address: str, name: str, size: tuple[int, int] = (1300, 900), ready: str = "body") -> None:
    """A page as docs/pictures/<name>.png, in few colours, once ``ready`` matches an element of it.

    Raises ValueError where there is no Chromium, TimeoutError when the element does not come.
    """
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        raise ValueError("no chromium is installed; install it, for example apt-get install chromium")
    target = PICTURES / f"{name}.png"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={profile}"]
        command = [browser, *flags, f"--remote-debugging-port={DEBUGGING}", "--remote-allow-origins=*"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:  # noqa: S603
            try:
                wait_for(f"http://127.0.0.1:{DEBUGGING}/json/version")
                target.write_bytes(Tab().picture(address, size, ready))
            finally:
                process.terminate()
                process.wait(timeout=30)
    Image.open(target).convert("RGB").quantize(128).save(target, optimize=True)
    print(f"{target.relative_to(PROJECT)}  {target.stat().st_size // 1024} KiB")


class Tab:
    """A tab of the browser, by its debugging protocol."""

    def __init__(self) -> None:
        with urlopen(f"http://127.0.0.1:{DEBUGGING}/json", timeout=10) as answer:  # of this machine
            pages = [each for each in json.load(answer) if each["type"] == "page"]
        self._socket = websocket.create_connection(pages[0]["webSocketDebuggerUrl"], timeout=60)
        self._count = 0

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """One command and its result."""
        self._count += 1
        self._socket.send(json.dumps({"id": self._count, "method": method, "params": params}))
        while True:
            answer = json.loads(self._socket.recv())
            if answer.get("id") == self._count:
                result: dict[str, Any] = answer.get("result", {})
                return result

    def picture(self, address: str, size: tuple[int, int], ready: str) -> bytes:
        """The page as PNG."""
        stored = f"localStorage.setItem('KedroViz', JSON.stringify({json.dumps(SETTINGS)}))"
        self.call("Page.enable")
        self.call("Page.addScriptToEvaluateOnNewDocument", source=f"try {{ {stored} }} catch (error) {{}}")
        self.call(
            "Emulation.setDeviceMetricsOverride", width=size[0], height=size[1], deviceScaleFactor=1, mobile=False
        )
        self.call("Page.navigate", url=address)
        end = time.monotonic() + WAIT
        while not self._value(f"!!document.querySelector({json.dumps(ready)})"):
            if time.monotonic() > end:
                raise TimeoutError(f"{address} shows no {ready}")
            time.sleep(0.5)
        style = f"document.head.insertAdjacentHTML('beforeend', '<style>{QUIET}</style>')"
        self._value(style)
        time.sleep(8)  # for the preview, and what moves into its place
        self._value(PLACES % json.dumps(f"{PROJECT.as_posix().lstrip('/')}/"))
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])

    def _value(self, expression: str) -> Any:
        return self.call("Runtime.evaluate", expression=expression).get("result", {}).get("value")


if __name__ == "__main__":
    main()
