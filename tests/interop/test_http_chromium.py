"""Chromium signs in to our middleware, over http and https; and shows who is refused what to do."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.chromium import browse
from support.http_servers import HttpServer, Tls, gunicorn
from support.mit import MitRealm

ALLOWED = "--auth-server-allowlist=localhost"


@pytest.fixture(scope="module")
def plain(mit_realm: MitRealm) -> Iterator[HttpServer]:
    server = gunicorn(mit_realm, "wsgi", workers=2)
    yield server
    server.daemon.stop()


def test_chromium_signs_in(mit_realm: MitRealm, plain: HttpServer) -> None:
    page = browse(mit_realm, plain.url, ALLOWED, ccache=mit_realm.kinit("user"))
    assert "You are signed in as user@MIT.TEST." in page


def test_chromium_signs_in_with_channel_bindings(
    mit_realm: MitRealm, tmp_path_factory: pytest.TempPathFactory
) -> None:
    tls = Tls.for_localhost(tmp_path_factory.mktemp("tls"))
    server = gunicorn(mit_realm, "wsgi", tls=tls, workers=1, certificate=str(tls.certificate))
    try:
        options = (ALLOWED, "--ignore-certificate-errors")
        page = browse(mit_realm, server.url, *options, ccache=mit_realm.kinit("user"))
        assert "You are signed in as user@MIT.TEST." in page
    finally:
        server.daemon.stop()


def test_chromium_shows_what_to_do_without_a_ticket(mit_realm: MitRealm, plain: HttpServer) -> None:
    page = browse(mit_realm, plain.url, ALLOWED, ccache=None)
    assert "<h1>Sign-in required</h1>" in page
    assert "kinit" in page


def test_chromium_shows_what_to_do_if_it_may_send_no_ticket(
    mit_realm: MitRealm, plain: HttpServer
) -> None:
    page = browse(mit_realm, plain.url, ccache=mit_realm.kinit("user"))
    assert "AuthServerAllowlist" in page


def test_chromium_shows_why_a_ticket_was_refused(mit_realm: MitRealm) -> None:
    # The service has other keys than those that the ticket is for.
    server = gunicorn(mit_realm, "wsgi", workers=1, service="HTTP/elsewhere")
    try:
        page = browse(mit_realm, server.url, ALLOWED, ccache=mit_realm.kinit("user"))
        assert "<h1>Sign-in refused</h1>" in page
    finally:
        server.daemon.stop()
