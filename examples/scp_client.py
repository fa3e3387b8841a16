"""A client that finds the service in the directory and talks to it once it has proved itself. Run `kinit` first.

    python scp_client.py --ldap ldap://dc1.ad.test "a message"

The client composes the name that the service must prove from the directory's data, never from what the service says of
itself. If anything fails, no message is sent.
"""

from __future__ import annotations

import argparse
import sys

import purekrb
from purekrb import Flag
from purekrb.directory import Directory

PRODUCT = "e525e43e-562d-428a-a04c-228200791032"
#: The flags that the context must have. Check them once it is established, not before.
NEEDED = Flag.MUTUAL | Flag.REPLAY | Flag.SEQUENCE | Flag.INTEG | Flag.CONF


def talk(
    directory: Directory, credential: purekrb.Credential, config: purekrb.Config, message: str
) -> tuple[purekrb.Principal | None, str]:
    """Return who the service is and what it answers.

    The service is found by its product's GUID. Its SCP gives host, port and the parts of its SPN. An instance that is
    down, or that the KDC does not know, is skipped. Raises KerberosError if an instance does not prove itself.
    """
    channel = None
    for endpoint in directory.find_endpoints([PRODUCT]):
        for target in endpoint.targets:
            try:
                channel = purekrb.connect(
                    endpoint.address, target, credential, config, flags=NEEDED
                )
                break
            except (purekrb.TransportError, purekrb.ServiceUnknownError) as error:
                print(f"{target}: {error}", file=sys.stderr)
        if channel:
            break
    if channel is None:
        raise purekrb.TransportError("no instance of the service answers: see above")
    with channel:
        missing = NEEDED & ~channel.context.flags
        if missing:
            raise purekrb.PolicyError(
                f"the service gives less than was asked for: {missing!r} is missing"
            )
        service = channel.context.acceptor
        channel.send(message.encode())
        answer = channel.recv()
    if answer is None:
        raise purekrb.TransportError("the service closed the channel before it answered")
    return service, answer.decode()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--ldap", help="domain controller (default: found by DNS)")
    parser.add_argument("message")
    args = parser.parse_args()
    try:
        credential = purekrb.Credential.from_ccache(None)
        config = purekrb.Config.from_file()
        with Directory.connect(args.ldap, credential, config) as directory:
            service, answer = talk(directory, credential, config, args.message)
    except purekrb.KerberosError as error:
        print(f"nothing was said: {error}", file=sys.stderr)
        return 1
    print(f"{service} answered: {answer}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
