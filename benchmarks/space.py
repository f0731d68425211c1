"""The Space under load: seconds to the first page, to a depth map, to the first token, and 50 users at once.

python -m benchmarks.space --bundle outputs/demo --output benchmarks/results/cpu/space.json    # two minutes
python -m benchmarks.space --bundle outputs/demo --smallest                                    # to see that it runs
"""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.record import begin, save

APP = Path(__file__).resolve().parent.parent / "space_app" / "app.py"
PORT = 7999
WAIT_S = 120.0
REPEATS = 10
QUESTION = "Which is closer to the camera, the point (0.250, 0.750) or the point (0.500, 0.500)?"


def make_parser() -> argparse.ArgumentParser:
    """Arguments of `python -m benchmarks.space`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.space", description=__doc__.split("\n")[0])
    parser.add_argument("--bundle", required=True, help="folder with vlm/, depth_base/ and depth_boosted/")
    parser.add_argument("--users", type=int, default=50, help="who ask at the same time")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of the Space")
    parser.add_argument("--smallest", action="store_true", help="three users and repeats")
    parser.add_argument("--output", type=Path, help="JSON file of the figures")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Start the Space, measure, stop it, print and save the figures."""
    arguments = make_parser().parse_args(argv)
    repeats, users = (3, 3) if arguments.smallest else (REPEATS, arguments.users)
    about = begin(None, on_gpu=False, bundle=Path(arguments.bundle).name, space_threads=arguments.threads)
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "picture.png"
        noise = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((640, 480)).save(picture)
        space, figures["first_page_s"] = start(arguments.bundle, arguments.threads, folder)
        figures["first_page_cpu_s"] = cpu_seconds(space.pid)  # what it takes on an idle machine, about
        try:
            figures |= single_user(str(picture), repeats)
            figures["idle_memory_mb"] = memory_mb(space.pid)
            figures |= many_users(str(picture), users)
            figures["peak_memory_mb"] = memory_mb(space.pid, "VmHWM")
        finally:
            space.terminate()
            space.wait(timeout=30)
    for name, value in figures.items():
        print(f"{name:<40}{value}")
    save(arguments.output, "space", argv, {"about": about, "figures": figures})
    return 0


def start(bundle: str, threads: int, folder: str) -> tuple[subprocess.Popen[bytes], float]:
    """The Space in a process of its own, and the seconds until it gave its page."""
    import httpx

    environment = {
        **os.environ,
        "SPATIALBOOST_BUNDLE": bundle,
        "GRADIO_SERVER_PORT": str(PORT),
        "GRADIO_TEMP_DIR": folder,
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": str(threads),
    }
    begun = time.monotonic()
    space = subprocess.Popen([sys.executable, str(APP)], env=environment, stdout=subprocess.DEVNULL)
    while time.monotonic() - begun < WAIT_S:
        try:
            if httpx.get(f"http://127.0.0.1:{PORT}/").status_code == 200:
                return space, round(time.monotonic() - begun, 2)
        except httpx.HTTPError:
            time.sleep(0.05)
    space.kill()
    raise ValueError(f"--bundle {bundle}: the Space gave no page within {WAIT_S:.0f} s; start it by hand to see why.")


def new_client() -> Any:
    """A user."""
    from gradio_client import Client

    return Client(f"http://127.0.0.1:{PORT}/", verbose=False)


def single_user(picture: str, repeats: int) -> dict[str, Any]:
    """Seconds of a depth map and until the first token, for one user, after the models are loaded."""
    from gradio_client import handle_file

    client, image = new_client(), handle_file(picture)
    client.predict(image=image, api_name="/depth")
    first_token(client, image)
    depths, tokens = [], []
    for _ in range(repeats):
        begun = time.monotonic()
        client.predict(image=image, x=0.5, y=0.5, api_name="/depth_at_point")  # both encoders
        depths.append(time.monotonic() - begun)
        tokens.append(first_token(client, image))
    return {
        "depth_640x480_both_encoders_s": quantiles(depths),
        "first_token_s": quantiles(tokens),
    }


def first_token(client: Any, image: Any) -> float:
    """Seconds until an answer began; it is read to its end."""
    begun = time.monotonic()
    job = client.submit(images=[image], question=QUESTION, api_name="/ask")
    for _ in job:
        first = time.monotonic() - begun
        break
    job.result(timeout=WAIT_S)
    return first


def many_users(picture: str, users: int) -> dict[str, Any]:
    """All users ask at once, half of them for depth, half a question: what they got and how long they waited."""
    from gradio_client import handle_file

    clients = [new_client() for _ in range(users)]
    image = handle_file(picture)
    seconds: list[float] = []
    failures: list[str] = []
    positions: list[int] = []
    together = threading.Barrier(users)

    def use(number: int) -> None:
        client = clients[number]
        together.wait()
        begun = time.monotonic()
        try:
            if number % 2:
                job = client.submit(images=[image], question=QUESTION, api_name="/ask")
            else:
                job = client.submit(image=image, api_name="/depth")
            while not job.done():
                rank = job.status().rank
                if rank is not None:
                    positions.append(rank)
                time.sleep(0.2)
            job.result(timeout=WAIT_S)
            seconds.append(time.monotonic() - begun)
        except Exception as error:
            failures.append(f"{type(error).__name__}: {error}"[:200])

    threads = [threading.Thread(target=use, args=(number,)) for number in range(users)]
    begun = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=WAIT_S)
    return {
        "users": users,
        "answered": len(seconds),
        "failures": failures,
        "until_answered_s": quantiles(seconds),
        "all_answered_s": round(time.monotonic() - begun, 1),
        "largest_queue_position_told": max(positions, default=0),
    }


def quantiles(values: list[float]) -> dict[str, float]:
    """Median and largest."""
    return {"median": round(float(np.median(values)), 3), "largest": round(max(values), 3)} if values else {}


def cpu_seconds(process: int) -> float:
    """CPU time that a process has used."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return round((int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), 2)


def memory_mb(process: int, field: str = "VmRSS") -> int:
    """Resident memory of a process as Linux tells it."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith(field)).split()[1]) // 1024


if __name__ == "__main__":
    raise SystemExit(main())
