"""List the tickets of a credential cache, or with -k the entries of a keytab (without the keys).

Times are those of this machine's time zone, or UTC with --utc. A ticket's flags are MIT's letters:
F forwardable, f forwarded, P proxiable, p proxy, D may be postdated, d postdated, i invalid,
R renewable, I initial, A pre-authenticated, H by hardware, T transit policy checked, O OK as
delegate, a anonymous.
"""

from __future__ import annotations

import argparse
import shutil
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from purekrb import __version__
from purekrb.cli.output import Output
from purekrb.constants import TicketFlags, asn1_flags

if TYPE_CHECKING:
    from purekrb.credentials.ccache import CCache
    from purekrb.credentials.keytab import Keytab
    from purekrb.credentials.ticket import ServiceTicket
    from purekrb.messages.ap import HostAddress

__all__ = ["add_arguments", "run", "letters", "local", "show_keytab"]

#: MIT's letters.
_LETTERS = {
    TicketFlags.FORWARDABLE: "F",
    TicketFlags.FORWARDED: "f",
    TicketFlags.PROXIABLE: "P",
    TicketFlags.PROXY: "p",
    TicketFlags.MAY_POSTDATE: "D",
    TicketFlags.POSTDATED: "d",
    TicketFlags.INVALID: "i",
    TicketFlags.RENEWABLE: "R",
    TicketFlags.INITIAL: "I",
    TicketFlags.HW_AUTHENT: "H",
    TicketFlags.PRE_AUTHENT: "A",
    TicketFlags.TRANSITED_POLICY_CHECKED: "T",
    TicketFlags.OK_AS_DELEGATE: "O",
    TicketFlags.ANONYMOUS: "a",
}
_TIME = "%Y-%m-%d %H:%M:%S"
_EXPIRED = ">>>Expired<<<"
_INDENT = " " * 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("name", nargs="?", help="the cache or, with -k, the keytab")
    parser.add_argument(
        "-l", "--list", action="store_true", help="list the caches of the collection"
    )
    parser.add_argument(
        "-A", "--all", action="store_true", help="show every cache of the collection"
    )
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument(
        "-c", "--ccache", action="store_true", help="NAME is a credential cache (the default)"
    )
    kind.add_argument(
        "-k",
        "--keytab",
        action="store_true",
        help="list a keytab instead (default: KRB5_KTNAME, krb5.conf, or /etc/krb5.keytab)",
    )
    parser.add_argument(
        "-s",
        "--silent",
        action="store_true",
        help="print nothing; the exit code is 0 if a TGT is valid, else 1",
    )
    parser.add_argument("-e", action="store_true", help="show encryption types (always shown)")
    parser.add_argument("-f", action="store_true", help="show flags (always shown)")
    parser.add_argument(
        "-a",
        "--addresses",
        action="store_true",
        help="show the addresses that tickets are bound to",
    )
    parser.add_argument("-n", action="store_true", help="with -a: addresses as numbers (always)")
    parser.add_argument(
        "-d", action="store_true", help="show the types of submitted authorization data"
    )
    parser.add_argument(
        "-C", "--config-entries", action="store_true", help="show configuration entries too"
    )
    parser.add_argument(
        "-i",
        "--client-keytab",
        action="store_true",
        help="with -k: list the client keytab (default: KRB5_CLIENT_KTNAME)",
    )
    parser.add_argument("-t", action="store_true", help="with -k: show when keys were written")
    parser.add_argument("-K", action="store_true", help="with -k: show the keys; they are secrets")
    parser.add_argument("--utc", action="store_true", help="show times in UTC")
    parser.add_argument(
        "-V", action="version", version=f"purekrb {__version__}", help="show the version, and end"
    )
    parser.set_defaults(failure=1)  # as MIT's klist, whatever is wrong


#: What belongs to the other kind of list. As with MIT's klist, it is a usage error there.
_OF_CACHES = {"list": "-l", "all": "-A", "silent": "-s", "f": "-f", "addresses": "-a", "d": "-d"}
_OF_KEYTABS = {"client_keytab": "-i", "t": "-t", "K": "-K"}


def run(args: argparse.Namespace, output: Output) -> int:
    """Run the command."""
    for name, switch in (_OF_CACHES if args.keytab else _OF_KEYTABS).items():
        if getattr(args, name):
            args.wrong(
                f"{switch} is for {'credential caches' if args.keytab else 'keytabs: add -k'}"
            )
    if args.n and not args.addresses:
        args.wrong("-n is for addresses: add -a")
    if args.keytab:
        return _show_named_keytab(args, output)
    return _show_caches(args, output)


def _show_named_keytab(args: argparse.Namespace, output: Output) -> int:
    from purekrb.credentials.defaults import client_keytab_name, keytab_name
    from purekrb.credentials.keytab import Keytab

    name = (client_keytab_name if args.client_keytab else keytab_name)(args.name).name
    output.note(f"Keytab name: {name}", "")
    show_keytab(Keytab.load(name), output, times=args.t, keys=args.K, utc=args.utc)
    return 0


def _show_caches(args: argparse.Namespace, output: Output) -> int:
    from purekrb.credentials.ccache import CCache
    from purekrb.errors import KerberosError

    if args.list or args.all:
        found = CCache.list(args.name)
        if args.silent:
            return 0 if any(map(_has_tgt, found)) else 1
        if args.list:
            _list(found, output)
        else:
            for number, ccache in enumerate(found):
                if number:
                    output.note("")
                _show(ccache, args, output)
        return 0 if found else 1
    try:
        ccache = CCache.load(args.name)
    except KerberosError:
        if args.silent:
            return 1
        raise
    if args.silent:
        return 0 if _has_tgt(ccache) else 1
    _show(ccache, args, output)
    return 0


def _list(found: list[CCache], output: Output) -> None:
    """Print one line for each cache, the primary first."""
    caches = [
        {
            "principal": str(ccache.principal),
            "cache": ccache.name,
            "primary": number == 0,
            "expired": not _has_tgt(ccache),
        }
        for number, ccache in enumerate(found)
    ]
    rows = [
        (str(c["principal"]), f"{c['cache']}{' (Expired)' if c['expired'] else ''}") for c in caches
    ]
    output.table({"caches": caches}, ("Principal name", "Cache name"), rows)


def _has_tgt(ccache: CCache) -> bool:
    from purekrb.names import Principal

    realm = ccache.realm
    return ccache.find(Principal(("krbtgt", realm), realm)) is not None


def _show(ccache: CCache, args: argparse.Namespace, output: Output) -> None:
    tickets = list(ccache)
    config = [
        {"key": key, "principal": principal, "value": value.decode(errors="backslashreplace")}
        for key, principal, value in (ccache.config_entries() if args.config_entries else ())
    ]
    lines = [f"Ticket cache: {ccache.name}", f"Default principal: {ccache.principal}", ""]
    if tickets or config:
        expires = f"Expires ({_zone(args.utc)})"
        lines.append(f"{'Valid starting':<21}{expires:<21}Service principal")
    for entry in config:
        about = f"({entry['principal']})" if entry["principal"] else ""
        lines.append(f"config: {entry['key']}{about} = {entry['value']}")
    for ticket in tickets:
        lines += _lines(ticket, ccache, args)
    data = {
        "cache": ccache.name,
        "principal": ccache.principal,
        "tickets": [_data(ticket) for ticket in tickets],
        **({"config": config} if args.config_entries else {}),
    }
    output.result(data, *lines)


def _data(ticket: ServiceTicket) -> dict[str, Any]:
    from purekrb.keys import etype_name

    etype, kvno = _sealed_with(ticket)
    return {
        "service": ticket.service,
        "client": ticket.client,
        "starttime": ticket.starttime or ticket.authtime,
        "endtime": ticket.endtime,
        "renew_till": ticket.renew_till,
        "expired": _expired(ticket),
        "flags": asn1_flags(TicketFlags, ticket.flags),
        "ticket_etype": etype,
        "kvno": kvno,
        "session_key_etype": etype_name(ticket.session_key.etype),
        "addresses": [_address(address) for address in ticket.caddr],
        "authorization_data": [entry.ad_type for entry in ticket.authorization_data],
    }


def _lines(ticket: ServiceTicket, ccache: CCache, args: argparse.Namespace) -> list[str]:
    from purekrb.keys import etype_name

    start = local(ticket.starttime or ticket.authtime, args.utc)
    end = _EXPIRED if _expired(ticket) else local(ticket.endtime, args.utc)
    lines = [*_fitting(f"{start:<21}{end:<21}", str(ticket.service))]
    if ticket.client != ccache.principal:
        lines.append(f"{_INDENT}for client {ticket.client}")
    details = [f"Flags: {letters(ticket.flags)}"] if letters(ticket.flags) else []
    if ticket.renew_till is not None:
        details.insert(0, f"renew until {local(ticket.renew_till, args.utc)}")
    if details:
        lines.append(_INDENT + ", ".join(details))
    session_key = etype_name(ticket.session_key.etype)
    lines.append(f"{_INDENT}Etype (skey, tkt): {session_key}, {_sealed_with(ticket)[0]}")
    if ticket.is_skey:
        lines.append(f"{_INDENT}user-to-user: encrypted in the session key of another TGT")
    if args.addresses:
        addresses = ", ".join(map(_address, ticket.caddr)) or "(none)"
        lines += _fitting(f"{_INDENT}Addresses: ", addresses)
    if args.d and ticket.authorization_data:
        types = ", ".join(str(entry.ad_type) for entry in ticket.authorization_data)
        lines.append(f"{_INDENT}AD types: {types}")
    return lines


def _fitting(start: str, text: str) -> list[str]:
    """Return `start` and `text` in one line if that fits the terminal, else in two."""
    if len(start) + len(text) <= shutil.get_terminal_size().columns:
        return [start + text]
    return [start.rstrip(), _INDENT + text]


def _sealed_with(ticket: ServiceTicket) -> tuple[str, int | None]:
    """Return the encryption type, and the key's version number, in the clear part of a ticket."""
    from purekrb.errors import DecodeError
    from purekrb.keys import etype_name
    from purekrb.messages.ap import Ticket

    try:
        enc_part = Ticket.decode(ticket.ticket).enc_part
    except DecodeError:  # others may keep what they like in a cache
        return "unknown", None
    return etype_name(enc_part.etype), enc_part.kvno


def _expired(ticket: ServiceTicket) -> bool:
    from purekrb.system import now

    return ticket.endtime <= now() + ticket.time_offset


def local(time: datetime, utc: bool = False) -> str:
    """Return a time as text, in this machine's time zone or in UTC."""
    return (time if utc else time.astimezone()).strftime(_TIME)


def _zone(utc: bool) -> str:
    return "UTC" if utc else datetime.now(timezone.utc).astimezone().strftime("%Z")


def _address(address: HostAddress) -> str:
    import ipaddress

    from purekrb.constants import AddressType

    sizes: dict[int, int] = {AddressType.IPV4: 4, AddressType.IPV6: 16}
    if sizes.get(address.addr_type) == len(address.address):
        return str(ipaddress.ip_address(address.address))
    return f"type {address.addr_type} {address.address.hex()}"


def letters(flags: int) -> str:
    """Return MIT's letters of the ticket flags that are set."""
    return "".join(letter for flag, letter in _LETTERS.items() if flags & int(flag))


def show_keytab(
    keytab: Keytab,
    output: Output,
    *,
    times: bool = False,
    keys: bool = False,
    utc: bool = False,
) -> None:
    """Print the entries of a keytab, with or without their keys."""
    from purekrb.keys import etype_name

    entries: list[dict[str, Any]] = [
        {
            "principal": str(entry.principal),
            "kvno": entry.kvno,
            "etype": etype_name(entry.key.etype),
            "timestamp": entry.timestamp,
            **({"key": entry.key.contents.hex()} if keys else {}),
        }
        for entry in keytab
    ]
    rows = [
        (str(entry["kvno"]), entry["etype"], local(entry["timestamp"], utc)[: 19 if times else 10])
        for entry in entries
    ]
    cells = [("kvno", "etype", "written"), *rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    starts = [
        "".join(f"{cell:<{width + 2}}" for cell, width in zip(row, widths, strict=True))
        for row in cells
    ]
    lines = [f"{starts[0]}principal"]
    for start, entry in zip(starts[1:], entries, strict=True):
        lines += _fitting(start, entry["principal"])
        if keys:
            lines += _fitting(f"{_INDENT}key ", entry["key"])
    output.result({"entries": entries}, *lines)
