"""Headings, tables of text and remarks as Markdown, LaTeX and HTML."""

from __future__ import annotations

from collections.abc import Container, Sequence
from html import escape

# (header, lines), each cell a text.
Tables = Sequence[tuple[list[str], list[list[str]]]]

# Columns of text, set on the left; numbers stand on the right.
# Exact integers that pass every fixed width: decimal strings in JSON.
_TEXTS = frozenset({"network", "layer", "shape", "unit", "view", "null", "metric"})


def markdown(headings: Sequence[str], tables: Tables, remarks: Sequence[str]) -> str:
    """Bold headings, Markdown tables, and remarks as a list."""
    parts = [f"**{_markdown(line)}**" for line in headings]
    for header, body in tables:
        lines = [header, ["---:" if side == "r" else "---" for side in _sides(header)], *body]
        parts.append("\n".join("| " + " | ".join(map(_markdown, line)) + " |" for line in lines))
    if remarks:
        parts.append("\n".join(f"- {_markdown(line)}" for line in remarks))
    return "\n\n".join(parts) + "\n"


def latex(headings: Sequence[str], tables: Tables, remarks: Sequence[str], collapsed: Container[str]) -> str:
    """booktabs tables, remarks in small print; lines whose first cell is `collapsed` are bold."""
    parts = ["% needs \\usepackage{booktabs}", *(f"% {_latex(line)}" for line in headings)]
    for header, body in tables:
        parts += [f"\\begin{{tabular}}{{{_sides(header)}}}", "\\toprule", _latex_line(header), "\\midrule"]
        parts += [_latex_line(line, bold=line[0] in collapsed) for line in body]
        parts += ["\\bottomrule", "\\end{tabular}", ""]
    if remarks:
        joined = " ".join(_latex(line.rstrip(".") + ".") for line in remarks)
        parts += [f"\\par\\smallskip{{\\footnotesize {joined}\\par}}"]
    return "\n".join(parts).rstrip() + "\n"


def html(headings: Sequence[str], tables: Tables, remarks: Sequence[str], collapsed: Container[str]) -> str:
    """Plain HTML tables, for notebooks; lines whose first cell is `collapsed` stand out."""
    parts = [f"<p><b>{escape(line)}</b></p>" for line in headings]
    for header, body in tables:
        head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
        parts.append(f"<table><thead><tr>{head}</tr></thead><tbody>")
        for line in body:
            style = ' style="color:#b00020;font-weight:bold"' if line[0] in collapsed else ""
            parts.append(f"<tr{style}>" + "".join(f"<td>{escape(cell)}</td>" for cell in line) + "</tr>")
        parts.append("</tbody></table>")
    if remarks:
        parts.append("<ul>" + "".join(f"<li>{escape(line)}</li>" for line in remarks) + "</ul>")
    return "".join(parts)


def folding(headings: Sequence[str], tables: Tables, remarks: Sequence[str], collapsed: Container[str]) -> str:
    """As `html`, for a screen: the first table is seen, each other and the remarks fold out."""
    parts = [html(headings, tables[:1], (), collapsed)]
    for header, body in tables[1:]:
        title = f"{len(body)} {header[0]}{'s' * (len(body) != 1)}"
        table = html((), [(header, body)], (), collapsed)
        parts.append(f"<details><summary>{escape(title)}</summary>{table}</details>")
    if remarks:
        notes = f"{len(remarks)} note{'s' * (len(remarks) != 1)}"
        parts.append(f"<details><summary>{notes}</summary>{html((), (), remarks, collapsed)}</details>")
    return "".join(parts)


def _sides(header: Sequence[str]) -> str:
    """l or r for each column: text on the left, numbers on the right."""
    return "".join("l" if name in _TEXTS else "r" for name in header)


def _markdown(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("_", "\\_").replace("*", "\\*").replace("\n", " ")


_LATEX = str.maketrans(
    {
        "\\": "\\textbackslash{}",
        "{": "\\{",
        "}": "\\}",
        "~": "\\textasciitilde{}",
        "^": "\\textasciicircum{}",
        "–": "--",
        "\n": " ",
        **{character: "\\" + character for character in "&%$#_"},
    }
)


def _latex(text: str) -> str:
    return text.translate(_LATEX)


def _latex_line(cells: Sequence[str], bold: bool = False) -> str:
    made = [latex_cell(cell) for cell in cells]
    return " & ".join(f"\\textbf{{{cell}}}" if bold else cell for cell in made) + " \\\\"


def latex_cell(cell: str) -> str:
    """A cell of text or of a number as `shown` writes it, for LaTeX."""
    if cell == "-inf":
        return "$-\\infty$"
    mantissa, e, exponent = cell.partition("e+")
    if not e:
        mantissa, e, exponent = cell.partition("e-")
        exponent = "-" + exponent
    if cell.startswith("-") and cell[1:].replace(",", "").replace(".", "", 1).isdigit():
        return f"${cell}$"
    if e and mantissa.replace(".", "", 1).lstrip("-").isdigit() and exponent.lstrip("-").isdigit():
        return f"${mantissa} \\times 10^{{{int(exponent)}}}$"
    return _latex(cell)
