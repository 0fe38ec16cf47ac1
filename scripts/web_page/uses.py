"""What users do with the web page. Used by `scripts/check-web`; the last one kills the server."""

import socket
import time

from looks import LAPTOP, PHONE, look, names_of_controls, text
from ports import free_port

# The last line has the error; its message repeats the text, which must not become part of the page.
WRONG = "CREATE TABLE t (a INT) WITH ('connector' = 'datagen');\nCREATE TABLE u (a INT) WITH ('connector' = 'blackhole');\nINSERT INTO u SELECT `<img src=x onerror=alert(1)>` FROM t;\n"

# Changes for almost half a second, then ends; its second column is NULL, its third wider than a phone.
CHANGING = "CREATE TABLE t (a INT) WITH ('connector' = 'datagen', 'rows-per-second' = '100', 'number-of-rows' = '40');\nSELECT COUNT(*) AS so_far, CAST(NULL AS STRING) AS nothing, REPEAT('wide ', 30) AS wide FROM t;\n"
FAILING = "CREATE TABLE gone (a INT) WITH ('connector' = 'filesystem', 'path' = 'absent', 'format' = 'json');\nSELECT a FROM gone;\n"


def wait_for(port):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with socket.socket() as attempt:
            if attempt.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError(f"nobody listens on port {port}")


def by_keyboard(browser, server, shots):
    """What a user does, without a mouse."""
    page = look(browser, server.url, "jobs/clicks", ["document.querySelector('.card')"])
    page.press("Tab")
    assert page.value("document.activeElement.className") == "skip", "the first stop is the link to the content"
    page.press("Enter")
    assert page.value("document.activeElement.id") == "main"
    page.value("document.querySelector('.card[tabindex=\"0\"]').focus()")
    first = page.value("document.activeElement.id")
    page.press("ArrowRight")
    page.until(f"document.activeElement.id !== '{first}' && document.activeElement.matches('.card')", "the arrow leads to the next task")
    page.press("Enter")
    page.until("document.querySelector('.details tbody tr')", "the details of the task")
    page.press("Escape")
    page.until("!document.querySelector('.details')", "the details are closed")
    assert page.value("document.activeElement.matches('.card')"), "the focus is on the task again"
    page.press("?")
    page.until("document.querySelector('dialog[open]')", "the list of keys")
    assert not list(names_of_controls(page))
    page.press("Escape")
    page.until("!document.querySelector('dialog')", "the list is closed")
    assert page.value("document.activeElement.matches('.card')"), "the focus is where it was"
    # A figure is renewed, and nothing else: the card is the same element.
    page.value("globalThis.kept = document.querySelector('.card'); globalThis.before = document.querySelector('.figure').title; 1")
    page.until("document.querySelector('.figure').title !== before", "new figures")
    assert page.value("kept.isConnected && kept === document.querySelector('.card')"), "the graph was drawn anew"
    page.press("g")
    page.press("j")
    page.until("location.hash === '#/jobs' && document.querySelector('#filter')", "the list of jobs")
    page.press("/")
    page.until("document.activeElement.id === 'filter'", "the filter")
    page.type("ended")
    page.until("document.querySelectorAll('tbody tr').length === 1", "one job is left")
    assert not page.complaints, page.complaints


def editing(browser, server, shots):
    """The editor: an error is marked where it is, the example is valid, and becomes a job that can be acted on."""
    page = look(browser, server.url, "sql", ["document.getElementById('sql-text')"], colours="dark")
    page.value("document.getElementById('sql-text').focus()")
    page.type(WRONG)
    page.until("document.querySelector('.editor.invalid .text .wrong')", "the error is marked")
    assert page.value("document.querySelector('.numbers .wrong').innerText") == "3", "the line of the error"
    assert page.value("document.querySelectorAll('img').length") == 0, "text of the server has become part of the page"
    if shots:
        page.shot(shots / "sql-wrong.png")
    page.value("document.getElementById('sql-text').select()")
    page.press("Delete")
    page.click("Take an example")
    page.until(text("valid") + " && !document.querySelector('.editor.invalid')", "the example is valid")
    page.value("document.getElementById('sql-text').focus()")
    page.ask("Input.dispatchKeyEvent", {"type": "keyDown", "key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "modifiers": 2})
    page.until("document.querySelectorAll('.card').length >= 2 && document.querySelector('.plan').innerText.includes('clicks')", "the plan of the example")
    if shots:
        page.shot(shots / "sql-explained.png", whole=True)
    page.click("Submit…")
    page.until("document.querySelector('dialog[open] input')", "the question before a job is submitted")
    page.value("document.querySelector('dialog input').focus()")
    page.type("from-the-page")
    page.press("Enter")
    page.until("location.hash === '#/jobs/from-the-page' && " + text("running"), "the new job runs")
    act(page, "Rescale…", "2")
    page.until(text("2 subtasks a task") + " && " + text("running"), "it runs with two subtasks")
    act(page, "Savepoint…", str(server.directory / "savepoints"))
    page.until(text("Last savepoint:"), "the savepoint is taken")
    act(page, "Stop…")
    page.until(text("stopped"), "the job has stopped")
    server.until("jobs/from-the-page", lambda answer: answer["job"]["state"] == "stopped", "the server says so too")
    assert not page.complaints, page.complaints
    act(page, "Forget…")
    page.until("location.hash === '#/jobs' && !" + text("from-the-page"), "the job is forgotten")
    # What the page had asked of the job just before finds none, which the browser notes by itself.
    complaints = [one for one in page.complaints if not ("status of 404" in one and "/jobs/from-the-page" in one)]
    assert not complaints, complaints


def previewing(browser, server, shots):
    """The rows of the query at the cursor, by the keyboard: changes with their kinds, errors as those of a check, and no job."""
    page = look(browser, server.url, "sql", ["document.getElementById('sql-text')"])
    write(page, CHANGING)
    shown_by_keys(page)
    page.until("document.querySelectorAll('.previewed tbody tr').length > 2 && " + text("that is all"), "the changes of the query")
    kinds = page.value("[...document.querySelectorAll('.previewed .kind')].map((one) => one.innerText).slice(0, 3).join(' ')")
    assert kinds == "+I -U +U", f"the first changes are {kinds}"
    assert page.value("document.querySelector('.previewed tbody').innerText.includes('NULL')") and page.value(text("40 rows read"))
    for size, colours in ((LAPTOP, "light"), (LAPTOP, "dark"), (PHONE, "dark"), (PHONE, "light")):
        page.size(*size)
        page.colours(colours)
        page.until(f"document.documentElement.dataset.theme === '{colours}'", "the colours follow the system")
        page.until("document.documentElement.scrollWidth <= innerWidth", f"rows are not wider than a screen of {size[0]} px", 5)
        if shots:
            page.shot(shots / f"sql-preview-{size[0]}-{colours}.png", whole=True)
    assert not list(names_of_controls(page))
    page.size(*LAPTOP)
    write(page, FAILING)
    shown_by_keys(page)
    page.until("document.querySelector('[role=alert] pre') && " + text("cannot read 'absent'"), "why the query failed")
    write(page, WRONG)
    shown_by_keys(page)
    page.until("document.querySelector('.editor.invalid .text .wrong') && document.getElementById('sql-text').selectionStart > 0", "the error is marked")
    # One that does not end by itself runs until it is stopped, or its time is over.
    write(page, server.live)
    page.click("Preview")
    page.until("document.querySelector('progress') && " + text("Stop preview"), "the preview runs")
    page.click("Stop preview")
    page.until("!document.querySelector('progress')", "the preview is stopped")
    page.click("Preview")
    page.until("document.querySelectorAll('.previewed tbody tr').length >= 5 && " + text("what came within"), "what came until then")
    if shots:
        page.shot(shots / "sql-preview-windows.png", whole=True)
    jobs = [job["job"] for job in server.ask("jobs")["jobs"]]
    assert jobs and not [job for job in jobs if "preview" in job], f"a preview has become a job: {jobs}"
    # The browser notes refusals by itself; two were asked for.
    complaints = [one for one in page.complaints if "status of 422" not in one]
    assert not complaints, complaints
    page.close()


def write(page, sql):
    """Puts another text into the editor, as a user does."""
    page.value("document.getElementById('sql-text').focus(); document.getElementById('sql-text').select()")
    page.press("Delete")
    page.type(sql)


def shown_by_keys(page):
    # As long as the page does not know what its user may do, keys do nothing.
    page.usable("Preview")
    page.ask("Input.dispatchKeyEvent", {"type": "keyDown", "key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "modifiers": 2 | 8})


def act(page, button, value=None):
    """Chooses an action, by the keyboard, and answers its question."""
    page.value(f"{page.button(button)}.focus()")
    page.press("Enter")
    page.until("document.querySelector('dialog[open] [type=submit]')", f"the question behind {button}")
    if value is None:
        page.value("document.querySelector('dialog [type=submit]').focus()")
    else:
        page.value("document.querySelector('dialog input').select()")
        page.type(value)
    page.press("Enter")
    page.until("!document.querySelector('dialog')", f"{button} was accepted")


def access(browser, server, shots):
    """A server that asks for a token: nothing is shown without one, and a viewer can do nothing."""
    server.tokens.write_text("anna viewer view-0123456789abcdef\nbert admin admin-0123456789abcdef\n")
    server.tokens.chmod(0o600)
    port, node = free_port(), free_port()
    server.start("coordinator", "--id", "1", "--members", f"1=127.0.0.1:{node}", "--data-dir", server.directory / "data2", "--state-dir", server.directory / "state2", "--http", str(port), "--http-token-file", server.tokens)
    wait_for(port)
    page = browser.page()
    page.size(*PHONE)
    page.colours("dark")
    page.open(f"http://127.0.0.1:{port}/#/sql")
    page.until("document.querySelector('dialog[open] input[type=password]')", "the token is asked for")
    page.type("wrong")
    page.press("Enter")
    page.until("document.querySelector('dialog .problem')", "a wrong token is refused")
    page.value("document.querySelector('dialog input').select()")
    page.type("view-0123456789abcdef")
    page.press("Enter")
    page.until("!document.querySelector('dialog') && " + text("Your role is viewer"), "a viewer is told so")
    if shots:
        page.shot(shots / "viewer.png")


def one_process(browser, server, shots):
    """`mainstem run` shows its one job, and says what it does not have."""
    port = free_port()
    (server.directory / "alone.sql").write_text(server.live)
    server.start("run", "alone.sql", "--http", str(port), "--state-dir", server.directory / "alone")
    wait_for(port)
    url = f"http://127.0.0.1:{port}"
    flows = "[...document.querySelectorAll('.operator .flow')].some((one) => /[1-9].*\\/s/.test(one.innerText))"
    look(browser, url, "jobs/alone", [text("running"), "document.querySelector('.card')", flows]).close()
    page = browser.page()
    page.open(f"{url}/#/cluster")
    page.until("document.querySelector('main .notice') && " + text("Workers"), "a single process has no coordinators, which is said")
    page.open(f"{url}/#/sql")
    page.until(text("This process runs one job"), "nothing can be submitted")
    page.close()


def lost(browser, server, shots):
    """What is shown stays and is marked as old when the server is gone."""
    page = look(browser, server.url, "jobs", [text("clicks")], colours="dark")
    for process in server.processes:
        process.kill()
    page.until("document.querySelector('#page.stale') && document.querySelector('.notices').innerText.includes('No new figures')", "the page says that it is not live")
    assert page.value(text("clicks")), "what was known is gone"
    if shots:
        page.shot(shots / "lost.png")


USES = (by_keyboard, editing, previewing, access, one_process, lost)
