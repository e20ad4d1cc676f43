"""Says what a machine lacks before anything is built, in words that can be acted on.

Runs under whatever `python3` is there, before the environment exists: standard library only.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys

PYTHON_MIN = (3, 11)
RUST_MIN = (1, 88)


def python_faults() -> list[str]:
    """Names what is wrong with the interpreter that runs this file.

    Returns:
        One sentence for each fault; empty when it can make the environment.
    """
    faults = []
    if sys.version_info < PYTHON_MIN:
        found = ".".join(str(part) for part in sys.version_info[:3])
        faults.append(
            f"Python {found} is too old, 3.11 is needed: make PYTHON=python3.12 …, or install one"
        )
    if importlib.util.find_spec("ensurepip") is None:
        faults.append("Python cannot make environments: apt install python3-venv")
    return faults


def rust_faults() -> list[str]:
    """Names what is wrong with the Rust toolchain and the C compiler.

    Returns:
        One sentence for each fault; empty when the engine can be built.
    """
    faults = []
    cargo = shutil.which("cargo")
    if cargo is None:
        faults.append("cargo is missing: install Rust from https://rustup.rs")
    else:
        said = subprocess.run([cargo, "--version"], capture_output=True, text=True, check=False)
        version = re.search(r"(\d+)\.(\d+)", said.stdout)
        if version is None:
            faults.append(f"cargo does not run: {said.stderr.strip() or 'it printed no version'}")
        elif (int(version[1]), int(version[2])) < RUST_MIN:
            faults.append(f"Rust {version[0]} is too old, 1.88 is needed: rustup update stable")
    # The cryptography under TLS is C and assembly.
    if shutil.which("cc") is None:
        faults.append("a C compiler is missing: apt install gcc (or xcode-select --install)")
    return faults


def main() -> int:
    """Prints each fault; the exit status is 1 when there is one."""
    faults = python_faults() + rust_faults()
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
