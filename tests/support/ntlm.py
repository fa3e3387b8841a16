"""MIT's GSS-API with an NTLM mechanism, for clients that prefer it to Kerberos.

`tools/install-peers` unpacks the mechanism into .lab/gss-ntlmssp: installed, all programs here would offer it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from support.gss_peer import GssPeer
from support.mit import MitRealm
from support.peers import missing_peer

__all__ = ["start_ntlm_peer"]

_UNPACKED = Path(__file__).parents[2] / ".lab" / "gss-ntlmssp" / "usr" / "lib"
_PROGRAM = Path(__file__).with_name("gssapi_peer.py")


def start_ntlm_peer(realm: MitRealm) -> GssPeer:
    """Return a running process whose initiators may be "ntlm-first" (see gss_peer.py)."""
    plugin = next(_UNPACKED.glob("*/gssntlmssp/gssntlmssp.so"), None)
    if plugin is None:
        missing_peer("MIT's NTLM mechanism", "gss-ntlmssp")
    mechanisms, users = realm.path("mech.conf"), realm.path("ntlm-users")
    mechanisms.write_text(f"gssntlmssp_v1\t1.3.6.1.4.1.311.2.2.10\t{plugin}\n")
    users.write_text("MIT:user:userpw\n")
    env = {**realm.env, "GSS_MECH_CONFIG": str(mechanisms), "NTLM_USER_FILE": str(users)}
    return GssPeer(
        "MIT with NTLM", [sys.executable, str(_PROGRAM)], env=env, log=realm.directory / "ntlm.log"
    )
