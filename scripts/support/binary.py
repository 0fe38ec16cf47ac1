"""The program that the checks of this directory run."""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def built():
    """The binary as the tests build it: another set of features would build half of the dependencies again."""
    subprocess.run(["cargo", "test", "--locked", "--workspace", "--no-run", "--quiet"], cwd=ROOT, check=True)
    return Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug/mainstem"
