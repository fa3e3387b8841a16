"""What a service learns about its user from the PAC, and lets in by it."""

from __future__ import annotations

from typing import Any

import purekrb
from purekrb.integrations.http.headers import write_field
from purekrb.integrations.nginx import AuthRequest
from purekrb.integrations.wsgi import KerberosMiddleware
from purekrb.replay import MemoryReplayCache
from purekrb.testing import Realm

WEB = "HTTP/web.example.test"


def ask(app: Any, **environ: Any) -> tuple[str, dict[str, str], bytes]:
    """Return the status, the header fields and the body of one request."""
    started: list[Any] = []

    def start(status: str, headers: Any) -> None:
        started.extend((status, dict(headers)))

    body = b"".join(app({"REQUEST_METHOD": "GET", "PATH_INFO": "/", **environ}, start))
    return started[0], started[1], body


def token(realm: Realm, user: purekrb.Credential) -> str:
    return write_field(purekrb.initiate(WEB, user, realm.config, mechanism="negotiate").step())


def test_a_service_lets_in_by_sids_and_removes_what_clients_claim() -> None:
    seen: list[Any] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        seen.append((environ.get("REMOTE_USER"), environ.get("purekrb.user")))
        start_response("200 OK", [])
        return [b"in"]

    with Realm("EXAMPLE.TEST", domain_sid="S-1-5-21-1-2-3") as realm:
        alice, bob = realm.add_user("alice", "pw"), realm.add_user("bob", "pw")
        keys = realm.add_service(WEB)
        open_to_all = KerberosMiddleware(app, keys, replay_cache=MemoryReplayCache())
        status, headers, _ = ask(open_to_all, HTTP_AUTHORIZATION=token(realm, alice))
        assert status == "200 OK"
        assert headers["WWW-Authenticate"].startswith("Negotiate ")
        name, user = seen.pop()
        assert name == "alice@EXAMPLE.TEST"
        sid = user.identity.user_sid
        assert sid
        assert user.has_sid(sid)
        assert all(map(user.has_sid, user.identity.group_sids))
        chosen = KerberosMiddleware(
            app,
            keys,
            replay_cache=MemoryReplayCache(),
            require_pac=True,
            authorize=lambda user: user.has_sid(sid),
            public=["/open"],
        )
        assert ask(chosen, HTTP_AUTHORIZATION=token(realm, alice))[0] == "200 OK"
        status, headers, body = ask(chosen, HTTP_AUTHORIZATION=token(realm, bob))
        assert (status, headers["WWW-Authenticate"][:10]) == ("403 Forbidden", "Negotiate ")
        assert b"bob@EXAMPLE.TEST" in body
        seen.clear()
        claimed = {"REMOTE_USER": "admin", "AUTH_TYPE": "Basic", "purekrb.user": user}
        assert ask(chosen, **claimed)[0] == "401 Unauthorized"
        assert seen == []
        assert ask(chosen, **{**claimed, "PATH_INFO": "/open"})[0] == "200 OK"
        assert seen == [(None, None)]
        assert ask(chosen, REQUEST_METHOD="HEAD")[2] == b""


def test_nginx_is_told_the_user_and_the_sids() -> None:
    with Realm("EXAMPLE.TEST", domain_sid="S-1-5-21-1-2-3") as realm:
        alice, keys = realm.add_user("alice", "pw"), realm.add_service(WEB)
        app = AuthRequest(keys, with_sids=True, replay_cache=MemoryReplayCache())
        status, headers, body = ask(app, HTTP_AUTHORIZATION=token(realm, alice))
        assert (status, headers["X-Remote-User"], body) == ("200 OK", "alice@EXAMPLE.TEST", b"")
        assert all(sid.startswith("S-1-") for sid in headers["X-Remote-Sids"].split(","))
        status, headers, _ = ask(app)
        assert (status, "X-Remote-User" in headers) == ("401 Unauthorized", False)
        status, headers, body = ask(app, PATH_INFO="/sign-in")
        assert (status, "X-Remote-User" in headers) == ("200 OK", False)
        assert b"Sign-in required" in body


def test_a_service_acts_for_its_user_at_another_service() -> None:
    """By constrained delegation, with a credential of its own account; by none without it."""
    back = "HTTP/back.example.test"
    with Realm("EXAMPLE.TEST") as realm:
        alice = realm.add_user("alice", "pw")
        purekrb.KdcClient(realm.config).get_tgt(alice, forwardable=True)
        keys, back_keys = realm.add_service(WEB, delegate_to=[back]), realm.add_service(back)
        own = purekrb.Credential.from_keytab(f"{WEB}@EXAMPLE.TEST", keys)

        def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
            start_response("200 OK", [])
            acting = environ["purekrb.user"].delegated_credential
            if acting is None:
                return [b"nobody"]
            acceptor = purekrb.Acceptor(back_keys, replay_cache=MemoryReplayCache())
            acceptor.step(purekrb.initiate(back, acting, realm.config).step())
            return [str(acceptor.initiator).encode()]

        for options, seen in (({"tgt": own}, b"alice@EXAMPLE.TEST"), ({}, b"nobody")):
            service = KerberosMiddleware(app, keys, replay_cache=MemoryReplayCache(), **options)
            status, _, body = ask(service, HTTP_AUTHORIZATION=token(realm, alice))
            assert (status, body) == ("200 OK", seen)
