"""What the web page's files promise without being run: the contrast of its colours, and that nothing in them is forbidden by
its content security policy or comes from elsewhere. Used by `scripts/check-web`."""

import re

# Text needs 4.5:1, what is drawn 3:1 (WCAG 2.1, level AA). Each name of a colour against all grounds on which it stands.
TEXT = 4.5
DRAWN = 3.0
PAIRS = [
    (TEXT, ["text", "muted", "accent", "bad", "warn", "ok"], ["ground", "surface", "sunken"]),
    (TEXT, ["accent"], ["accent-soft"]),
    (TEXT, ["ok"], ["ok-soft"]),
    (TEXT, ["warn"], ["warn-soft"]),
    (TEXT, ["bad"], ["bad-soft"]),
    (TEXT, ["idle"], ["idle-soft"]),
    (TEXT, ["on-accent"], ["accent"]),
    (TEXT, ["code-keyword", "code-string", "code-number", "code-comment", "text"], ["surface"]),
    (TEXT, ["text"], ["bad-soft"]),
    (DRAWN, ["line-strong", "blocked", "warn"], ["surface", "sunken"]),
    (DRAWN, ["series-1", "series-2", "series-3", "series-4"], ["surface"]),
    (DRAWN, ["busy", "blocked"], ["idle-soft"]),
]

FORBIDDEN = {
    "html": [r"<script(?![^>]*\bsrc=)", r"<style", r"\sstyle=", r"\son\w+=", r"https?://"],
    "css": [r"@import", r"url\(", r"https?://"],
    "js": [r"\binnerHTML\b", r"\bouterHTML\b", r"insertAdjacentHTML", r"document\.write", r"\beval\(", r"new Function", r"setTimeout\(['\"`]", r"\bdebugger\b", r"console\.", r"https?://(?!www\.w3\.org/2000/svg)"],
}


def colours(text, selector):
    block = re.search(re.escape(selector) + r"\s*\{([^}]*)\}", text).group(1)
    return dict(re.findall(r"--([\w-]+):\s*(#[0-9a-f]{6})\b", block))


def luminance(colour):
    channels = [int(colour[at:at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one, other):
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def weak_colours(web):
    """What is too hard to tell apart, in light and dark."""
    text = (web / "style/tokens.css").read_text(encoding="utf-8")
    for theme, selector in (("light", ":root"), ("dark", ":root[data-theme='dark']")):
        palette = colours(text, selector)
        for least, fronts, grounds in PAIRS:
            for front in fronts:
                for ground in grounds:
                    found = contrast(palette[front], palette[ground])
                    if found < least:
                        yield f"{theme}: {front} on {ground} has a contrast of {found:.2f}, which must be {least}"


def forbidden(web):
    """Whatever the files must not hold, and files that are not in the list of them."""
    listed = (web / "FILES").read_text(encoding="utf-8").split()
    there = sorted(str(path.relative_to(web)) for path in web.rglob("*") if path.is_file() and path.name != "FILES")
    if sorted(listed) != there:
        yield f"FILES must list what is there, sorted: {sorted(set(listed) ^ set(there))}"
    for name in there:
        text = (web / name).read_text(encoding="utf-8")
        for pattern in FORBIDDEN.get(name.rsplit(".", 1)[-1], []):
            for found in re.finditer(pattern, text):
                line = text.count("\n", 0, found.start()) + 1
                yield f"{name}:{line}: {found.group(0).strip()!r} must not be here"
