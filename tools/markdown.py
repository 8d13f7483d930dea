"""Small pieces of GitHub Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; what the cells hold is Markdown, but for bars."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines)


def display(equation: str) -> str:
    r"""LaTeX lines, aligned at their first `=`.

    They are broken with `\cr`: the usual double backslash does not survive every Markdown reader.
    """
    lines: list[str] = []
    for piece in equation.split(r" \\ "):
        if lines and lines[-1].count(r"\begin") > lines[-1].count(r"\end"):
            lines[-1] += rf" \cr {piece}"  # a line of something inside, such as cases
        else:
            lines.append(piece)
    aligned = [line.replace(" = ", " &= ", 1) for line in lines]
    return "\n".join(["$$", r"\begin{aligned}", " \\cr\n".join(aligned), r"\end{aligned}", "$$"])


def sentence(text: str) -> str:
    """With a capital to begin and a full stop to end."""
    return text[:1].upper() + text[1:].rstrip(".") + "." if text else ""


def number(value: object) -> str:
    """As people write it: `1e-8`, not `1e-08`."""
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, int | float):
        return str(value)
    mantissa, e, exponent = f"{value:g}".partition("e")
    return f"{mantissa}e{int(exponent)}" if e else mantissa


def anchor(title: str) -> str:
    """What GitHub makes of a heading."""
    return title.lower().replace(" ", "-")
