"""The most telling fields of a message, for a diagram."""

from __future__ import annotations

from typing import Any

__all__ = ["facts_of"]

_NAMES = {
    "AsReq": "AS-REQ",
    "AsRep": "AS-REP",
    "TgsReq": "TGS-REQ",
    "TgsRep": "TGS-REP",
    "ApReq": "AP-REQ",
    "ApRep": "AP-REP",
    "KrbError": "KRB-ERROR",
}
#: Paths into the tree of each message.
_FACTS: dict[str, tuple[str, ...]] = {
    "AsReq": ("req_body.cname", "req_body.realm", "req_body.sname", "req_body.etype", "padata"),
    "TgsReq": ("req_body.sname", "req_body.realm", "req_body.kdc_options", "req_body.etype"),
    "AsRep": ("crealm", "cname", "ticket.sname", "ticket.enc_part.etype", "enc_part.etype"),
    "TgsRep": ("cname", "ticket.sname", "ticket.enc_part.etype", "ticket.enc_part.kvno"),
    "ApReq": ("ap_options", "ticket.sname", "ticket.enc_part.etype", "ticket.enc_part.kvno"),
    "ApRep": ("enc_part.etype",),
    "KrbError": ("error_code", "e_text", "stime", "sname", "e_data"),
}
#: The containers of a message: tokens of GSS-API and SPNEGO.
_CONTAINERS = ("GSS-API token", "NegTokenInit", "NegTokenInit2", "NegTokenResp")
_INNER = ("mech_token", "response_token")
_MAX_FACT = 160


def facts_of(tree: dict[str, Any]) -> tuple[str, tuple[str, ...]]:
    """Return the name of the message in a tree, and its most telling fields as "name: value"."""
    kind, message = _message(tree)
    if kind not in _FACTS:
        return kind, tuple(_fact(name, value) for name, value in message.items() if _plain(value))
    facts = []
    for path in _FACTS[kind]:
        value: Any = message
        for name in path.split("."):
            value = value.get(name) if isinstance(value, dict) else None
        text = _text(value)
        if text:
            facts.append(_fact(path.replace("req_body.", ""), text))
    return _NAMES[kind], tuple(facts)


def _message(tree: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the innermost message and its kind."""
    for name in tree:
        if name in _FACTS:
            return name, tree[name]
    for container in _CONTAINERS:
        inner = tree.get(container)
        if isinstance(inner, dict):
            for field in _INNER:
                if isinstance(inner.get(field), dict):
                    return _message(inner[field])
            kind, found = _message(inner)
            return (container, inner) if found is inner else (kind, found)
    return next(iter(tree), ""), tree


def _plain(value: Any) -> bool:
    return bool(_text(value))


def _fact(name: str, value: Any) -> str:
    text = _text(value)
    return f"{name}: {text if len(text) <= _MAX_FACT else text[:_MAX_FACT] + '...'}"


def _text(value: Any) -> str:
    """Return a value on one line: lists of padata by their types, other records left out."""
    if value is None or isinstance(value, dict):
        return ""
    if isinstance(value, list):
        types = [item.get("padata_type") if isinstance(item, dict) else item for item in value]
        return ", ".join(str(each) for each in types if each is not None)
    return str(value)
