#!/usr/bin/env bash
# Brings Flink 2.3 from PyPI into the directory of the benchmarks, for `benches/nexmark.py --flink` and `recover.py --flink`. Needs python3
# (3.9 to 3.12) with venv, and a JDK, 11 or 17. Can be repeated; about 1.5 GB.
#
#   benches/flink/setup.sh [DIRECTORY]      default: $MAINSTEM_BENCH, else ~/.cache/mainstem-bench
set -euo pipefail

directory=${1:-${MAINSTEM_BENCH:-$HOME/.cache/mainstem-bench}}
for tool in java javac jar; do
  command -v "$tool" >/dev/null || { echo "$tool is missing: install a JDK, version 17 (Debian: default-jdk-headless)" >&2; exit 2; }
done
mkdir -p "$directory"
[ -x "$directory/venv/bin/python" ] || python3 -m venv "$directory/venv"
"$directory/venv/bin/python" -c 'import pyflink' 2>/dev/null ||
  "$directory/venv/bin/pip" install --quiet 'apache-flink==2.3.*'
"$directory/venv/bin/python" -c 'from pyflink.version import __version__; print("flink", __version__, "is ready")'
