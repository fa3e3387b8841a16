"""The client of Microsoft's sockets sample with mutual authentication, written with the functions of SSPI.

    export KRB5CCNAME=alice.ccache
    python sspi_client.py --directory ldap://dc1.example.test --keyword A762885A-AA44-11d2-81F1-00C04FB9624E
    python sspi_client.py --class ADSockAuth --host web.example.test --port 2000

The first form finds the service by its connection point in the directory, and asks for it as class/host/DN. The second
form is told where it is. No part of the name comes from the service: an impostor would name itself.
"""

from __future__ import annotations

import argparse
import socket
import sys

from purekrb import Credential, KerberosError, sspi
from purekrb.directory import Directory
from purekrb.spn import make_spn
from sspi_frames import (
    MAX_LEGS,
    MAX_TOKEN,
    Frames,
    buffers,
    receive_encrypted,
    send_encrypted,
    send_signed,
)

#: The flags that the client asks for. They include signatures and secrecy for the messages.
ASKED = (
    sspi.ISC_REQ_MUTUAL_AUTH
    | sspi.ISC_REQ_CONFIDENTIALITY
    | sspi.ISC_REQ_INTEGRITY
    | sspi.ISC_REQ_SEQUENCE_DETECT
    | sspi.ISC_REQ_REPLAY_DETECT
)
#: The flags that a complete context must have.
NEEDED = (
    sspi.ISC_RET_MUTUAL_AUTH
    | sspi.ISC_RET_CONFIDENTIALITY
    | sspi.ISC_RET_INTEGRITY
    | sspi.ISC_RET_SEQUENCE_DETECT
    | sspi.ISC_RET_REPLAY_DETECT
)


def authenticate(frames: Frames, credentials: sspi.CredHandle, spn: str) -> sspi.CtxtHandle:
    """Return the context with the service `spn`, which has proved that it is this service."""
    handle = sspi.CtxtHandle()
    context = received = None
    try:
        for _ in range(MAX_LEGS):
            token = buffers((sspi.SECBUFFER_TOKEN, MAX_TOKEN))
            status, flags, _ = sspi.InitializeSecurityContext(
                credentials, context, spn, ASKED, sspi.SECURITY_NATIVE_DREP, received, handle, token
            )
            context = handle
            if status in (sspi.SEC_I_COMPLETE_NEEDED, sspi.SEC_I_COMPLETE_AND_CONTINUE):
                sspi.CompleteAuthToken(handle, token)
            frames.send(token[0].Buffer)
            if status not in (sspi.SEC_I_CONTINUE_NEEDED, sspi.SEC_I_COMPLETE_AND_CONTINUE):
                # Flags are valid on the last return only. Each flag is a bit.
                if flags & NEEDED != NEEDED:
                    raise ConnectionError(
                        f"the context lacks what was asked for: {NEEDED & ~flags:#x} is missing"
                    )
                return handle
            received = buffers((sspi.SECBUFFER_TOKEN, frames.receive(MAX_TOKEN)))
        raise ConnectionError(f"the service has not proved itself in {MAX_LEGS} legs")
    except BaseException:
        if context is not None:
            sspi.DeleteSecurityContext(handle)
        raise


def find_services(url: str, keyword: str) -> list[tuple[str, int, str]]:
    """Return host, port and SPN of the services that the directory has under `keyword`."""
    with Directory.connect(url, Credential.from_ccache()) as directory:
        found = [scp for scp in directory.find_scps([keyword]) if scp.dns_name_type == "A"]
    return [
        (scp.dns_name, scp.port, make_spn(scp.service_class_name, scp.dn, scp.dns_name))
        for scp in found
    ]


def talk(address: tuple[str, int], spn: str, package: str, text: bytes) -> list[bytes]:
    """Return the service's answers to `text`, first signed, then encrypted."""
    info = sspi.QuerySecurityPackageInfo(package)
    credentials, _ = sspi.AcquireCredentialsHandle(
        None, info["Name"], sspi.SECPKG_CRED_OUTBOUND, None, None
    )
    try:
        with socket.create_connection(address, timeout=10) as connection:
            frames = Frames(connection)
            context = authenticate(frames, credentials, spn)
            try:
                send_signed(frames, context, text)
                answers = [receive_encrypted(frames, context)]
                send_encrypted(frames, context, text)
                return [*answers, receive_encrypted(frames, context)]
            finally:
                sspi.DeleteSecurityContext(context)
    finally:
        sspi.FreeCredentialsHandle(credentials)


def main() -> None:
    """Run the client."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--directory", metavar="URL", help="the directory to look in")
    parser.add_argument(
        "--keyword",
        default="",
        help="a keyword of the service's connection point: its product's GUID",
    )
    parser.add_argument(
        "--class", dest="service_class", help="without a directory: the service class"
    )
    parser.add_argument("--host", help="without a directory: the DNS name of the service's host")
    parser.add_argument("--port", type=int, help="without a directory: where the service listens")
    parser.add_argument("--address", help="connect to this address instead of the host's")
    parser.add_argument("--package", default="Negotiate", help="Negotiate or Kerberos")
    parser.add_argument("--text", default="hello", help="what to say")
    arguments = parser.parse_args()
    try:
        if arguments.directory:
            services = find_services(arguments.directory, arguments.keyword)
        elif arguments.service_class and arguments.host and arguments.port:
            spn = make_spn(arguments.service_class, arguments.host)
            services = [(arguments.host, arguments.port, spn)]
        else:
            parser.error("pass --directory and --keyword, or --class, --host and --port")
        if not services:
            sys.exit("refused: the directory has no such service")
        host, port, spn = services[0]
        answers = talk(
            (arguments.address or host, port), spn, arguments.package, arguments.text.encode()
        )
    except (KerberosError, OSError) as error:
        sys.exit(f"refused: {error}")
    for answer in answers:
        print(answer.decode())


if __name__ == "__main__":
    main()
