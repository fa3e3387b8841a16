"""Installs a service in Active Directory, and removes it again. An administrator runs this, after `kinit`.

    python scp_installer.py --ldap ldap://dc1.ad.test --state state.json install files.ad.test 2000 svc-files
    python scp_installer.py --ldap ldap://dc1.ad.test --state state.json uninstall

The service connection point comes first, since its DN is part of the service principal name; the state file comes last.
Both actions succeed or fail as a whole. Copy the state file to the host of the service.
"""

from __future__ import annotations

import argparse
import sys

import purekrb
from purekrb.directory import Directory, InstalledService, ServiceConnectionPoint

SERVICE_CLASS = "ADSockAuth"
#: Make your own with uuidgen.
PRODUCT = "e525e43e-562d-428a-a04c-228200791032"


def install(
    directory: Directory, host: str, port: int, account: str, state_file: str
) -> InstalledService:
    """Publish the service, let `account` update its SCP, register its names on `account`, write the state file.

    An account that would get tickets of RC4, which services refuse, gets AES (`fix`).
    """
    scp = ServiceConnectionPoint(
        name="SockAuthAD",
        service_class_name=SERVICE_CLASS,
        dns_name=host,
        bindings=(str(port),),
        keywords=(PRODUCT, "purekrb", "a service that says who said what"),
    )
    return directory.install_service(scp, state_file, account=account, fix=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--ldap", help="domain controller (default: found by DNS)")
    parser.add_argument("--state", required=True, help="the state file")
    actions = parser.add_subparsers(dest="action", required=True)
    installing = actions.add_parser("install")
    installing.add_argument("host", help="DNS name of the service's host")
    installing.add_argument("port", type=int)
    installing.add_argument("account", help="the service's account")
    actions.add_parser("uninstall")
    args = parser.parse_args()
    try:
        with Directory.connect(args.ldap, purekrb.Credential.from_ccache(None)) as directory:
            if args.action == "uninstall":
                directory.uninstall_service(args.state)
                print("uninstalled")
            else:
                made = install(directory, args.host, args.port, args.account, args.state)
                print(made.scp.dn, *made.spns, sep="\n")
                for warning in made.warnings:
                    print(f"warning: {warning}", file=sys.stderr)
    except purekrb.KerberosError as error:
        print(f"nothing was changed: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
