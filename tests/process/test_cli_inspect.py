"""`purekrb inspect`: what it makes of every kind of input, genuine, hostile or none at all."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest

from purekrb import (
    Acceptor,
    CCache,
    ChannelBindings,
    Credential,
    DecodeError,
    EncryptionKey,
    Flag,
    Initiator,
    KdcClient,
    KerberosError,
    Keytab,
    crypto,
)
from purekrb.cli.inspect import MAX_INPUT
from purekrb.constants import MS_KRB5_MECH_OID, AuthDataType, KeyUsage, TicketFlags
from purekrb.gss.checksum import GssChecksum
from purekrb.gss.framing import frame, unframe
from purekrb.inspection.describe import describe
from purekrb.messages.ap import (
    AuthorizationData,
    AuthorizationDataEntry,
    Checksum,
    EncKrbCredPart,
    EncryptedData,
    EncTicketPart,
    KrbCred,
    KrbCredInfo,
    KrbError,
    Ticket,
)
from purekrb.messages.der import tlv
from purekrb.messages.kdc import EncKdcRepPart, PaData
from purekrb.messages.spnego import NegTokenResp
from purekrb.testing import Realm
from support.canaries import leaks, pieces
from support.commands import Commands
from support.contexts import acceptor, ap_req, authenticator, if_relevant
from support.credential_files import (
    CCacheWriter,
    good_ccache,
    good_keytab,
    keytab_file,
    keytab_record,
)
from support.recordings import Entry, load
from support.tickets import issue
from support.values import replace

WEB = "HTTP/web.example.test"
REDACTED = "<redacted>"


@pytest.fixture(scope="module")
def realm() -> Iterator[Realm]:
    with Realm("EXAMPLE.TEST") as realm:
        realm.add_user("alice", "pw")
        realm.add_service(WEB, ok_as_delegate=True)
        yield realm


@pytest.fixture
def run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    realm: Realm,
) -> Commands:
    return Commands(tmp_path, monkeypatch, capsys, realm)


def at(tree: Any, *path: str | int) -> Any:
    for step in path:
        tree = tree[step]
    return tree


def recorded(etype: int) -> list[Entry]:
    """The recorded exchanges of an etype: AS, TGS, a context that we initiate, one that we accept."""
    return [entry for entry in load("mit") if entry["etype"] == etype]


def key_of(entry: dict[str, Any]) -> EncryptionKey:
    return EncryptionKey(entry["etype"], entry["key"])


# -- recorded handshakes


@pytest.mark.parametrize("etype", [17, 18, 19, 20, 23])
def test_each_message_of_recorded_exchanges_is_named_and_opened_by_its_keys(etype: int) -> None:
    as_, tgs, initiator, acceptor = recorded(etype)
    client_key = EncryptionKey(etype, as_["reply_key"])
    first, second = as_["sent"]
    assert at(describe(first), "AsReq", "req_body", "cname") == "pre (PRINCIPAL 1)"
    timestamp = at(describe(second, [client_key]), "AsReq", "padata")
    (stamp,) = [pa["padata_value"] for pa in timestamp if pa["padata_type"] == "ENC_TIMESTAMP 2"]
    assert at(stamp, "decrypted", "PaEncTsEnc", "patimestamp") == as_["time"].replace(microsecond=0)

    error = at(describe(as_["received"][0]), "KrbError")
    assert error["error_code"] == "KDC_ERR_PREAUTH_REQUIRED 25"
    (info,) = [
        pa["padata_value"] for pa in error["e_data"] if pa["padata_type"] == "ETYPE_INFO2 19"
    ]
    assert etype in {17, 18, 19, 20, 23}
    assert info[0]["salt"] == "MIT.TESTpre"

    reply = describe(as_["received"][1], [client_key])
    assert at(reply, "AsRep", "ticket", "sname") == "krbtgt/MIT.TEST (SRV_INST 2)"
    part = at(reply, "AsRep", "enc_part", "decrypted", "EncKdcRepPart")
    assert part["nonce"] == as_["nonces"][1]
    assert part["key"]["contents"] == REDACTED

    tgt_key = key_of(tgs["tgt"]["service_key"])
    request = describe(tgs["sent"][0], [tgt_key])
    (ap_req,) = [
        pa["padata_value"]
        for pa in at(request, "TgsReq", "padata")
        if pa["padata_type"] == "TGS_REQ 1"
    ]
    authenticator = at(
        ap_req, "authenticator", "decrypted", "Authenticator"
    )  # by the session key in the ticket
    assert authenticator["cusec"] == tgs["cusec"]
    reply = describe(tgs["received"][0], [EncryptionKey(etype, tgs["subkey"])])
    assert at(reply, "TgsRep", "enc_part", "decrypted", "EncKdcRepPart", "srealm") == "MIT.TEST"

    service_key = key_of(initiator["ticket"]["service_key"])
    token = describe(initiator["sent"][0], [service_key])
    assert at(token, "GSS-API token", "TOK_ID") == "0100"
    ap_req = at(token, "GSS-API token", "ApReq")
    assert ap_req["ap_options"] == ["mutual-required"]
    assert at(ap_req, "ticket", "enc_part", "decrypted", "EncTicketPart", "crealm") == "MIT.TEST"
    authenticator = at(ap_req, "authenticator", "decrypted", "Authenticator")
    assert authenticator["seq_number"] == initiator["initiator_seq_number"]
    assert {"MUTUAL", "INTEG"} <= set(at(authenticator, "cksum", "checksum", "flags"))
    ap_rep = describe(
        initiator["received"][0], [EncryptionKey(etype, initiator["ticket"]["session_key"])]
    )
    assert (
        at(ap_rep, "GSS-API token", "ApRep", "enc_part", "decrypted", "EncApRepPart", "cusec")
        == initiator["cusec"]
    )
    assert (
        at(describe(acceptor["received"][0]), "GSS-API token", "ApReq", "ticket", "realm")
        == "MIT.TEST"
    )


@pytest.mark.parametrize("etype", [17, 18, 19, 20])
def test_each_recorded_per_message_token_is_taken_apart(etype: int) -> None:
    seen = set()
    for entry in recorded(etype)[2:]:
        keys = [
            EncryptionKey(etype, entry[name]) for name in ("initiator_subkey", "acceptor_subkey")
        ]
        for message in entry["messages"]:
            (kind, tree), *_ = describe(message["token"], keys).items()
            seen.add((kind, message["protection"]))
            assert ("sent-by-acceptor" in tree["flags"]) == (message["by"] == "acceptor")
            if kind.startswith("Wrap"):
                data = message["data"]
                shown = (
                    data.hex() if len(data) <= 64 else f"{data[:32].hex()}... ({len(data)} bytes)"
                )
                assert tree["data"] == shown
                (closed,) = describe(message["token"]).values()
                assert closed["data"] == (
                    "<sealed>" if message["protection"] == "sealed" else shown
                )
    assert seen == {
        ("Wrap token (RFC 4121)", "sealed"),
        ("Wrap token (RFC 4121)", "signed"),
        ("MIC token (RFC 4121)", "mic"),
    }


def test_rc4_tokens_are_taken_apart() -> None:
    for entry in recorded(23)[2:]:
        for message in entry["messages"]:
            tree = describe(message["token"])["Wrap token (RFC 4757)"]
            assert tree["SGN_ALG"] == "1100"
            assert tree["SEAL_ALG"] == ("1000" if message["protection"] == "sealed" else "ffff")
            assert len(tree["SGN_CKSUM"]) == 16
    mic = frame(b"\x01\x01", b"\x11\x00\xff\xff\xff\xff" + b"sequence" + b"checksum")
    assert at(describe(mic), "MIC token (RFC 4757)") == {
        "SGN_ALG": "1100",
        "encrypted SND_SEQ": b"sequence".hex(),
        "SGN_CKSUM": b"checksum".hex(),
    }


# -- what is inside


def test_a_context_token_shows_bindings_delegation_and_etypes_but_no_key(
    realm: Realm, run: Commands
) -> None:
    client, alice = KdcClient(realm.config), Credential.from_password("alice@EXAMPLE.TEST", "pw")
    client.get_tgt(alice, forwardable=True)
    ticket, forwarded = client.get_ticket(alice, WEB), client.forward_tgt(alice)
    bindings = ChannelBindings(application_data=b"tls")
    context = Initiator(
        ticket,
        flags=Flag.MUTUAL | Flag.DELEG | Flag.INTEG,
        channel_bindings=bindings,
        forwarded_tgt=forwarded,
    )
    realm.keytab(WEB).save(run.directory / "keytab")
    (run.directory / "token").write_bytes(context.step() or b"")
    result = run("inspect", "token", "-k", "keytab", "--json")
    authenticator = at(
        result.json, 0, "GSS-API token", "ApReq", "authenticator", "decrypted", "Authenticator"
    )
    checksum = at(authenticator, "cksum", "checksum")
    assert checksum["flags"] == ["DELEG", "MUTUAL", "INTEG"]
    assert checksum["bindings"] == bindings.digest().hex()
    info = at(checksum, "delegation", "enc_part", "decrypted", "EncKrbCredPart", "ticket_info", 0)
    assert "forwarded" in info["flags"]
    entry = at(authenticator, "authorization_data", 0)
    assert entry["ad_type"] == "IF_RELEVANT 1"
    assert at(entry, "ad_data", 0, "ad_type") == "ETYPE_NEGOTIATION 129"
    assert "aes256-cts-hmac-sha1-96" in at(entry, "ad_data", 0, "ad_data")

    keys = [
        ticket.session_key.contents,
        forwarded.session_key.contents,
        *(e.key.contents for e in Keytab.load("keytab")),
    ]
    plain = run("inspect", "token", "-k", "keytab")
    assert leaks(result.out + plain.out, keys) == []
    shown = run("inspect", "token", "-k", "keytab", "--show-keys").out
    assert forwarded.session_key.contents.hex() in shown
    assert "[" not in plain.out
    assert run("inspect", "token").out.count("decrypted") == 0


@pytest.mark.parametrize(
    "entry", load("negotiate"), ids=lambda entry: f"{entry['kind']}-{entry['source'][14:22]}"
)
def test_each_token_of_recorded_negotiations_is_opened(entry: dict[str, Any]) -> None:
    ours = entry["kind"] == "initiator"
    keys = [key_of((entry["ticket"] if ours else entry)["service_key"])]
    sides = (entry["sent"], entry["received"]) if ours else (entry["received"], entry["sent"])
    tokens = [token for both in zip_longest(*sides) for token in both if token]
    first = at(describe(tokens[0], keys), "GSS-API token")
    assert first["mechanism"] == "SPNEGO (Negotiate)"
    assert "Kerberos V5" in at(first, "NegTokenInit", "mech_types")
    last = [at(describe(token, keys), "NegTokenResp") for token in tokens[1:]]
    assert last[-1]["neg_state"] == "ACCEPT_COMPLETED 0"
    if "NTLM" in entry["source"]:
        assert at(first, "NegTokenInit", "mech_types") == ["NTLM", "Kerberos V5"]
        assert last[0] == {"neg_state": "REQUEST_MIC 3", "supported_mech": "Kerberos V5"}
        assert at(last[-1], "mech_list_mic", "flags") == ["acceptor-subkey"]
    else:
        request = at(first, "NegTokenInit", "mech_token", "GSS-API token", "ApReq")
        assert (
            at(
                request,
                "authenticator",
                "decrypted",
                "Authenticator",
                "cksum",
                "checksum",
                "bindings",
            )
            == "none"
        )
    assert any("ApRep" in str(answer) for answer in last)


def test_hints_and_microsofts_name_are_named() -> None:
    hints = Acceptor([]).step(b"")
    tree = at(describe(hints or b""), "GSS-API token", "NegTokenInit2")
    assert tree["mech_types"] == ["Microsoft's Kerberos V5", "Kerberos V5"]
    assert at(tree, "neg_hints", "hint_name") == "not_defined_in_RFC4178@please_ignore"
    ticket, _ = issue()
    token = frame(*unframe(Initiator(ticket).step() or b""), MS_KRB5_MECH_OID)
    assert at(describe(token), "GSS-API token", "mechanism") == "Microsoft's Kerberos V5"


def test_tokens_inside_tokens_are_opened_eight_levels_deep() -> None:
    token = b"token"
    for _ in range(20):
        token = NegTokenResp(None, None, token).encode()
    tree, depth = describe(token), 0
    while isinstance(tree, dict):
        tree, depth = at(tree, "NegTokenResp", "response_token"), depth + 1
    assert depth == 9
    assert "..." not in str(
        at(describe(NegTokenResp(None, None, b"junk").encode()), "NegTokenResp", "response_token")
    )


def test_what_windows_adds_to_an_authenticator_is_readable() -> None:
    ticket, keys = issue()
    added = if_relevant(
        AuthorizationDataEntry(AuthDataType.AP_OPTIONS, bytes.fromhex("00400000")),
        AuthorizationDataEntry(AuthDataType.CLIENT_TARGET, "HTTP/web".encode("utf-16-le")),
        AuthorizationDataEntry(AuthDataType.AP_OPTIONS, bytes.fromhex("00000000")),
    )
    token = ap_req(ticket, authenticator(ticket, authorization_data=(added,)))
    tree = at(
        describe(token, [keys[0].key]),
        "GSS-API token",
        "ApReq",
        "authenticator",
        "decrypted",
        "Authenticator",
    )
    entries = at(tree, "authorization_data", 0, "ad_data")
    assert [entry["ad_data"] for entry in entries] == [
        "the client knows channel bindings",
        "HTTP/web",
        "00000000",
    ]
    assert at(tree, "cksum", "checksum", "bindings") == "none"


def test_a_key_file_opens_what_it_fits(realm: Realm, run: Commands) -> None:
    service_ticket, (entry,) = issue(17)
    (run.directory / "ticket").write_bytes(service_ticket.ticket)
    (run.directory / "keys").write_text(
        f"18:{'00' * 32}\n\n23:{'00' * 16}\n17:{entry.key.contents.hex()}\n"
    )
    assert "decrypted" not in run("inspect", "ticket").out
    result = run("inspect", "ticket", "--key", "keys", "--json")
    part = at(result.json, 0, "Ticket", "enc_part", "decrypted", "EncTicketPart")
    assert part["flags"] == ["initial", "pre-authent"]
    assert part["key"] == {"etype": "aes128-cts-hmac-sha1-96", "contents": REDACTED}
    text = run("inspect", "ticket", "--key", "keys").out
    assert "      EncTicketPart\n        flags: initial, pre-authent\n" in text


@pytest.mark.parametrize("line", ["17", "17:00", "aes:00", "17:00:00", "x" * 40, "\xff"])
def test_a_line_that_is_no_key_is_told_by_its_number_and_not_quoted(
    run: Commands, line: str
) -> None:
    (run.directory / "keys").write_text(f"17:{'00' * 16}\n{line}\n", encoding="latin-1")
    (run.directory / "keys").chmod(0o600)
    result = run("inspect", "--key", "keys", stdin="00")
    assert result.code == 8
    assert result.err.startswith("purekrb: keys:2: this is not a key: write")


def test_what_decrypts_to_something_else_is_told_and_not_shown() -> None:
    service_ticket, (entry,) = issue(18)
    secret = b"secret plaintext"
    cipher = crypto.encrypt(entry.key, KeyUsage.TICKET, secret)
    ticket = replace(Ticket.decode(service_ticket.ticket), enc_part=EncryptedData(18, 1, cipher))
    tree = describe(ticket.encode(), [entry.key])
    assert at(tree, "Ticket", "enc_part", "decrypted").startswith("<not a valid EncTicketPart: ")
    assert leaks(json.dumps(tree, default=str), [secret]) == []


# -- what is not encrypted


def clear(etype: int = 0) -> tuple[KrbCred, list[bytes]]:
    """A KRB-CRED in the clear, as a .kirbi file holds it, and the keys in it."""
    tickets = [issue(18)[0] for _ in range(2)]
    infos = [
        KrbCredInfo(
            t.session_key, "R", t.client.name, 0, None, None, None, None, "R", t.service.name, None
        )
        for t in tickets
    ]
    part = EncKrbCredPart(tuple(infos), None, None, None, None, None)
    message = KrbCred(
        5, 22, tuple(t.ticket for t in tickets), EncryptedData(etype, None, part.encode())
    )
    return message, [t.session_key.contents for t in tickets]


def everything(tree: Any) -> str:
    return json.dumps(tree, default=str)


def parts(keys: list[bytes]) -> list[bytes]:
    return [piece for key in keys for piece in pieces(key)]


def test_k430_the_keys_of_a_krb_cred_in_the_clear_are_shown_with_show_keys_alone(
    run: Commands,
) -> None:
    message, keys = clear()
    (run.directory / "tickets.kirbi").write_bytes(message.encode())
    text, as_json = (
        run("inspect", "tickets.kirbi").out,
        run("inspect", "tickets.kirbi", "--json").out,
    )
    assert leaks(text + as_json, parts(keys)) == []
    assert "EncKrbCredPart" in text, "all else is shown, though no key is needed to read it"
    assert text.count(f"contents: {REDACTED}") == 2
    shown = run("inspect", "tickets.kirbi", "--show-keys").out
    assert all(key.hex() in shown for key in keys)


@pytest.mark.parametrize("etype", [-1, 1, 17, 18, 23, 99], ids=lambda etype: f"K430-etype-{etype}")
def test_a_krb_cred_in_the_clear_that_claims_to_be_encrypted_shows_no_key(etype: int) -> None:
    message, keys = clear(etype)
    assert leaks(everything(describe(message.encode(), [crypto.random_key(18)])), parts(keys)) == []


@pytest.mark.parametrize(
    "wrap",
    [
        pytest.param(lambda m: m.encode(), id="K430-kirbi"),
        pytest.param(lambda m: m.enc_part.cipher, id="K430-its-inside"),
        pytest.param(
            lambda m: NegTokenResp(None, None, m.encode(), None).encode(), id="K430-in-a-token"
        ),
        pytest.param(
            lambda m: authenticator(
                issue(18)[0], cksum=Checksum(0x8003, GssChecksum(1, delegation=m.encode()).encode())
            ).encode(),
            id="K430-delegated",
        ),
        pytest.param(
            lambda m: Ticket(
                5, "R", issue(18)[0].service.name, EncryptedData(0, None, m.enc_part.cipher)
            ).encode(),
            id="K430-ticket",
        ),
    ],
)
def test_a_message_in_the_clear_shows_no_key_wherever_it_stands_and_whatever_is_damaged(
    wrap: Callable[[KrbCred], bytes],
) -> None:
    message, keys = clear()
    data = wrap(message)
    found = parts(keys)
    assert leaks(data.hex(), found), "the keys are there"
    texts = [everything(describe(data))]
    for at_ in range(0, len(data), 3):
        for value in (0, 0xFF, data[at_] ^ 1, data[at_] + 16 & 0xFF):
            with suppress(DecodeError):
                texts.append(everything(describe(data[:at_] + bytes([value]) + data[at_ + 1 :])))
    assert len(texts) > 20
    assert leaks("\n".join(texts), found) == []


def test_k430_keys_that_a_kdc_hands_over_as_padata_are_not_shown() -> None:
    """KERB-KEY-LIST-REP (padata type 162) holds keys, and this program does not read it."""
    service_ticket, _ = issue(18)
    secret = bytes(range(200, 216))
    part = EncKdcRepPart(
        service_ticket.session_key, (), 1, None, 0, service_ticket.authtime, None, service_ticket.endtime, None, "R",
        service_ticket.service.name, None, (PaData(162, secret),),
    )  # fmt: skip
    assert leaks(everything(describe(part.encode())), parts([secret])) == []
    assert secret.hex() in everything(describe(part.encode(), show_keys=True))


# -- files


@pytest.mark.parametrize("version", [1, 2, 3, 4])
@pytest.mark.parametrize("order", ["big", "little"])
def test_ccaches_of_every_version(version: int, order: str) -> None:
    if version > 2 and order == "little":
        order = "big"
    tree = describe(CCacheWriter(version, order).file())
    assert at(tree, "credential cache", "principal") == "alice@R.TEST"
    ticket = at(tree, "credential cache", "tickets", 0)
    assert ticket["service"] == "HTTP/web.r.test@R.TEST"
    assert ticket["session_key"] == {"etype": "aes128-cts-hmac-sha1-96", "contents": REDACTED}


def test_a_ccache_shows_its_tickets_and_opens_them(realm: Realm) -> None:
    alice = Credential.from_password("alice@EXAMPLE.TEST", "pw")
    KdcClient(realm.config).get_ticket(alice, WEB)
    tree = describe(alice.ccache.encode(), [entry.key for entry in realm.keytab(WEB)])
    tgt, ticket = at(tree, "credential cache", "tickets")
    assert "decrypted" not in tgt["ticket"]["enc_part"]
    assert (
        at(ticket, "ticket", "enc_part", "decrypted", "EncTicketPart", "cname")
        == "alice (PRINCIPAL 1)"
    )
    assert "initial" in tgt["flags"]
    assert CCache.decode(good_ccache().encode()).principal.realm == "R.TEST"
    assert at(
        describe(good_ccache().encode()), "credential cache", "tickets", 0, "ticket"
    )  # bytes that are no ticket


def test_keytabs_show_everything_but_their_keys() -> None:
    tree = describe(good_keytab().encode())
    assert [entry["kvno"] for entry in tree["keytab"]] == [2, 300, 1]
    assert {entry["key"]["contents"] for entry in tree["keytab"]} == {REDACTED}
    shown = describe(good_keytab().encode(), show_keys=True)
    assert shown["keytab"][0]["key"]["contents"] == bytes(range(1, 17)).hex()
    old = describe(b"\5\1" + _old_keytab_record())
    assert old["keytab"][0]["principal"] == "HTTP/web.r.test@R.TEST"


def _old_keytab_record() -> bytes:
    import sys

    record = keytab_record(version=1, order=sys.byteorder)
    return len(record).to_bytes(4, sys.byteorder) + record


def test_a_damaged_file_is_told_as_both_of_what_it_may_be() -> None:
    with pytest.raises(DecodeError, match=r"neither a keytab \(.*\) nor a credential cache \(.*\)"):
        describe(keytab_file(keytab_record())[:-1])
    with pytest.raises(DecodeError, match="credential cache"):
        describe(CCacheWriter(4).file()[:-1])


# -- how the input comes


def error_bytes() -> bytes:
    return bytes(recorded(18)[0]["received"][0])


@pytest.mark.parametrize(
    "spell",
    [
        bytes.hex,
        lambda data: data.hex().upper(),
        lambda data: data.hex(" ") + "\n",
        lambda data: base64.b64encode(data).decode(),
        lambda data: base64.encodebytes(data).decode(),
        lambda data: base64.urlsafe_b64encode(data).decode().rstrip("="),
    ],
    ids=["hex", "HEX", "hex-with-blanks", "base64", "base64-in-lines", "base64url-unpadded"],
)
def test_text_is_taken_as_an_argument_from_a_file_and_from_standard_input(
    run: Commands, spell: Any
) -> None:
    data = error_bytes()
    (run.directory / "raw").write_bytes(data)
    (run.directory / "text").write_text(spell(data))
    expected = run("inspect", "raw", "--json").out
    assert "KDC_ERR_PREAUTH_REQUIRED" in expected
    for result in (
        run("inspect", "--json", spell(data)),
        run("inspect", "--json", "text"),
        run("inspect", "--json", "-", stdin=spell(data)),
        run("inspect", "--json", stdin=spell(data)),
        run("inspect", "--json", stdin=data),
    ):
        assert (result.code, result.out) == (0, expected)


def test_a_file_counts_before_what_its_name_spells(run: Commands) -> None:
    good_keytab().save(run.directory / "0502")
    assert len(run("inspect", "0502", "--json").json[0]["keytab"]) == 3
    assert run("inspect", "./0502").code == 0
    (run.directory / "0502").unlink()
    assert run("inspect", "0502", "--json").json == [{"keytab": []}]


@pytest.mark.parametrize(
    "text",
    [
        "alice@EXAMPLE.TEST",
        "HTTP/web.example.test@EXAMPLE.TEST",
        "alice",
        "no such file",
        "abc",
        "HTTP/web",
        "",
        "é",
    ],
)
def test_a_name_or_other_text_is_refused(run: Commands, text: str) -> None:
    result = run("inspect", text)
    assert (result.code, result.out) == (8, "")
    assert result.err.count("\n") == 1


# -- garbage and worse


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"\x05",
        b"\x05\x04",
        b"\x05\x09abc",
        b"\x04\x04",
        b"\x05\x04\x00\xff",
        b"\x60",
        b"\x60\x00",
        b"\x60\x84\xff\xff\xff\xff",
        bytes.fromhex("600a06062b0601050502 0000"),  # SPNEGO
        frame(b"\x07\x00", b""),
        frame(b"\x01\x00", b"\x6e"),
        frame(b"\x01\x00", b"\x60" * 100),
        b"\x7e\x80\x00\x00",
        bytes(range(256)),
        b"\x6b\x84\x00\xff\xff\xff",
    ],
    ids=lambda data: data[:12].hex() or "empty",
)
def test_garbage_is_refused_by_a_typed_error(run: Commands, data: bytes) -> None:
    with pytest.raises(KerberosError):
        describe(data)
    result = run("inspect", stdin=data)
    assert result.code in (1, 8)
    assert result.err.count("\n") == 1


def test_every_prefix_and_every_flipped_byte_of_a_message_is_read_or_refused() -> None:
    request = recorded(18)[1]["sent"][0]
    key = key_of(recorded(18)[1]["tgt"]["service_key"])
    assert "TgsReq" in describe(request, [key])
    for size in range(0, len(request), 7):
        with pytest.raises(KerberosError):
            describe(request[:size], [key])
    for index in range(0, len(request), 3):
        damaged = bytearray(request)
        damaged[index] ^= 0x41
        try:
            json.dumps(describe(bytes(damaged), [key]), default=str)
        except KerberosError:
            continue


def test_the_input_is_bounded(run: Commands) -> None:
    with (run.directory / "large").open("wb") as file:
        file.truncate(MAX_INPUT + 1)
    result = run("inspect", "large")
    assert result.code == 8
    assert "larger than 16777216 bytes" in result.err
    assert "larger than" in run("inspect", stdin=bytes(MAX_INPUT + 1)).err
    assert "larger than" in run("inspect", "/dev/zero").err


def test_a_keytab_of_the_largest_size_is_read_in_linear_time() -> None:
    record = keytab_record()
    count = (1 << 20) // (len(record) + 4)
    started = time.process_time()
    tree = describe(keytab_file(*[record] * count))
    assert len(tree["keytab"]) == count
    assert time.process_time() - started < 5


def nested(levels: int, size: int = 0) -> bytes:
    data = AuthorizationData((AuthorizationDataEntry(999, bytes(size)),)).encode()
    for _ in range(levels):
        data = AuthorizationData((AuthorizationDataEntry(AuthDataType.IF_RELEVANT, data),)).encode()
    return data


@pytest.mark.parametrize("levels", [1, 8, 2000])
def test_nested_authorization_data_are_opened_eight_levels_deep(levels: int) -> None:
    authorization_data = AuthorizationData.decode(nested(levels)).entries
    service_ticket, (entry,) = issue(18, authorization_data=authorization_data)
    tree = at(
        describe(service_ticket.ticket, [entry.key]),
        "Ticket",
        "enc_part",
        "decrypted",
        "EncTicketPart",
    )
    depth, inner = 0, tree["authorization_data"]
    while isinstance(inner, list):
        depth, inner = depth + 1, inner[0]["ad_data"]
    assert depth == min(levels, 8) + 1


def test_deeply_nested_der_is_refused() -> None:
    data = b""
    for _ in range(100_000 // 4):
        data = tlv(0x30, data)[:65536]
    with pytest.raises(DecodeError):
        describe(tlv(0x6A, data))


def test_texts_from_the_peer_cannot_forge_lines(run: Commands) -> None:
    template = KrbError.decode(error_bytes())
    error = replace(
        template, e_text="fine\nKrbError\n  error_code: none\x1b[2J", e_data=b"\x30\x00"
    )
    result = run("inspect", error.encode().hex())
    assert result.code == 0
    assert r"  e_text: fine\nKrbError\n  error_code: none\x1b[2J" in result.out.splitlines()
    assert (
        run("inspect", error.encode().hex(), "--json").json[0]["KrbError"]["e_text"] == error.e_text
    )


def test_flags_and_times_of_a_ticket_are_readable() -> None:
    flags = TicketFlags.FORWARDABLE | TicketFlags.OK_AS_DELEGATE
    service_ticket, (entry,) = issue(18, flags=flags)
    tree = at(
        describe(service_ticket.ticket, [entry.key]),
        "Ticket",
        "enc_part",
        "decrypted",
        "EncTicketPart",
    )
    assert tree["flags"] == ["forwardable", "ok-as-delegate"]
    assert tree["endtime"] == service_ticket.endtime
    assert isinstance(EncTicketPart.__doc__, str)


@pytest.mark.parametrize("etype", [17, 18, 19, 20])
def test_tokens_and_messages_of_dce_style_are_taken_apart(etype: int) -> None:
    ticket, keys = issue(etype)
    ours, theirs = Initiator(ticket, flags=Flag.DEFAULT | Flag.DCE_STYLE), acceptor(keys)
    request = ours.step()
    reply = theirs.step(request)
    third_leg = ours.step(reply)
    theirs.step(third_leg)
    session_key = EncryptionKey(etype, ticket.session_key.contents)
    authenticator = at(
        describe(request, [keys[0].key]), "ApReq", "authenticator", "decrypted", "Authenticator"
    )
    assert "DCE_STYLE" in at(authenticator, "cksum", "checksum", "flags")
    numbers = [
        at(
            describe(message, [session_key]),
            "ApRep",
            "enc_part",
            "decrypted",
            "EncApRepPart",
            "seq_number",
        )
        for message in (reply, third_leg)
    ]
    assert numbers[0] == numbers[1]
    token = ours.wrap(b"data")
    (tree,) = describe(token, [ours.session_key]).values()
    assert (tree["EC"], tree["data"], tree["layout"]) == (
        16,
        b"data".hex(),
        "DCE style: rotated by EC + RRC",
    )
    (tree,) = describe(token).values()
    assert tree["data"] == "<sealed>"
    assert "layout" not in tree
    (tree,) = describe(ours.wrap(b"data", sealed=False)).values()
    assert tree["data"] == b"data".hex()
