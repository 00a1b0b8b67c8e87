"""Several tables and notes as one text; in languages in which a name could be a command, every text is escaped."""

import html
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import replace

from tracking.tables import NUMBERS, TableText, to_html, to_markdown, to_plain

LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    **{character: f"\\{character}" for character in "&%$#_"},
}


def escape_latex(text: str) -> str:
    """Text as LaTeX prints it, whatever characters are in it."""
    return "".join(LATEX.get(character, character) for character in " ".join(text.split()))


def escape_markdown(text: str) -> str:
    """Text in which markdown finds no link, picture, code or html."""
    for found, instead in (("\\", "\\\\"), ("&", "&amp;"), ("<", "&lt;"), ("`", "\\`"), ("](", "]\\(")):
        text = text.replace(found, instead)
    return text


def to_data_uri(kind: str, content: bytes) -> str:
    """Give a file's content as an address, so that a page needs no other file."""
    return f"data:{kind};base64,{b64encode(content).decode()}"


def to_latex(table: TableText, title: str = "") -> str:
    """Table for LaTeX with the package booktabs."""

    def line(cells: tuple[str, ...]) -> str:
        return f"{' & '.join(escape_latex(cell) for cell in cells)} \\\\"

    columns = "".join("r" if name in NUMBERS else "l" for name in table.header)
    caption = escape_latex(". ".join(text for text in (title, table.caption) if text))
    return "\n".join(
        [
            "\\begin{table}",
            *([f"\\caption{{{caption}}}"] if caption else []),
            f"\\begin{{tabular}}{{{columns}}}",
            "\\toprule",
            line(table.header),
            "\\midrule",
            *(line(tuple(cells)) for cells in table.cells),
            "\\bottomrule",
            "\\end{tabular}",
            "\\end{table}",
            "",
        ]
    )


def to_safe_markdown(table: TableText) -> str:
    """Table in GitHub's markdown of texts that hold no markup of ours."""
    cells = [tuple(escape_markdown(cell) for cell in line) for line in table.cells]
    return to_markdown(replace(table, cells=cells, caption=escape_markdown(table.caption)))


def render(form: str, tables: Mapping[str, TableText], notes: Sequence[str]) -> str:
    """Write tables, by title, and notes below them.

    Parameters
    ----------
    form : {"table", "markdown", "html", "latex"}
    tables : mapping of str to TableText
        Those without a row are left out.
    notes : sequence of str
    """
    tables = {title: table for title, table in tables.items() if table.cells}
    if form == "html":
        head = '<!doctype html>\n<meta charset="utf-8">\n<title>Comparison</title>\n'
        listed = "".join(f"<li>{html.escape(note)}</li>\n" for note in notes)
        return head + "".join(to_html(table, title) for title, table in tables.items()) + f"<ul>\n{listed}</ul>\n"
    if form == "latex":
        parts = [to_latex(table, title) for title, table in tables.items()]
        return "\n".join(["% needs \\usepackage{booktabs}", *parts, *(f"{escape_latex(note)}\n" for note in notes)])
    if form == "markdown":
        shown = [(title, to_safe_markdown(table)) for title, table in tables.items()]
        parts = [f"### {title}\n\n{text}" if title else text for title, text in shown]
        return "\n".join([*parts, *([f"- {escape_markdown(note)}" for note in notes] + [""] if notes else [])])
    return "\n".join([*(to_plain(table, title) for title, table in tables.items()), *notes]).rstrip() + "\n"
