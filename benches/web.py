#!/usr/bin/env python3
"""Whether the web page stays responsive while a cluster has many jobs: in a headless Chromium, with real jobs.

    benches/web.py                 50 small jobs of 10 subtasks each

The list of jobs is opened, then a job from there, its other views, back, and the list is filtered: --rounds times, each time another job.
Shown are, as the page itself measures them, the time from a click to the frame in which the new view stands with its figures, and tasks
of more than 50 ms on the thread that draws and takes keys (PerformanceObserver, `longtask`); and the CPU time of that thread for each
click. It fails where the page would be called sluggish: a view that takes longer than --click-ms by median, or a task longer than
--task-ms once the page has been opened. A long task counts only if the thread has computed for so long for a click, or in a second
without one: else it has waited for a core that something else used. See docs/benchmarks.md. It needs Chromium, which is installed
where there is none, and nothing else.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time

from api import SMALL_PARALLELISM, Processes, begin_many
from harness import api, mainstem

sys.path.append(str(mainstem.ROOT / "scripts/web_page"))
from browser import Browser  # noqa: E402  (found by the path above)

# Before the page's own scripts run. A view is there when its main part holds what is wanted and the frame has been drawn.
OBSERVER = """
globalThis.longTasks = [];
new PerformanceObserver((list) => {
  for (const task of list.getEntries()) longTasks.push({ at: task.startTime, ms: task.duration });
}).observe({ type: 'longtask', buffered: true });
globalThis.timed = (act, holds) => new Promise((done, failed) => {
  const began = performance.now();
  const look = () => {
    let is = false;
    try { is = Boolean(holds()); } catch { is = false; }
    if (is) requestAnimationFrame(() => setTimeout(() => done(performance.now() - began)));
    else if (performance.now() - began > 20000) failed(new Error(`not within 20 s: ${holds}`));
    else requestAnimationFrame(look);
  };
  act();
  look();
});
"""
LISTED = "document.querySelectorAll('tbody tr').length >= {jobs} && location.hash === '#/jobs'"
OF_JOB = "location.hash === '#/jobs/{job}' && document.querySelectorAll('.card').length >= 2 && document.querySelectorAll('.chart').length && document.querySelector('h1').innerText.includes('{job}')"
# Parts of a job's page, and what stands in each.
VIEWS = {
    "subtasks": f"document.querySelectorAll('tbody tr').length >= {2 * SMALL_PARALLELISM}",
    "checkpoints": "document.querySelector('tbody tr')",
    "lineage": "document.querySelector('.lineage path')",
    "events": "document.querySelector('main').innerText.includes('epoch')",
}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=50, help="default: 50")
    parser.add_argument("--rounds", type=int, default=20, help="jobs that are opened (default: 20)")
    parser.add_argument("--watch", type=float, default=30, help="seconds for which each of list and job is only looked at (default: 30)")
    parser.add_argument("--click-ms", type=float, default=500, help="from a click to its view, by median (default: 500)")
    parser.add_argument("--task-ms", type=float, default=200, help="the longest task (default: 200)")
    parser.add_argument("--binary", help="a built mainstem; default: builds target/release/mainstem")
    return parser.parse_args()


def chromium():
    found = subprocess.run([mainstem.ROOT / "scripts/install-chromium"], stdout=subprocess.PIPE, text=True, check=True)
    return found.stdout.split("\n")[-2]


def cpu_ms(page):
    """Milliseconds for which the page's thread has computed."""
    return next(1000 * metric["value"] for metric in page.ask("Performance.getMetrics")["metrics"] if metric["name"] == "TaskDuration")


def timed(page, act, holds):
    """Milliseconds from an act to what it must bring about, by the page's own clock, and those for which its thread has computed."""
    before = cpu_ms(page)
    passed = page.value(f"timed(() => {{ {act} }}, () => {holds})")
    return passed, cpu_ms(page) - before


def watched(page, seconds):
    """Only looks at the page; the milliseconds for which its thread has computed in each second."""
    for _ in range(round(seconds)):
        before = cpu_ms(page)
        time.sleep(1)
        yield cpu_ms(page) - before


def opened(browser, port, jobs):
    """The list of jobs, and milliseconds until it stood."""
    page = browser.page()
    page.size(1440, 900)
    page.ask("Page.addScriptToEvaluateOnNewDocument", {"source": OBSERVER})
    page.ask("Performance.enable", {"timeDomain": "threadTicks"})
    page.open(f"http://127.0.0.1:{port}/#/jobs")
    page.until(LISTED.format(jobs=jobs), "the list of jobs")
    return page, page.value("performance.now()")


def used(page, names, options):
    """`{what: [(milliseconds, those of CPU)]}` of what a user does with the page; and of CPU in each second of a user who only looks."""
    found, idle = {}, []

    def note(what, act, holds):
        found.setdefault(what, []).append(timed(page, act, holds))

    listed = LISTED.format(jobs=options.jobs)
    for number in range(options.rounds):
        job = names[number * 7 % len(names)]
        note("a job of the list", f"document.querySelector('a.name[href=\"#/jobs/{job}\"]').click()", OF_JOB.format(job=job))
        if number == 0:
            idle += watched(page, options.watch)
        for view, holds in VIEWS.items():
            note(f"its {view}", f"location.hash = '#/jobs/{job}/{view}'", f"location.hash.endsWith('{view}') && {holds}")
        note("back to the list", "location.hash = '#/jobs'", listed)
        typed = "const filter = document.getElementById('filter'); filter.value = '{}'; filter.dispatchEvent(new Event('input', {{ bubbles: true }}))"
        note("the list filtered", typed.format(job), "document.querySelectorAll('tbody tr').length < 12")
        note("and not any more", typed.format(""), "document.querySelectorAll('tbody tr').length >= " + str(options.jobs))
    idle += watched(page, options.watch)
    return found, idle


def main():
    options = arguments()
    program = mainstem.binary(options.binary)
    with tempfile.TemporaryDirectory(prefix="mainstem-web-") as directory, Processes(program, directory) as processes:
        asked, names = begin_many(processes, options.jobs)
        graphs = [asked.json(f"/api/v1/jobs/{name}/graph") for name in names]
        # Operators of a task run in the same subtasks.
        subtasks = sum(len({operator["task"]: 0 for operator in graph["operators"]}) * graph["parallelism"] for graph in graphs)
        browser = Browser(chromium())
        try:
            page, first_ms = opened(browser, processes.port, options.jobs)
            # What it takes to load the page is in that figure.
            loaded = page.value("performance.now()")
            before, began = processes.cpu(), time.monotonic()
            found, idle = used(page, names, options)
            cores = (processes.cpu() - before) / (time.monotonic() - began)
            tasks = page.value("longTasks")
            complaints = page.complaints
        finally:
            browser.close()
    later = [task["ms"] for task in tasks if task["at"] > loaded]
    walls, cpus = ({what: [pair[at] for pair in pairs] for what, pairs in found.items()} for at in (0, 1))
    longest, clicks = max(later, default=0), [ms for passes in walls.values() for ms in passes]
    most_cpu = max(*idle, *(ms for passes in cpus.values() for ms in passes))
    print("| from a click to | times | median ms | p95 ms | most ms | median CPU ms | most CPU ms |\n|---|---:|---:|---:|---:|---:|---:|")
    for what, passes in walls.items():
        print(f"| {what} | {len(passes)} | {statistics.median(passes):.0f} | {api.quantile(passes, 0.95):.0f} | {max(passes):.0f} | {statistics.median(cpus[what]):.0f} | {max(cpus[what]):.0f} |")
    print(f"\n{options.jobs} jobs, {subtasks} subtasks; the list stood {first_ms:.0f} ms after the page was asked for; meanwhile Mainstem used {cores:.2f} cores")
    print(f"all clicks: median {statistics.median(clicks):.0f} ms, most {max(clicks):.0f} ms; tasks of more than 50 ms after the page was loaded: {len(later)}, the longest {longest:.0f} ms; the page's thread computed at most {most_cpu:.0f} ms for a click, and {statistics.median(idle):.0f} ms in a second without one (median)")
    slow = [f"{what}: {statistics.median(passes):.0f} ms by median" for what, passes in walls.items() if statistics.median(passes) > options.click_ms]
    slow += [f"a task of {longest:.0f} ms, and {most_cpu:.0f} ms of CPU for a click or in a second without one"] if min(longest, most_cpu) > options.task_ms else []
    slow += [f"the console says {complaint}" for complaint in complaints]
    if slow:
        sys.exit("the page is not responsive: " + "; ".join(slow))


if __name__ == "__main__":
    main()
