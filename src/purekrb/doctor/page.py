"""A report as one HTML page: the findings, and the exchange as a sequence diagram.

The page needs nothing else: no script, no font, no image. It holds no secret, since the report has
none.
"""

from __future__ import annotations

from html import escape

from purekrb.doctor.report import Exchanged, Report
from purekrb.inspection.describe import lines

__all__ = ["page"]

_STYLE = """
:root { color-scheme: light dark; --line: #888; --soft: #8883; --ok: #1a7f37; --warning: #9a6700;
  --failed: #cf222e; --skipped: #6e7781; --ground: #fff; --text: #1f2328; }
@media (prefers-color-scheme: dark) { :root { --ground: #16181c; --text: #e6e6e6; --ok: #4ac26b;
  --warning: #d4a72c; --failed: #ff8182; --skipped: #a0a8b0; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 70rem; background: var(--ground);
  color: var(--text); font: 15px/1.45 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
.finding { display: grid; grid-template-columns: 9rem 5.5rem minmax(0, 1fr); gap: .1rem 1rem;
  padding: .5rem 0; border-top: 1px solid var(--soft); }
.step { font-weight: 600; }
.ok { color: var(--ok); } .warning { color: var(--warning); } .failed { color: var(--failed); }
.skipped { color: var(--skipped); } .status { font-weight: 600; }
.remedy { grid-column: 3; }
.diagram { --n: 2; }
.ends, .message { display: grid; grid-template-columns: repeat(var(--n), minmax(0, 1fr)); }
.ends { position: sticky; top: 0; background: var(--ground); z-index: 1; }
.ends div { text-align: center; font-weight: 600; padding: .4rem .3rem;
  border-bottom: 2px solid var(--line); }
.lifelines { background-image: linear-gradient(var(--line), var(--line));
  background-size: 1px 100%; }
.message { position: relative; padding: .6rem 0; }
.life { position: absolute; top: 0; bottom: 0; width: 0; border-left: 1px dashed var(--line); }
.arrow { grid-row: 1; text-align: center; position: relative;
  padding: 0 .8rem .35rem; margin: 0 calc(50% / var(--span)); border-bottom: 2px solid var(--text); }
.arrow span { background: var(--ground); padding: 0 .3rem; }
.arrow::after { content: ""; position: absolute; bottom: -6px; border: 5px solid transparent; }
.right::after { right: 0; border-left: 9px solid var(--text); border-right: 0; }
.left::after { left: 0; border-right: 9px solid var(--text); border-left: 0; }
.time { color: var(--skipped); font-weight: 400; }
.facts { grid-row: 2; position: relative; margin: .4rem auto 0; padding: .3rem .6rem; max-width: 100%;
  background: var(--ground); border: 1px solid var(--soft); border-radius: 4px;
  font: 12px/1.45 ui-monospace, monospace; }
.facts ul { margin: 0; padding: 0; list-style: none; }
summary { cursor: pointer; font-family: system-ui, sans-serif; }
pre { margin: .3rem 0 0; white-space: pre-wrap; overflow-wrap: anywhere; font: inherit; }
@media (max-width: 40rem) { .finding { grid-template-columns: minmax(0, 1fr) auto; }
  .finding .text, .remedy { grid-column: 1 / -1; } .arrow { padding: 0 .2rem .35rem; } }
"""


def page(report: Report) -> str:
    """Return the HTML page of a report, in UTF-8."""
    title = f"purekrb doctor: {report.target}" if report.target else "purekrb doctor"
    counts = ", ".join(
        f'<span class="{status}">{sum(f.status == status for f in report.findings)} {status}</span>'
        for status in ("ok", "warning", "failed", "skipped")
    )
    findings = "\n".join(
        f'<div class="finding"><div class="step">{escape(finding.step)}</div>'
        f'<div class="status {finding.status}">{finding.status}</div>'
        f'<div class="text">{escape(finding.text)}</div>'
        + (
            f'<div class="remedy"><b>To do:</b> {escape(finding.remedy)}</div>'
            if finding.remedy
            else ""
        )
        + "</div>"
        for finding in report.findings
    )
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style></head>\n<body>\n"
        f"<h1>{escape(title)}</h1>\n<p>{counts}</p>\n<h2>Findings</h2>\n{findings}\n"
        f"<h2>Exchange</h2>\n{_diagram(report.exchanged)}\n</body></html>\n"
    )


def _diagram(exchanged: list[Exchanged]) -> str:
    if not exchanged:
        return "<p>No message was exchanged.</p>"
    ends = list(dict.fromkeys(end for m in exchanged for end in (m.sender, m.receiver)))
    heads = "".join(f"<div>{escape(end)}</div>" for end in ends)
    rows = "\n".join(_message(message, ends) for message in exchanged)
    return (
        f'<div class="diagram" style="--n: {len(ends)}"><div class="ends">{heads}</div>\n'
        f"{rows}\n</div>"
    )


def _message(message: Exchanged, ends: list[str]) -> str:
    """Return one row: the lifelines, the arrow with the message's name, and its facts."""
    start, end = ends.index(message.sender), ends.index(message.receiver)
    first, last = min(start, end), max(start, end)
    way = "right" if start < end else "left"
    lives = "".join(
        f'<div class="life" style="left: {100 * (2 * n + 1) / (2 * len(ends)):.3f}%"></div>'
        for n in range(len(ends))
    )
    facts = "".join(f"<li>{escape(fact)}</li>" for fact in message.facts)
    tree = escape("\n".join(lines(message.tree)))
    column = f"grid-column: {first + 1} / {last + 2}"
    return (
        f'<div class="message">{lives}'
        f'<div class="arrow {way}" style="{column}; --span: {last - first + 1}">'
        f"<span>{escape(message.name)} "
        f'<span class="time">{message.seconds:.2f} s</span></span></div>'
        f'<div class="facts" style="{column}"><ul>{facts}</ul>'
        f"<details><summary>all fields</summary><pre>{tree}</pre></details></div></div>"
    )
