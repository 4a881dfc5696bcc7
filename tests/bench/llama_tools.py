"""llama.cpp's own programs, built from the source that Grove's engine is built from, and driven.

    python -m tests.bench.llama_tools [--source DIR] [--jobs N]

fetches the locked llama-cpp-python (its hash is checked), unpacks it into `.build/llama-tools` and
builds `llama-bench` and `llama-server` there with the engine's own flags; some ten minutes on two
cores, going on where it was broken off.  `--source` names an unpacked llama-cpp-python instead.
Needs cmake, ninja and a C++ compiler.  GROVE_LLAMA_TOOLS names another folder of the two programs.
"""

from __future__ import annotations

import argparse
import http.client
import importlib.util
import json
import os
import shlex
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent.parent
_PLACE: Final = ROOT / ".build" / "llama-tools"
_PROGRAMS: Final = ("llama-bench", "llama-server")
_LOCK: Final = ROOT / "packaging" / "requirements" / "engine.txt"
_WAIT_S: Final = 900.0


# --- building ----------------------------------------------------------------------------------


def _engine_flags() -> list[str]:
    """The flags of the engine's own build, without those that leave the programs out."""
    spec = importlib.util.spec_from_file_location("setup_env", ROOT / "packaging" / "setup_env.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    flags = shlex.split(module.cmake_args("cpu"))
    return [flag for flag in flags if "LLAMA_BUILD_TOOLS" not in flag and "SERVER" not in flag]


def _fetch(folder: Path) -> Path:
    """The unpacked source of the locked version."""
    found = list(folder.glob("llama_cpp_python-*/pyproject.toml"))
    if found:
        return found[0].parent
    folder.mkdir(parents=True, exist_ok=True)
    words = ["--no-deps", "--no-binary", ":all:", "--no-build-isolation", "--require-hashes"]
    subprocess.run(
        [sys.executable, "-m", "pip", "download", *words, "-r", str(_LOCK), "-d", str(folder)],
        check=True,
    )
    with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
        archive.extractall(folder, filter="data")
    return next(folder.glob("llama_cpp_python-*/pyproject.toml")).parent


def build(source: Path | None, jobs: int) -> Path:
    """Build the two programs; the folder they are in."""
    base = (source or _fetch(_PLACE / "source")) / "vendor" / "llama.cpp"
    place = _PLACE / "build"
    options = ["-DCMAKE_BUILD_TYPE=Release", *_engine_flags()]
    options += ["-DLLAMA_BUILD_UI=OFF", "-DLLAMA_OPENSSL=OFF"]
    subprocess.run(["cmake", "-G", "Ninja", "-S", base, "-B", place, *options], check=True)
    subprocess.run(["ninja", "-C", place, f"-j{jobs}", *_PROGRAMS], check=True)
    return place / "bin"


def programs() -> Path:
    """The folder with the two programs; SystemExit with what to do when there is none."""
    folder = Path(os.environ.get("GROVE_LLAMA_TOOLS") or _PLACE / "build" / "bin")
    if not all((folder / name).is_file() for name in _PROGRAMS):
        raise SystemExit("Build llama.cpp's programs first: python -m tests.bench.llama_tools")
    return folder


# --- llama-bench -------------------------------------------------------------------------------


def bench_speed(
    weights: Path, threads: int, *, read: int = 0, written: int = 0, depth: int = 0
) -> float:
    """Tokens per second of one run of llama-bench, reading or writing, behind `depth` tokens."""
    command = [str(programs() / "llama-bench"), "-m", str(weights), "-t", str(threads)]
    command += ["-p", str(read), "-n", str(written), "-d", str(depth), "-r", "1", "-o", "json"]
    if read:
        command.append("--no-warmup")  # the engine reads its prompt for the first time, too
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout)[0]["avg_ts"])


# --- llama-server ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answer:
    """What one request took: by this process's clock, in tokens read and written."""

    seconds: float
    read: int
    written: int


class Server:
    """A running llama-server.  `complete` may be called from several threads."""

    def __init__(self, weights: Path, threads: int, context: int, options: Sequence[str]) -> None:
        """`options` are llama-server's own; RuntimeError when it does not start."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        words = f"--port {self._port} -t {threads} -c {context} --offline --fit off --no-webui"
        self._process = subprocess.Popen(
            [programs() / "llama-server", "-m", weights, *words.split(), *options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 120
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.close()
                raise RuntimeError(f"llama-server does not start with {weights.name} {options}")
            time.sleep(0.05)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def _is_ready(self) -> bool:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=5)
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except OSError:
            return False

    def complete(
        self, prompt: Sequence[int], written: int, *, slot: int = -1, copies: int = 1
    ) -> Answer:
        """Write `written` tokens behind a prompt, `copies` times (`n_cmpl`), in slot `slot`.

        Sampled at temperature 1 from all tokens, as the engine's side of these benchmarks.
        """
        body = json.dumps(
            {
                "prompt": list(prompt),
                "n_predict": written,
                "n_cmpl": copies,
                "id_slot": slot,
                "samplers": ["temperature"],
                "temperature": 1.0,
                "ignore_eos": True,
                "cache_prompt": True,
                "seed": 1,
            }
        )
        # A new one each time, outside of what is measured: the server closes idle ones.
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=_WAIT_S)
        connection.connect()
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        started = time.perf_counter()
        connection.request("POST", "/completion", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        told: Any = json.loads(response.read())
        seconds = time.perf_counter() - started
        connection.close()
        if response.status != 200:
            raise RuntimeError(f"llama-server answers {response.status}: {told}")
        answers = told if isinstance(told, list) else [told]
        return Answer(
            seconds,
            sum(max(0, answer["timings"]["prompt_n"]) for answer in answers),
            sum(answer["timings"]["predicted_n"] for answer in answers),
        )

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait()


def main() -> int:
    """Build the programs and say where they are."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, help="an unpacked llama-cpp-python")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    print(build(args.source, args.jobs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
