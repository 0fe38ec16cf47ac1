"""Views of the web page, what must stand in each, and what must hold for all of them. Used by `scripts/check-web`."""

import json

LAPTOP, PHONE = (1440, 900, False), (390, 844, True)


def names_of_controls(page):
    """Controls that have no name for who cannot see them."""
    roles = {"button", "link", "textbox", "searchbox", "checkbox", "spinbutton", "combobox", "img", "image", "region", "dialog", "table", "navigation"}
    for node in page.ask("Accessibility.getFullAXTree")["nodes"]:
        role = node.get("role", {}).get("value")
        if not node.get("ignored") and role in roles and not str(node.get("name", {}).get("value", "")).strip():
            yield f"a {role} without a name"


def look(browser, url, route, wanted, size=LAPTOP, colours="light"):
    """Opens a view and waits for what must stand in it; `wanted` are expressions that must come true."""
    page = browser.page()
    page.size(*size)
    page.colours(colours)
    page.open(f"{url}/#/{route}")
    for what in wanted:
        page.until(what, f"{route}: {what}")
    return page


def check(page, route, size, colours, shots):
    """What holds for every view, at a size and in the colours of the system."""
    page.size(*size)
    page.colours(colours)
    page.until(f"document.documentElement.dataset.theme === '{colours}'", f"{route}: the colours follow the system")
    page.until("document.documentElement.scrollWidth <= innerWidth", f"{route} is not wider than a screen of {size[0]} px", 5)
    nameless = list(names_of_controls(page))
    assert not nameless, f"{route}: {nameless}"
    if shots:
        page.shot(shots / f"{route.replace('/', '-')}-{size[0]}-{colours}.png", whole=True)
    assert not page.complaints, f"{route}: the console says {page.complaints}"


def text(part, among="main"):
    return f"document.querySelector('{among}').innerText.includes({json.dumps(part)})"


def views():
    """Each view with what must stand in it."""
    figure = "[...document.querySelectorAll('.figure')].find((one) => one.querySelector('dt').innerText === {})"
    yield "jobs", [text("clicks"), text("ended"), text("finished"), "document.querySelector('tbody .load .busy')", f"/^2(\\.\\d+)? ?k?|^1\\d\\d\\d|^2\\d\\d\\d/.test({figure.format(json.dumps('Rows in'))}.querySelector('dd').innerText)"]
    yield "jobs/ended", [f"{figure.format(json.dumps('Rows in'))}.title.startsWith('4 321 rows')", text("finished"), text("source numbers")]
    yield "jobs/clicks", [text("running"), "document.querySelectorAll('.card').length >= 2", "document.querySelectorAll('.stream').length >= 1", "document.querySelectorAll('.chart').length === 7",
                          f"/^<?\\d.* m?s$/.test({figure.format(json.dumps('Row latency'))}.querySelector('dd > span').innerText)",
                          "[...document.querySelectorAll('.chart .line')].filter((line) => line.getAttribute('d')).length >= 4", "/\\d\\/s/.test(document.querySelector('.operator .flow').innerText)"]
    yield "jobs/clicks/subtasks", ["document.querySelectorAll('tbody tr').length >= 4", text("source clicks")]
    yield "jobs/clicks/checkpoints", [text("published"), "document.querySelector('.phases i')", "[...document.querySelectorAll('td [title]')].some((one) => /subtask \\d.*; .*(aligned|captured|waited|uploaded) \\d+ ms/.test(one.title))"]
    yield "jobs/clicks/exceptions", [text("No attempt has failed"), text("Every record could be decoded")]
    yield "jobs/clicks/lineage", [text("counts"), "document.querySelectorAll('.lineage path').length === 2", "document.querySelector('[aria-label^=\"clicks comes from no column\"]')"]
    yield "jobs/clicks/events", [text("epoch")]
    yield "jobs/clicks/configuration", [text("datagen"), text("rows-per-second"), text("2000")]
    yield "cluster", [text("coordinator 1"), text("leader"), text("of 8")]
    yield "audit", [text("job-submitted"), text("clicks")]
    yield "sql", ["document.getElementById('sql-text')", text("Take an example")]
