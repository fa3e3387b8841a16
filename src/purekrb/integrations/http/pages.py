"""The bodies of refusals, for the people and programs that get them.

They say what the client can do. What is wrong with the service is in its log.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["FORBIDDEN", "NO_TOKEN", "Page", "render"]


class Page(NamedTuple):
    """What a refusal says: a title, a sentence, and what to do about it."""

    title: str
    text: str
    advice: tuple[str, ...] = ()


_TICKET = (
    "Sign in to your organisation's network, or run kinit: klist shows whether you have a ticket."
)
_BROWSER = (
    "Let the browser send tickets to this site. Chromium, Chrome and Edge: the policy "
    "AuthServerAllowlist. Firefox: network.negotiate-auth.trusted-uris."
)
_RELOAD = (
    "Reload this page: Chromium on Linux answers the first request of its life without a ticket."
)
_NAME = "Use this site's full name in the address, not an IP address or an alias."
_ASK = "If this goes on, tell the administrator of this site: its log has the cause."

NO_TOKEN = Page(
    "Sign-in required",
    "This site signs you in with your Kerberos ticket, and your browser sent none.",
    (_TICKET, _BROWSER, _NAME, _RELOAD),
)
NTLM = Page(
    "Sign-in refused",
    "Your browser offered NTLM instead of a Kerberos ticket. This site takes Kerberos alone.",
    (_TICKET, _NAME, _ASK),
)
CLOCK = Page(
    "Sign-in refused",
    "The clock of your computer differs too much from that of this site.",
    ("Set your computer's clock, then reload this page.", _ASK),
)
EXPIRED = Page(
    "Sign-in refused",
    "Your Kerberos ticket has expired.",
    (_TICKET,),
)
REPLAYED = Page(
    "Sign-in refused",
    "This request was already made once.",
    ("Reload this page.", _ASK),
)
BINDINGS = Page(
    "Sign-in refused",
    "Your ticket is not for this encrypted connection: something may stand between you and this "
    "site, or your browser does not tie tickets to connections.",
    ("Do not use a proxy that opens encrypted connections.", _ASK),
)
OTHER = Page(
    "Sign-in refused",
    "This site did not accept your Kerberos ticket.",
    ("Get a new ticket: sign out and in again, or run kinit.", _NAME, _ASK),
)
FORBIDDEN = Page(
    "Not allowed",
    "You are signed in as {user}, who may not use this page.",
    ("If you should be allowed to, ask the administrator of this site.",),
)

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:36em;margin:12vh auto;padding:0 1em;"
    "color:#222;background:#fff}h1{font-size:1.5em}li{margin:.4em 0}"
    "@media(prefers-color-scheme:dark){body{color:#ddd;background:#1b1b1b}}"
)


def render(page: Page, *, as_html: bool, user: str = "") -> tuple[str, bytes]:
    """Return the content type and the body of a page."""
    text = page.text.format(user=user)
    if not as_html:
        lines = [f"{page.title}. {text}", *(f"- {line}" for line in page.advice), ""]
        return "text/plain; charset=utf-8", "\n".join(lines).encode()
    import html  # only pages pay for the import

    items = "".join(f"<li>{html.escape(line)}</li>" for line in page.advice)
    body = (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{page.title}</title><style>{_STYLE}</style>"
        f"<h1>{page.title}</h1><p>{html.escape(text)}</p><ul>{items}</ul></html>\n"
    )
    return "text/html; charset=utf-8", body.encode()
