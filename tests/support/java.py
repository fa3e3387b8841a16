"""Java's GSS-API as a peer: compiles java/GssPeer.java and starts it on a realm's krb5.conf."""

from __future__ import annotations

import os
from pathlib import Path

from support.gss_peer import GssPeer
from support.peers import find_program, run

__all__ = ["start_java_peer"]

_SOURCE = Path(__file__).parent / "java" / "GssPeer.java"


def start_java_peer(directory: Path, krb5_conf: Path) -> GssPeer:
    """Return a running JVM that obeys gss_peer.py's commands; its files go to `directory`."""
    javac, java = (
        find_program("javac", "default-jdk-headless"),
        find_program("java", "default-jdk-headless"),
    )
    run([javac, "-d", str(directory), str(_SOURCE)], env=os.environ)
    options = [
        "-XX:TieredStopAtLevel=1",  # starts in half the time
        "-XX:+UseSerialGC",
        "-Xmx256m",
        f"-Djava.security.krb5.conf={krb5_conf}",
        f"-Djava.io.tmpdir={directory}",  # where Java keeps its replay cache
    ]
    argv = [java, *options, "-cp", str(directory), "GssPeer"]
    return GssPeer("Java", argv, env=os.environ, log=directory / "java.log")
