"""The service of Microsoft's sockets sample with mutual authentication, written with the functions of SSPI.

    export KRB5_KTNAME=service.keytab
    python sspi_service.py --port 2000 --spn "ADSockAuth/web.example.test/CN=SockAuthAD,CN=WEB,..."

It accepts clients with Kerberos, alone or negotiated. It tells each client who it is, and returns its text in capitals.
"""

from __future__ import annotations

import argparse
import socket
import threading
from contextlib import suppress

from purekrb import KerberosError, sspi
from sspi_frames import (
    MAX_LEGS,
    MAX_TOKEN,
    Frames,
    buffers,
    receive_encrypted,
    receive_signed,
    send_encrypted,
)

#: The flags that the service asks for. MUTUAL_AUTH refuses clients that do not ask for the service's proof.
ASKED = sspi.ASC_REQ_MUTUAL_AUTH | sspi.ASC_REQ_CONFIDENTIALITY | sspi.ASC_REQ_SEQUENCE_DETECT
#: The flags that a complete context must have. Some ASC_RET_ values differ from those of ISC_RET_.
NEEDED = (
    sspi.ASC_RET_MUTUAL_AUTH
    | sspi.ASC_RET_CONFIDENTIALITY
    | sspi.ASC_RET_INTEGRITY
    | sspi.ASC_RET_SEQUENCE_DETECT
    | sspi.ASC_RET_REPLAY_DETECT
)


def authenticate(frames: Frames, credentials: sspi.CredHandle) -> sspi.CtxtHandle:
    """Return the context with an authenticated client. The client speaks first."""
    handle = sspi.CtxtHandle()
    context = None
    try:
        for _ in range(MAX_LEGS):
            received = buffers((sspi.SECBUFFER_TOKEN, frames.receive(MAX_TOKEN)))
            answer = buffers((sspi.SECBUFFER_TOKEN, MAX_TOKEN))
            try:
                status, flags, _ = sspi.AcceptSecurityContext(
                    credentials,
                    context,
                    received,
                    ASKED | sspi.ASC_REQ_EXTENDED_ERROR,
                    sspi.SECURITY_NATIVE_DREP,
                    handle,
                    answer,
                )
            except sspi.error:
                with suppress(OSError):  # the client may be gone
                    frames.send(answer[0].Buffer)  # a token that tells it the reason, or nothing
                raise
            context = handle
            if status in (sspi.SEC_I_COMPLETE_NEEDED, sspi.SEC_I_COMPLETE_AND_CONTINUE):
                sspi.CompleteAuthToken(handle, answer)
            frames.send(answer[0].Buffer)
            if status not in (sspi.SEC_I_CONTINUE_NEEDED, sspi.SEC_I_COMPLETE_AND_CONTINUE):
                # Flags are valid on the last return only. Each flag is a bit.
                if flags & NEEDED != NEEDED:
                    raise ConnectionError(
                        f"the client did not ask for all that is needed: {NEEDED & ~flags:#x} is missing"
                    )
                return handle
        raise ConnectionError(f"the client has not authenticated itself in {MAX_LEGS} legs")
    except BaseException:
        if context is not None:
            sspi.DeleteSecurityContext(handle)
        raise


def serve(connection: socket.socket, credentials: sspi.CredHandle) -> None:
    """Serve one client. Ignore what it says until it is authenticated."""
    with connection:
        try:
            frames = Frames(connection)
            context = authenticate(frames, credentials)
            try:
                client = sspi.QueryContextAttributes(context, sspi.SECPKG_ATTR_NAMES)
                text = receive_signed(frames, context)
                send_encrypted(frames, context, f"{client} has signed: ".encode() + text)
                send_encrypted(frames, context, receive_encrypted(frames, context).upper())
                print("served", client, flush=True)
            finally:
                sspi.DeleteSecurityContext(context)
        except (KerberosError, OSError) as error:
            print("refused:", error, flush=True)


def main() -> None:
    """Run the service."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--port", type=int, default=2000, help="where to listen on loopback; 0: any free port"
    )
    parser.add_argument(
        "--spn", help="the name that clients ask for (default: each one in the keytab)"
    )
    parser.add_argument(
        "--package",
        default="Negotiate",
        help="Negotiate, which takes Kerberos as well, or Kerberos",
    )
    arguments = parser.parse_args()

    package = sspi.QuerySecurityPackageInfo(arguments.package)
    credentials, _ = sspi.AcquireCredentialsHandle(
        arguments.spn, package["Name"], sspi.SECPKG_CRED_INBOUND, None, None
    )
    name = sspi.QueryCredentialsAttributes(credentials, sspi.SECPKG_CRED_ATTR_NAMES)
    with socket.create_server(("127.0.0.1", arguments.port)) as listener:
        print(f"{name} listens on port {listener.getsockname()[1]}", flush=True)
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=serve, args=(connection, credentials), daemon=True).start()


if __name__ == "__main__":
    main()
