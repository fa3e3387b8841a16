"""The certificate that kinit logs in with: `-X attribute=value`, or pkinit_identities of krb5.conf."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from purekrb.cli import options

if TYPE_CHECKING:
    from purekrb.credentials.ccache import CCache
    from purekrb.credentials.credential import Credential
    from purekrb.krb5conf.config import Config
    from purekrb.names import Principal

__all__ = ["add_arguments", "anchors", "configured", "given", "repeat"]

_IDENTITY, _ANCHORS, _NO_FRESHNESS = "X509_user_identity", "X509_anchors", "disable_freshness"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare -X."""
    parser.add_argument(
        "-X",
        dest="attributes",
        action="append",
        type=_attribute,
        default=[],
        metavar="ATTRIBUTE=VALUE",
        help=f"log in with a certificate: {_IDENTITY}=FILE:cert,key, =PKCS12:file, "
        f"=PKCS11:module:token=label, =DIR:directory or =ENV:variable; {_ANCHORS}=FILE:ca or "
        f"=DIR:directory; {_NO_FRESHNESS}=yes asks for no freshness token",
    )


def _attribute(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    if name == _NO_FRESHNESS and value.lower() in ("", "yes", "true", "1", "no", "false", "0"):
        return name, value.lower()
    if name in (_IDENTITY, _ANCHORS) and value:
        return name, value
    raise argparse.ArgumentTypeError(
        f"{text!r} is no attribute: write {_IDENTITY}=..., {_ANCHORS}=... or {_NO_FRESHNESS}=yes"
    )


def repeat(args: argparse.Namespace, ccache: CCache) -> None:
    """Take what `ccache` tells of how its ticket was got, for what the command line leaves open."""
    import json

    from purekrb.names import Principal

    if not args.principal:
        args.anonymous = ccache.principal.name.anonymous
        args.principal = f"@{ccache.realm}" if args.anonymous else str(ccache.principal)
    tgs = Principal(("krbtgt", ccache.realm), ccache.realm)
    kind, data = (ccache.get_config(name, tgs) for name in ("pa_type", "pa_config_data"))
    if kind != b"16" or data is None or _values(args, _IDENTITY):
        return
    try:
        identity = json.loads(data)[_IDENTITY]
    except (ValueError, KeyError, TypeError):  # MIT's programs may have written something else
        return
    if isinstance(identity, str):
        args.attributes = [*args.attributes, (_IDENTITY, identity)]


def _values(args: argparse.Namespace, name: str) -> list[str]:
    return [value for found, value in args.attributes if found == name]


def anchors(args: argparse.Namespace) -> list[str] | None:
    """Return the anchors that -X names; None leaves them to krb5.conf."""
    return _values(args, _ANCHORS) or None


def given(
    args: argparse.Namespace, config: Config, principal: Principal | None
) -> Credential | None:
    """Return the credential of the certificate that -X names; None if it names none."""
    identities = _values(args, _IDENTITY)
    if not identities:
        return None
    return _credential(args, config, principal, identities, terminal_only=False)


def configured(
    args: argparse.Namespace, config: Config, principal: Principal | None
) -> Credential | None:
    """Return the credential of the first certificate in pkinit_identities that can be used.

    None if there is none. A PIN is asked for on a terminal alone: what is piped in is the password.
    """
    from purekrb.errors import CertificateError
    from purekrb.krb5conf.pkinit import pkinit_options

    realm = principal.realm if principal else config.default_realm
    identities = pkinit_options(config, realm or "").identities
    if not identities:
        return None
    try:
        return _credential(args, config, principal, identities, terminal_only=True)
    except CertificateError:  # the log tells it of each: the card may be at home
        return None


def _credential(
    args: argparse.Namespace,
    config: Config,
    principal: Principal | None,
    identities: Sequence[str],
    *,
    terminal_only: bool,
) -> Credential:
    from purekrb.credentials.credential import Credential
    from purekrb.krb5conf.pkinit import pkinit_options

    realm = principal.realm if principal else config.default_realm
    credential = Credential.from_identity(
        identities,
        principal=principal,
        ask=None if terminal_only and not options.on_terminal() else _ask,
        rules=pkinit_options(config, realm or "").cert_match,
        anchors=anchors(args),
    )
    credential.freshness = ["no", *_values(args, _NO_FRESHNESS)][-1] in ("no", "false", "0")
    return credential


def _ask(prompt: str) -> str:
    return options.read_secret(prompt).decode("utf-8", "replace")
