#!/usr/bin/env python3
"""Turns text from a terminal into an SVG picture of it. Needs nothing but Python.

    ./dev demo --speed 60 > demo.txt
    python3 docs/img/render.py './dev demo --speed 60' < demo.txt > docs/img/demo.svg

The argument is the command to show above the text. The window has a background of its own, so the picture looks the same
on a light and on a dark page.
"""

import html
import re
import sys
import textwrap

COLUMNS = 130
CHARACTER, LINE, SIZE = 7.83, 18.5, 13
MARGIN, TITLE = 18, 34
BACKGROUND, BAR, FRAME = "#11161d", "#1b222c", "#3a4451"
TEXT, DIM, GREEN, RED, YELLOW, BLUE = "#d5dce4", "#8593a3", "#6fd08c", "#ff7b72", "#e3b341", "#79b8ff"

# What is drawn in a colour: the first rule that matches a line counts for the groups that it names.
RULES = [
    (re.compile(r"^(?P<blue>\$)(?P<text> .*)$"), False),
    (re.compile(r"^(?P<green>PASS)(?P<text>.*)$"), True),
    (re.compile(r"^(?P<red>FAIL)(?P<text>.*)$"), True),
    (re.compile(r"^(?P<yellow>INCONCLUSIVE|ERROR)(?P<text>.*)$"), True),
    (re.compile(r"^(?P<text>\d\. .*)$"), True),
    (re.compile(r"^(?P<dim> +\S+ +\S+ +)(?P<red>HIGH|LOW)(?P<text>.*)$"), False),
    (re.compile(r"^(?P<dim> +\S+ +\S+ +)(?P<green>ok)(?P<dim2>.*)$"), False),
    (re.compile(r"^(?P<dim> +\d\d:\d\d +minute +\d+/\d+ +risk )(?P<yellow>(?!0\.00)\S+)(?P<text> .*)$"), False),
    (re.compile(r"^(?P<dim> +(\d\d:\d\d|\.\.\. ).*| +verification .*)$"), False),
]
COLOURS = {"text": TEXT, "dim": DIM, "dim2": DIM, "green": GREEN, "red": RED, "yellow": YELLOW, "blue": BLUE}


def shorten(lines):
    """Leaves the middle of a long run of minutes out, and says so."""
    shown, run = [], []

    def flush():
        if len(run) > 6:
            shown.extend(run[:2] + [f"   ... {len(run) - 3} minutes more ..."] + run[-1:])
        else:
            shown.extend(run)
        run.clear()

    for line in lines:
        if re.match(r"^ +\d\d:\d\d +minute", line):
            run.append(line)
        else:
            flush()
            shown.append(line)
    flush()
    return shown


def wrap(line):
    """A line as the terminal's width lets it be, broken between words and indented like its beginning."""
    indent = " " * (len(line) - len(line.lstrip()))
    return textwrap.wrap(line, COLUMNS, subsequent_indent=indent, drop_whitespace=True, break_on_hyphens=False) or [""]


def spans(line):
    """The coloured pieces of a line."""
    for rule, bold in RULES:
        found = rule.match(line)
        if found:
            pieces = [(name, piece) for name, piece in found.groupdict().items() if piece]
            weight = ' font-weight="bold"' if bold else ""
            return "".join(f'<tspan fill="{COLOURS[name]}"{weight}>{html.escape(piece)}</tspan>' for name, piece in pieces)
    return html.escape(line)


def picture(command, text):
    lines = [f"$ {command}", ""]
    for line in shorten(text.rstrip("\n").split("\n")):
        lines.extend(wrap(line))
    width = round(COLUMNS * CHARACTER + 2 * MARGIN)
    height = round(TITLE + len(lines) * LINE + 2 * MARGIN)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">',
        f"<title>{html.escape(command)}</title>",
        f'<rect x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="9" fill="{BACKGROUND}" stroke="{FRAME}"/>',
        f'<path d="M1 {TITLE}V9.5a8.5 8.5 0 0 1 8.5-8.5h{width - 19}a8.5 8.5 0 0 1 8.5 8.5V{TITLE}z" fill="{BAR}"/>',
    ]
    out += [f'<circle cx="{20 + 20 * i}" cy="{TITLE / 2}" r="5.5" fill="{FRAME}"/>' for i in range(3)]
    out.append(f'<g font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, \'DejaVu Sans Mono\', monospace" font-size="{SIZE}" fill="{TEXT}">')
    for i, line in enumerate(lines):
        if line:
            y = TITLE + MARGIN + SIZE + i * LINE
            length = f' textLength="{len(line) * CHARACTER:.1f}" lengthAdjust="spacingAndGlyphs"'
            out.append(f'<text x="{MARGIN}" y="{y:.1f}" xml:space="preserve"{length}>{spans(line)}</text>')
    return "\n".join(out + ["</g>", "</svg>", ""])


if __name__ == "__main__":
    sys.stdout.write(picture(sys.argv[1] if len(sys.argv) > 1 else "./dev demo", sys.stdin.read()))
