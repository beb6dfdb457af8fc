"""Pieces of the pages that runs leave behind: HTML files that need no network."""

import html
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import plotly.graph_objects as go

INK, FAINT, LINE = "#1d2733", "#66717e", "#2f6f9f"
BANDS = {"DEGRADED": "#e0b13a", "CRITICAL": "#c43c39", "SAFE": "#8e5ea2"}  # FULL is blank
# of the phases that energy goes to, in their order
PHASES = ("#2f6f9f", "#4b9fc4", "#6cc0b4", "#3b8f5a", "#9bbf5a", "#d9b44a", "#e0813a", "#9aa7b5",
          "#c5ced8", "#e3e7ec", "#c43c39")

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1d2733; background: #f6f7f9; margin: 0 }
main { max-width: 1080px; margin: 0 auto; padding: 28px 20px 60px }
h1 { font-size: 26px; margin: 0 } h2 { font-size: 18px; margin: 0 0 2px }
p { margin: 4px 0 12px } .faint { color: #66717e; font-size: 14px }
section { background: white; border: 1px solid #e2e5e9; border-radius: 8px; padding: 18px 20px;
          margin-top: 18px }
.verdict { font-size: 20px; border-left: 6px solid; padding-left: 16px }
.good { border-color: #3b8f5a } .bad { border-color: #c43c39 }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(120px, 1fr));
           gap: 12px 18px; margin: 14px 0 }
.figures b { display: block; font-size: 22px }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-size: 14px; width: 100% }
th { text-align: left; color: #66717e; font-weight: 500 }
th, td { padding: 4px 14px 4px 0; border-bottom: 1px solid #e9ecef; vertical-align: top }
td:nth-child(2) { white-space: nowrap }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums }
@media (max-width: 600px) { /* words are set one below the other */
  .words th { display: none } .words tr { display: block; border-bottom: 1px solid #e9ecef }
  .words td { display: inline-block; border: 0 }
}
"""


def write(path: Path, title: str, sections: Iterable[str]) -> Path:
    """Write a page of `sections` to `path`, which it replaces when it is whole; return `path`."""
    text = ("<!doctype html><html lang=en><meta charset=utf-8>"
            "<meta name=viewport content='width=device-width'>"
            f"<title>{html.escape(title)}</title><style>{_STYLE}</style>"
            f"<script>{_plotly()}</script><main>{''.join(sections)}</main></html>")
    scratch = path.with_name(f".{path.name}")
    scratch.write_text(text, "utf-8")
    scratch.replace(path)
    return path


def section(title: str, text: str, *parts: str) -> str:
    """Return a box with a heading, a line about it (HTML) and its parts."""
    return (f"<section><h2>{html.escape(title)}</h2><p class=faint>{text}</p>{''.join(parts)}"
            "</section>")


def figures(values: Iterable[tuple[str, str]]) -> str:
    """Return a row of large figures, each with what it is of."""
    cells = "".join(f"<span><b>{html.escape(value)}</b>{html.escape(name)}</span>"
                    for value, name in values)
    return f"<div class=figures>{cells}</div>"


def when(time_s: float) -> str:
    """Return a time in seconds since 1970 as Plotly takes it."""
    from datetime import UTC, datetime

    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%d %H:%M:%S")


def plot(figure: "go.Figure", height: int, top: int = 10) -> str:
    """Return a Plotly figure as a part of the page; `top` is the room above it."""
    figure.update_layout(
        height=height, margin={"l": 10, "r": 10, "t": top, "b": 10},
        template="plotly_white", font={"family": "system-ui, sans-serif", "color": INK},
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0,
                "font": {"color": FAINT}})
    figure.update_xaxes(automargin=True)
    figure.update_yaxes(automargin=True)
    return str(figure.to_html(full_html=False, include_plotlyjs=False,
                              config={"displayModeBar": False, "responsive": True}))


def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


def table(heads: Iterable[str], rows: Iterable[Iterable[str]], numbers: int = 99,
          words: int = 99) -> str:
    """Return a table whose columns from `numbers` on are set flush right, until column `words`."""
    def row(tag: str, cells: Iterable[str]) -> str:
        return "<tr>" + "".join(f"<{tag}{' class=n' if numbers <= i < words else ''}>"
                                f"{html.escape(cell)}"
                                f"</{tag}>" for i, cell in enumerate(cells)) + "</tr>"

    kind = "words" if numbers == 99 else "wide"
    return (f"<div class={kind}><table>{row('th', heads)}"
            f"{''.join(row('td', cells) for cells in rows)}</table></div>")
