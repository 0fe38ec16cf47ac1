"""Builds the Nexmark generator for Flink from `nexmark-source/`: the same events as Mainstem's, bit for bit. Flink's
distribution has no such connector, and Nexmark's own is not published."""

import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path

SOURCE = Path(__file__).resolve().parent / "nexmark-source"


class BuildError(Exception):
    """The generator cannot be built."""


def jar(directory, flink_home):
    """The jar in a directory, built where it is missing or older than its source."""
    files = sorted(file for file in SOURCE.rglob("*") if file.is_file())
    digest = hashlib.sha256(b"".join(str(file.relative_to(SOURCE)).encode() + file.read_bytes() for file in files))
    target = Path(directory) / f"nexmark-source-{digest.hexdigest()[:12]}.jar"
    if not target.exists():
        build(target, [file for file in files if file.suffix == ".java"], flink_home)
    return target


def build(target, sources, flink_home):
    for tool in ("javac", "jar"):
        if not shutil.which(tool):
            raise BuildError(f"{tool} is missing: install a JDK, such as Debian's default-jdk-headless")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as classes:
        compile_command = ["javac", "--release", "11", "-Xlint:all,-processing,-classfile", "-Werror", "-cp", f"{flink_home / 'lib'}/*", "-d", classes]
        pack_command = ["jar", "--create", "--file", f"{classes}/made.jar", "-C", classes, "mainstem", "-C", str(SOURCE), "META-INF"]
        for command in ([*compile_command, *map(str, sources)], pack_command):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise BuildError(f"{command[0]} fails:\n{done.stdout}{done.stderr}")
        Path(classes, "made.jar").rename(target)
