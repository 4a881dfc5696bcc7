#!/usr/bin/env python3
"""Make the environment that Grove runs in: `.venv` in the checkout.

Needs Python 3.11 or newer, make and a C++ compiler, nothing else; uses the standard library only.
What it does, each step only where needed:

1. on Debian and Ubuntu, installs the system libraries that Qt loads (or prints the one line);
2. makes `.venv` and installs the locked requirements with their hashes;
3. compiles llama-cpp-python from source, showing progress, and keeps the wheel in the user's
   cache, so that the next environment does not compile again.

    python3 packaging/setup_env.py [--dev] [--accel cpu|cuda|vulkan|metal] [--venv DIR]
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ROOT / "packaging" / "requirements"

# Build what Grove needs only.  OpenMP off: its spinning threads collapse when another program
# wants a core, and ggml's own threads cost nothing in comparison when the machine is idle.
FLAGS = {
    "GGML_OPENMP": "OFF",
    "LLAVA_BUILD": "OFF",
    "LLAMA_CURL": "OFF",
    "LLAMA_BUILD_TOOLS": "OFF",
    "LLAMA_BUILD_TESTS": "OFF",
    "LLAMA_BUILD_EXAMPLES": "OFF",
    "LLAMA_BUILD_SERVER": "OFF",
}
ACCEL_FLAGS = {
    "cpu": {},
    "cuda": {"GGML_CUDA": "ON"},
    "vulkan": {"GGML_VULKAN": "ON"},
    "metal": {"GGML_METAL": "ON"},
}

# Shared library that Qt loads -> Debian package that holds it.
QT_LIBRARIES = {
    "libEGL.so.1": "libegl1",
    "libGL.so.1": "libgl1",
    "libdbus-1.so.3": "libdbus-1-3",
    "libfontconfig.so.1": "libfontconfig1",
    "libglib-2.0.so.0": "libglib2.0-0",
    "libxkbcommon.so.0": "libxkbcommon0",
    "libxkbcommon-x11.so.0": "libxkbcommon-x11-0",
    "libX11-xcb.so.1": "libx11-xcb1",
    "libxcb-cursor.so.0": "libxcb-cursor0",
    "libxcb-icccm.so.4": "libxcb-icccm4",
    "libxcb-image.so.0": "libxcb-image0",
    "libxcb-keysyms.so.1": "libxcb-keysyms1",
    "libxcb-randr.so.0": "libxcb-randr0",
    "libxcb-render-util.so.0": "libxcb-render-util0",
    "libxcb-shape.so.0": "libxcb-shape0",
    "libxcb-shm.so.0": "libxcb-shm0",
    "libxcb-sync.so.1": "libxcb-sync1",
    "libxcb-xfixes.so.0": "libxcb-xfixes0",
    "libxcb-xkb.so.1": "libxcb-xkb1",
}
# "Building CXX object …" lines of ninja begin with this counter.
NINJA_STEP = re.compile(r"^\s*\[(\d+)/(\d+)\]")


def say(text: str) -> None:
    """Print a line of progress at once."""
    print(f"grove: {text}", flush=True)


def fail(text: str) -> None:
    """End with one sentence for the person at the terminal."""
    sys.exit(f"grove: {text}")


def run_quietly(command: list[str], what: str, *, env: dict[str, str] | None = None) -> None:
    """Run `command`; show its output only if it fails.

    Where it takes long a dot a second says that it lives.
    """
    with tempfile.TemporaryFile("w+") as log:
        with subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=env) as process:
            started = time.monotonic()
            while True:
                try:
                    process.wait(timeout=1)
                    break
                except subprocess.TimeoutExpired:
                    if sys.stdout.isatty():
                        seconds = int(time.monotonic() - started)
                        print(f"\rgrove: {what} … {seconds} s", end="", flush=True)
        if sys.stdout.isatty():
            print("\r\033[K", end="")
        if process.returncode:
            log.seek(0)
            print(log.read()[-8000:], file=sys.stderr)
            fail(f"{what} failed; the lines above say why.")


def is_missing(library: str) -> bool:
    """Whether the dynamic loader cannot find `library`."""
    try:
        ctypes.CDLL(library)
    except OSError:
        return True
    return False


def apt_prefix() -> list[str] | None:
    """The command words before apt-get that may install here; None where nothing may."""
    if os.geteuid() == 0:
        return []
    sudo = shutil.which("sudo")
    if (
        sudo
        and subprocess.run([sudo, "-n", "true"], capture_output=True, check=False).returncode == 0
    ):
        return [sudo, "-n"]
    return None


def apt_install(packages: list[str], why: str) -> bool:
    """Install Debian packages where we may, else print the line to run.  True when installed."""
    line = f"apt-get install -y --no-install-recommends {' '.join(packages)}"
    if not shutil.which("apt-get"):
        say(f"{why}. Install what your system calls: {' '.join(packages)}")
        return False
    prefix = apt_prefix()
    if prefix is None:
        say(f"{why}. Run this once, then try again:\n    sudo {line}")
        return False
    say(f"{why}: installing {' '.join(packages)}")
    env = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    run_quietly([*prefix, "apt-get", "update", "-qq"], "reading the package lists", env=env)
    run_quietly([*prefix, *line.split()], "installing system libraries", env=env)
    return True


def ensure_system_libraries() -> None:
    """Make sure that Qt finds its libraries (Linux only)."""
    if platform.system() != "Linux":
        return
    packages = sorted({deb for lib, deb in QT_LIBRARIES.items() if is_missing(lib)})
    if packages:
        apt_install(packages, "Qt needs some system libraries")
    if not any(shutil.which(name) for name in ("c++", "g++", "clang++")):
        fail("no C++ compiler found. Install one (Debian and Ubuntu: apt-get install g++).")


def make_venv(venv: Path) -> Path:
    """Create the virtual environment where it is missing; return its Python."""
    folder = "Scripts" if os.name == "nt" else "bin"
    python = venv / folder / ("python.exe" if os.name == "nt" else "python")
    works = (
        python.exists()
        and subprocess.run(
            [str(python), "-m", "pip", "--version"], capture_output=True, check=False
        ).returncode
        == 0
    )
    if works:
        return python
    say(f"making {venv.name} with Python {platform.python_version()}")
    command = [sys.executable, "-m", "venv", "--clear", str(venv)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        # Debian splits ensurepip off into a package of its own.
        name = f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
        if not apt_install([name], "Python lacks its venv part"):
            fail(f"could not make {venv}: {done.stdout.strip() or done.stderr.strip()}")
        run_quietly(command, "making the environment")
    return python


def pip(python: Path, *words: str) -> list[str]:
    """A pip command line of `python`, without the noise."""
    quiet = ["--disable-pip-version-check", "--no-input"]
    return [str(python), "-m", "pip", words[0], *quiet, *words[1:]]


def cmake_args(accel: str) -> str:
    """The CMAKE_ARGS for llama-cpp-python; the user's own come last and win."""
    flags = FLAGS | ACCEL_FLAGS[accel]
    ours = " ".join(f"-D{name}={value}" for name, value in flags.items())
    return f"{ours} {os.environ.get('CMAKE_ARGS', '')}".strip()


def cpu_identity() -> str:
    """What decides the machine code of a native build: the processor and its features."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


def wheel_folder(accel: str) -> Path:
    """Where the compiled wheel for this version, these flags and this processor is kept."""
    base = os.environ.get("GROVE_BUILD_CACHE")
    if not base:
        home = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
        base = str(Path(home or Path.home() / ".cache") / "grove" / "build")
    key = hashlib.sha256()
    lock = (LOCKS / "engine.txt").read_text(encoding="utf-8")
    for part in (lock, cmake_args(accel), platform.platform(), platform.machine(), cpu_identity()):
        key.update(part.encode() + b"\0")
    return Path(base) / key.hexdigest()[:16]


def show_build(lines: Iterator[str]) -> list[str]:
    """Show ninja's counter as one progress line; return the last lines for an error."""
    last: list[str] = []
    shown = -1
    started = time.monotonic()
    for line in lines:
        last = [*last[-60:], line.rstrip()]
        step = NINJA_STEP.match(line)
        if not step:
            continue
        percent = 100 * int(step[1]) // max(1, int(step[2]))
        seconds = int(time.monotonic() - started)
        text = f"grove: compiling llama.cpp, {percent} % after {seconds} s"
        if sys.stdout.isatty():
            print(f"\r{text}\033[K", end="", flush=True)
        elif percent // 10 != shown // 10:
            print(text, flush=True)
        shown = percent
    if sys.stdout.isatty():
        print("\r\033[K", end="")
    return last


def build_engine(accel: str, folder: Path) -> None:
    """Compile the wheel into `folder`; it appears there whole or not at all."""
    say("compiling llama.cpp once for this computer, about 5 to 10 minutes on 2 cores")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="build-", dir=folder.parent) as scratch:
        tools = make_venv(Path(scratch) / "tools")
        run_quietly(
            pip(tools, "install", "--require-hashes", "-r", str(LOCKS / "build.txt")),
            "fetching the build tools",
        )
        out = Path(scratch) / "wheel"
        words = ["--require-hashes", "--no-deps", "--no-build-isolation", "--no-cache-dir", "-v"]
        words += ["--no-binary", "llama-cpp-python", "-r", str(LOCKS / "engine.txt")]
        env = dict(os.environ, CMAKE_ARGS=cmake_args(accel))
        env["PATH"] = f"{tools.parent}{os.pathsep}{env.get('PATH', '')}"
        env.setdefault("CMAKE_BUILD_PARALLEL_LEVEL", str(os.cpu_count() or 2))
        env.setdefault("CMAKE_GENERATOR", "Ninja")
        with subprocess.Popen(
            pip(tools, "wheel", *words, "-w", str(out)),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=env,
        ) as process:
            assert process.stdout is not None
            last = show_build(iter(process.stdout))
        if process.returncode:
            print("\n".join(last), file=sys.stderr)
            fail("compiling llama.cpp failed; the lines above say why.")
        shutil.rmtree(folder, ignore_errors=True)
        out.replace(folder)


def install_engine(python: Path, accel: str) -> None:
    """Install llama-cpp-python, from the kept wheel where there is one."""
    folder = wheel_folder(accel)
    if not any(folder.glob("*.whl")):
        build_engine(accel, folder)
    wheel = next(folder.glob("*.whl"))
    words = ["--no-deps", "--no-index", "--force-reinstall", str(wheel)]
    run_quietly(pip(python, "install", *words), "installing llama.cpp")


def stamp_text(accel: str, *, dev: bool) -> str:
    """Changes whenever the environment has to be looked at again."""
    key = hashlib.sha256(f"{accel} {dev} {sys.version} {cmake_args(accel)}".encode())
    for name in ("run.txt", "dev.txt", "engine.txt"):
        key.update((LOCKS / name).read_bytes())
    return key.hexdigest()


def main() -> None:
    """Bring the environment up to date; quick when it is."""
    parser = argparse.ArgumentParser(description="Make the environment that Grove runs in.")
    parser.add_argument("--dev", action="store_true", help="with what the checks need")
    parser.add_argument("--accel", default="cpu", choices=sorted(ACCEL_FLAGS))
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv")
    args = parser.parse_args()
    if sys.version_info < (3, 11):  # noqa: UP036 - started by whatever python3 the machine has
        fail(f"Grove needs Python 3.11 or newer, this is {platform.python_version()}.")
    # A run environment that holds the development tools as well is up to date, too.
    stamp = args.venv / "grove-environment"
    fresh = {stamp_text(args.accel, dev=True)}
    if not args.dev:
        fresh.add(stamp_text(args.accel, dev=False))
    if stamp.exists() and stamp.read_text(encoding="utf-8") in fresh:
        return
    ensure_system_libraries()
    python = make_venv(args.venv)
    stamp.unlink(missing_ok=True)
    say("installing the locked requirements")
    lock = LOCKS / ("dev.txt" if args.dev else "run.txt")
    words = ["--require-hashes", "--only-binary", ":all:", "-r", str(lock)]
    run_quietly(pip(python, "install", *words), "installing the requirements")
    install_engine(python, args.accel)
    stamp.write_text(stamp_text(args.accel, dev=args.dev), encoding="utf-8")
    say("the environment is ready")


if __name__ == "__main__":
    main()
