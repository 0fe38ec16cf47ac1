"""Figures as Markdown."""

import math
import os
import platform
import subprocess
from pathlib import Path

ENGINES = ("flink", "mainstem")
FIGURES = [("wall s", lambda v: f"{v:.2f}"), ("CPU s", lambda v: f"{v:.2f}"), ("peak MB", lambda v: f"{v / 1e6:.0f}")]


def machine(root, binary):
    model = next((line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if line.startswith("model name")), platform.machine())
    revision = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=root, capture_output=True, text=True, check=False).stdout.strip()
    return f"{os.cpu_count()} cores, {model}; mainstem {binary or revision or 'unknown'}"


def geometric_mean(values):
    return math.exp(sum(map(math.log, values)) / len(values))


def alone(medians, rows):
    """Mainstem's figures. `medians` is {query: {engine: (wall, CPU, bytes)}}, `rows` is {query: rows read}."""
    lines = ["| query | wall s | CPU s | rows/s | rows/CPU s | peak MB |", "|---|---:|---:|---:|---:|---:|"]
    for query, engines in medians.items():
        if "mainstem" in engines:
            wall, cpu, peak = engines["mainstem"]
            lines.append(f"| {query} | {wall:.2f} | {cpu:.2f} | {rows[query] / wall:,.0f} | {rows[query] / cpu:,.0f} | {peak / 1e6:.0f} |")
        else:
            lines.append(f"| {query} | failed | | | | |")
    return "\n".join(lines)


def beside(medians):
    """Both engines' figures, how many times Mainstem's Flink's are, and the geometric means of that. Of several Flinks
    (all engines but one) each query takes the one that needs the least CPU."""
    head, rule = "| query |", "|---|"
    for name, _ in FIGURES:
        head += f" {name}: Flink | Mainstem | ratio |"
        rule += "---:|---:|---:|"
    lines, found = [head, rule], []
    for query, engines in medians.items():
        best = min((name for name in engines if name != "mainstem"), key=lambda name: engines[name][1], default="flink")
        engines = {("flink" if name == best else name): engines[name] for name in engines if name in (best, "mainstem")}
        cells, both = [], all(engine in engines for engine in ENGINES)
        for i, (_, shown) in enumerate(FIGURES):
            cells += [shown(engines[engine][i]) if engine in engines else "failed" for engine in ENGINES]
            cells.append(f"**{engines['flink'][i] / engines['mainstem'][i]:.2f}**" if both else "")
        if both:
            found.append([engines["flink"][i] / engines["mainstem"][i] for i in range(len(FIGURES))])
        shown = query if best == "flink" else f"{query} ({best})"
        lines.append(f"| {shown} | " + " | ".join(cells) + " |")
    if found:
        means = [geometric_mean(column) for column in zip(*found)]
        lines.append(f"| geometric mean of {len(found)} | " + " | ".join(f" | | **{mean:.2f}**" for mean in means) + " |")
    return "\n".join(lines)
