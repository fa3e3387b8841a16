"""Record tickets with PACs, of Samba's domain controller and MIT's KDC, into vectors/pac.json; `make record` runs it.

tests/unit/test_identity.py reads the file. The accounts and keys belong to directories that live for seconds.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from purekrb import Config, Credential, KdcClient, Keytab, crypto
from purekrb.constants import KeyUsage
from purekrb.exchanges.identity import client_identity
from purekrb.messages.ap import EncTicketPart, Ticket
from support.mit import MitRealm
from support.peers import find_program, run
from support.samba import shared_dc

FILE = Path(__file__).parents[2] / "vectors" / "pac.json"
ABOUT = (
    "Tickets (DER) with PACs, the key that opens them, and the identity of their client as the KDC has it. "
    "`identity` has text; the other fields are hex."
)


def record(
    source: str, config: Config, credential: Credential, keytab: Keytab, service: str
) -> dict[str, Any]:
    """Return a ticket of a KDC, and what it says of its client."""
    ticket = KdcClient(config).get_ticket(credential, service)
    part = Ticket.decode(ticket.ticket).enc_part
    sname = ticket.service.components
    key = next(
        held.key
        for held in keytab
        if held.key.etype == part.etype and held.principal.components == sname
    )
    found = client_identity(
        EncTicketPart.decode(crypto.decrypt(key, KeyUsage.TICKET, part.cipher)), key
    )
    identity = {**asdict(found), "principal": str(found.principal)}
    return {
        "source": f"recorded from {source}",
        "etype": part.etype,
        "service_key": key.contents.hex(),
        "ticket": ticket.ticket.hex(),
        "identity": identity,
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        vectors = []
        with shared_dc(Path(directory) / "samba") as dc:
            dn = dc.add_user("anna", displayName="Anna P\u00e4c")
            dc.modify(
                f"dn: CN=staff,CN=Users,{dc.base}\nchangetype: add\nobjectClass: group\nsAMAccountName: staff\n"
                f"member: {dn}\n"
            )
            dc.add_computer("WEB", servicePrincipalName=["HTTP/web.ad.test"])
            keytab = Keytab.load(dc.keytab("HTTP/web.ad.test"))
            version = run([find_program("samba", "samba-ad-dc"), "--version"], env=dc.env).split()[
                -1
            ]
            for account in ("anna", "WEB$"):
                credential = Credential.from_password(f"{account}@{dc.realm}", dc.password)
                vectors.append(
                    record(f"Samba {version}", dc.config, credential, keytab, "HTTP/web.ad.test")
                )
        (Path(directory) / "mit").mkdir()
        realm = MitRealm(Path(directory) / "mit")
        try:
            version = run(
                [find_program("krb5-config", "libkrb5-dev"), "--version"], env=realm.env
            ).split()[-1]
            credential = Credential.from_password(f"pre@{realm.realm}", realm.passwords["pre"])
            keytab = Keytab.load(realm.service_keytab)
            for etype in (17, 18, 19, 20):
                service = f"svc-{etype}/localhost"
                vectors.append(
                    record(f"MIT krb5 {version}", realm.config, credential, keytab, service)
                )
        finally:
            realm.stop()
    FILE.write_text(json.dumps({"about": ABOUT, "vectors": vectors}, indent=1) + "\n")


if __name__ == "__main__":
    main()
