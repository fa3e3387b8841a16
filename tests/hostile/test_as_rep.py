"""AS-REPs that a client must refuse or survive (K001 to K025). Each case alters one thing of a genuine reply."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from purekrb import crypto
from purekrb.constants import TicketFlags
from purekrb.errors import (
    ClockSkewError,
    DecodeError,
    KerberosError,
    PolicyError,
    PreauthFailedError,
    ProtocolError,
)
from purekrb.exchanges.as_exchange import AsOptions, as_exchange
from purekrb.exchanges.runner import KdcRequest, run
from purekrb.keys import EncryptionKey
from purekrb.messages import der
from purekrb.messages.ap import HostAddress
from purekrb.messages.kdc import EncKdcRepPart, MethodData, PaData
from purekrb.names import Principal, PrincipalName
from support.scripted_kdc import ALICE, NOW, REALM, Password, ScriptedKdc, clock
from support.values import replace

HERE = HostAddress(2, bytes([127, 0, 0, 1]))
THERE = HostAddress(2, bytes([192, 0, 2, 1]))
EVIL = PrincipalName(("host", "evil"))
MALLORY = PrincipalName(("mallory",))


def get(
    kdc: ScriptedKdc,
    options: AsOptions | None = None,
    credential: Password | None = None,
    **more: Any,
) -> Any:
    return run(as_exchange(credential or Password(), options, clock=clock, **more), kdc)


def part(**changes: Any) -> dict[str, Callable[[EncKdcRepPart], EncKdcRepPart]]:
    return {"part": lambda genuine: replace(genuine, **changes)}


def reply(**changes: Any) -> dict[str, Callable[[Any], Any]]:
    return {"reply": lambda genuine: replace(genuine, **changes)}


def ticket(**changes: Any) -> dict[str, Callable[[Any], Any]]:
    return {"ticket": lambda genuine: replace(genuine, **changes)}


def key(etype: int, size: int) -> dict[str, Callable[[bytes], bytes]]:
    """Put a session key of any type and size into the DER, since EncryptionKey does not hold a wrong one."""
    contents = der.tlv(0xA0, der.tlv(2, der.INT32.encode(etype)))
    contents = der.tlv(0x30, contents + der.tlv(0xA1, der.tlv(4, bytes(size))))

    def change(plaintext: bytes) -> bytes:
        _, inner, _ = der.read_header(plaintext, 0, len(plaintext))
        _, first, stop = der.read_header(plaintext, inner, len(plaintext))
        _, _, end = der.read_header(plaintext, first, stop)
        return der.tlv(plaintext[0], der.tlv(0x30, der.tlv(0xA0, contents) + plaintext[end:stop]))

    return {"plaintext": change}


CANONICALIZE = AsOptions(canonicalize=True)
RENEWABLE = AsOptions(renewable_lifetime=7 * 86400)
POSTDATED = AsOptions(starttime=NOW + timedelta(hours=1))
ADDRESSED = AsOptions(addresses=(HERE,))
STRICT_CLOCK = AsOptions(timesync=False)
HOUR_AGO = NOW - timedelta(hours=1)

OPTIONS = [
    AsOptions(),
    CANONICALIZE,
    RENEWABLE,
    POSTDATED,
    ADDRESSED,
    STRICT_CLOCK,
    AsOptions(pac_request=False, forwardable=True, proxiable=True),
]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("preauth", [True, False])
def test_the_unaltered_reply_is_accepted(options: AsOptions, preauth: bool) -> None:
    got = get(ScriptedKdc(preauth=preauth), options)
    assert got.client == ALICE
    assert got.service == Principal.parse(f"krbtgt/{REALM}@{REALM}")
    assert got.caddr == options.addresses
    assert (got.renew_till is not None) == (options.renewable_lifetime is not None)
    assert got.time_offset == timedelta(0)


REFUSED = [
    pytest.param(
        None,
        {"part": lambda p: replace(p, nonce=p.nonce ^ 1)},
        ProtocolError,
        id="K001-nonce-differs",
    ),
    pytest.param(None, reply(cname=MALLORY), ProtocolError, id="K003-cname-differs"),
    pytest.param(None, reply(crealm="OTHER.TEST"), ProtocolError, id="K004-crealm-differs"),
    pytest.param(
        CANONICALIZE,
        {**reply(cname=MALLORY), "enc_pa_rep": False},
        ProtocolError,
        id="K005-cname-changed-and-nobody-vouches-for-the-request",
    ),
    pytest.param(
        None, reply(cname=MALLORY), ProtocolError, id="K005-cname-changed-without-canonicalize"
    ),
    pytest.param(None, part(sname=EVIL), ProtocolError, id="K006-encrypted-sname-differs"),
    pytest.param(
        None,
        {**part(sname=EVIL), **ticket(sname=EVIL)},
        ProtocolError,
        id="K006-encrypted-sname-and-ticket-differ",
    ),
    pytest.param(
        None, part(srealm="OTHER.TEST"), ProtocolError, id="K007-encrypted-srealm-differs"
    ),
    pytest.param(
        None,
        {**part(srealm="OTHER.TEST"), **ticket(realm="OTHER.TEST")},
        ProtocolError,
        id="K007-encrypted-srealm-and-ticket-differ",
    ),
    pytest.param(
        None, ticket(sname=EVIL), ProtocolError, id="K008-only-the-ticket-names-another-service"
    ),
    pytest.param(
        None,
        ticket(realm="OTHER.TEST"),
        ProtocolError,
        id="K008-only-the-ticket-names-another-realm",
    ),
    pytest.param(
        CANONICALIZE,
        {**part(sname=EVIL), **ticket(sname=EVIL)},
        ProtocolError,
        id="K009-canonical-service-is-not-the-tgs",
    ),
    pytest.param(ADDRESSED, part(caddr=(THERE,)), ProtocolError, id="K010-other-address"),
    pytest.param(ADDRESSED, part(caddr=None), ProtocolError, id="K010-address-dropped"),
    pytest.param(None, part(caddr=(THERE,)), ProtocolError, id="K010-address-added"),
    pytest.param(
        None,
        {"part": lambda p: replace(p, endtime=p.endtime + timedelta(seconds=1))},
        ProtocolError,
        id="K011-endtime-after-till",
    ),
    pytest.param(
        RENEWABLE,
        {"part": lambda p: replace(p, renew_till=p.renew_till + timedelta(seconds=1))},
        ProtocolError,
        id="K012-renew-till-after-rtime",
    ),
    pytest.param(
        POSTDATED, part(starttime=NOW), ProtocolError, id="K013-postdated-ticket-starts-now"
    ),
    pytest.param(
        POSTDATED, part(starttime=None), ProtocolError, id="K013-postdated-ticket-names-no-start"
    ),
    pytest.param(
        STRICT_CLOCK,
        part(authtime=HOUR_AGO, starttime=HOUR_AGO),
        ClockSkewError,
        id="K014-authtime-an-hour-ago",
    ),
    pytest.param(
        None, part(starttime=HOUR_AGO), ClockSkewError, id="K014-starttime-an-hour-before-authtime"
    ),
    pytest.param(
        AsOptions(clock_skew=10),
        part(starttime=NOW + timedelta(seconds=12)),
        ClockSkewError,
        id="K014-starttime-beyond-a-small-skew",
    ),
    pytest.param(
        None,
        part(authtime=NOW + timedelta(days=2), starttime=NOW + timedelta(days=2)),
        ClockSkewError,
        id="K015-offset-beyond-the-bound",
    ),
    pytest.param(
        None, {"etypes": (18, 23), "session_etype": 23}, ProtocolError, id="K017-session-key-rc4"
    ),
    pytest.param(None, key(-128, 16), ProtocolError, id="K017-session-key-rc4-md4"),
    pytest.param(None, key(24, 16), ProtocolError, id="K017-session-key-rc4-export"),
    pytest.param(None, key(1, 8), ProtocolError, id="K017-session-key-des"),
    pytest.param(None, key(18, 16), DecodeError, id="K018-aes256-key-of-16-bytes"),
    pytest.param(None, key(18, 0), DecodeError, id="K018-aes256-key-of-no-bytes"),
    pytest.param(
        None, {"plaintext": lambda b: b"\x7b" + b[1:]}, DecodeError, id="K019-application-27"
    ),
    pytest.param(
        None, {"plaintext": lambda b: b"\x30" + b[1:]}, DecodeError, id="K019-no-application-tag"
    ),
    pytest.param(
        None,
        {"message": lambda b: b.replace(b"\xa1\3\2\1\x0b", b"\xa1\3\2\1\x0d", 1)},
        DecodeError,
        id="K020-msg-type-of-a-tgs-rep",
    ),
    pytest.param(
        None, {"message": lambda b: b"\x6d" + b[1:]}, KerberosError, id="K020-tag-of-a-tgs-rep"
    ),
    pytest.param(
        None,
        {"message": lambda b: b.replace(b"\xa0\3\2\1\5", b"\xa0\3\2\1\4", 1)},
        DecodeError,
        id="K021-pvno-4",
    ),
    pytest.param(
        None, {"message": lambda b: b + b"\0"}, DecodeError, id="K022-byte-after-the-message"
    ),
    pytest.param(
        None,
        {"plaintext": lambda b: b + b"\0"},
        DecodeError,
        id="K022-byte-after-the-encrypted-part",
    ),
    # Only DES and DES3 pad the plaintext; the encryption types that purekrb has do not, so nothing is tolerated.
    pytest.param(
        None,
        {"plaintext": lambda b: b + bytes(8)},
        DecodeError,
        id="K022-padding-after-the-encrypted-part",
    ),
]


@pytest.mark.parametrize(("options", "changes", "error"), REFUSED)
def test_an_altered_reply_is_refused(
    options: AsOptions | None, changes: dict[str, Any], error: type[KerberosError]
) -> None:
    offsets: dict[str, timedelta] = {}
    with pytest.raises(error) as caught:
        get(ScriptedKdc(**changes), options, offsets=offsets)
    assert not isinstance(caught.value, PreauthFailedError)
    assert offsets == {}  # a refused reply leaves nothing behind
    get(ScriptedKdc(), options, offsets=offsets)  # the same exchange with an unaltered reply


def test_k002_a_recorded_reply_is_refused_later() -> None:
    recorded: list[bytes] = []

    def record(message: bytes) -> bytes:
        recorded.append(message)
        return message

    get(ScriptedKdc(preauth=False, message=record))
    with pytest.raises(ProtocolError, match="nonce"):
        get(ScriptedKdc(preauth=False, message=lambda _: recorded[0]))


def test_k005_a_canonical_name_is_accepted_when_the_kdc_vouches_for_the_request() -> None:
    kdc = ScriptedKdc(**reply(cname=PrincipalName(("Alice.Real",))))
    assert get(kdc, CANONICALIZE).client == Principal.parse(f"Alice.Real@{REALM}")


def test_k009_a_canonical_tgs_is_accepted_when_the_kdc_vouches_for_the_request() -> None:
    netbios = Principal.parse("alice@EXAMPLE")
    canonical = PrincipalName(("krbtgt", REALM))
    kdc = ScriptedKdc(
        salt=b"salt",
        **part(sname=canonical, srealm=REALM),
        **ticket(sname=canonical, realm=REALM),
        **reply(crealm=REALM),
    )
    got = get(kdc, CANONICALIZE, Password(netbios))
    assert (got.client, got.service) == (ALICE, Principal.parse(f"krbtgt/{REALM}@{REALM}"))
    with pytest.raises(ProtocolError):
        get(replace(kdc, enc_pa_rep=False), CANONICALIZE, Password(netbios))


def test_k015_the_kdc_clock_counts_for_its_tickets_and_its_realm_only() -> None:
    ahead = ScriptedKdc(preauth=False, clock=lambda: NOW + timedelta(hours=1))
    offsets: dict[str, timedelta] = {}
    got = get(ahead, offsets=offsets)
    assert got.time_offset == timedelta(hours=1)
    assert offsets == {REALM: timedelta(hours=1)}
    assert clock() == NOW
    assert get(ScriptedKdc()).time_offset == timedelta(0)  # another exchange, another store


def test_k016_a_reply_in_an_etype_that_was_not_offered_is_refused_before_string_to_key() -> None:
    def rc4(genuine: Any) -> Any:
        return replace(genuine, enc_part=replace(genuine.enc_part, etype=23))

    for preauth in (True, False):
        credential = Password()
        with pytest.raises(ProtocolError, match="not offered"):
            get(ScriptedKdc(preauth=preauth, reply=rc4), credential=credential)
        assert all(etype == 18 for etype, _, _ in credential.asked)


def test_k019_an_encrypted_part_tagged_as_in_a_tgs_rep_is_accepted() -> None:
    assert get(ScriptedKdc(application=13)).client == ALICE


def test_k019_a_reply_encrypted_for_another_usage_does_not_decrypt() -> None:
    class OtherUsage(ScriptedKdc):
        def _finish(
            self, reply: Any, part: Any, key: EncryptionKey, usage: int, application: Any
        ) -> bytes:
            return super()._finish(reply, part, key, 8, application)

    with pytest.raises(PreauthFailedError):
        get(OtherUsage())


@pytest.mark.parametrize(
    "s2kparams",
    [
        pytest.param(bytes(4), id="K023-count-0-that-is-2-to-the-32"),
        pytest.param(b"\0\0\0\1", id="K023-count-1"),
        pytest.param(b"\0\0\x0f\xff", id="K023-one-below-the-default"),
        pytest.param(b"\1\0\0\1", id="K023-one-above-the-cap"),
        pytest.param(b"\xff\xff\xff\xff", id="K023-count-2-to-the-32-less-1"),
        pytest.param(b"\0\0\x10", id="K023-three-bytes"),
        pytest.param(b"", id="K023-no-bytes"),
    ],
)
@pytest.mark.parametrize("preauth", [True, False])
def test_a_hostile_iteration_count_is_refused_at_once(s2kparams: bytes, preauth: bool) -> None:
    kdc = ScriptedKdc()
    info = kdc.etype_info2()
    hostile = replace(ScriptedKdc(), s2kparams=s2kparams)

    class Real(Password):
        def key_for(self, etype: int, salt: bytes, params: bytes | None) -> EncryptionKey | None:
            return crypto.string_to_key(etype, self.password, salt, params)

    class DirectReply(ScriptedKdc):
        def etype_info2(self, *etypes: int) -> PaData:
            return hostile.etype_info2(*etypes)

    kdc = DirectReply(preauth=preauth)
    begun = time.perf_counter()
    with pytest.raises((PolicyError, DecodeError)):
        get(kdc, credential=Real())
    assert (
        time.perf_counter() - begun < 5
    )  # 2^32 iterations take minutes; the messages alone some milliseconds
    assert len(kdc.seen) == 1
    assert info != hostile.etype_info2()


@pytest.mark.parametrize("s2kparams", [None, b"\0\0\x10\0", b"\0\0\x20\0"])
def test_k023_default_and_higher_iteration_counts_are_accepted(s2kparams: bytes | None) -> None:
    credential = Password()
    get(ScriptedKdc(s2kparams=s2kparams, etypes=(18,)), credential=credential)
    assert credential.asked == [(18, f"{REALM}alice".encode(), s2kparams)]


def entry(salt: bytes | None) -> bytes:
    """Return the DER of an ETYPE-INFO2-ENTRY for etype 18 with any bytes as its salt."""
    fields = der.tlv(0xA0, b"\2\1\x12") + (
        b"" if salt is None else der.tlv(0xA1, der.tlv(0x1B, salt))
    )
    return der.tlv(0x30, der.tlv(0x30, fields))


@pytest.mark.parametrize(
    "salt",
    [
        pytest.param(b"s" * (1 << 20), id="K024-salt-of-1-MiB"),
        pytest.param(b"EXAMPLE\0alice", id="K024-salt-with-NUL"),
        pytest.param(b"EXAMPLE\xff\xfe", id="K024-salt-that-is-not-UTF-8"),
    ],
)
def test_a_hostile_salt_is_refused(salt: bytes) -> None:
    methods = (PaData(19, entry(salt)), PaData(2, b""))
    kdc = ScriptedKdc()
    kdc.answer = lambda request, realm: kdc.error(25, e_data=MethodData(methods).encode())
    with pytest.raises(DecodeError):
        get(kdc)
    assert len(kdc.seen) == 1


@pytest.mark.parametrize("salt", [b"", b"EXAMPLE.TESTalice", "salzig-ß".encode(), b"s" * 8000])
def test_k024_odd_but_legal_salts_are_used_as_they_are(salt: bytes) -> None:
    credential = Password()
    get(ScriptedKdc(salt=salt), credential=credential)
    assert credential.asked[0][1] == salt


def test_k024_an_absent_salt_stands_for_realm_and_name() -> None:
    credential = Password(Principal.parse(f"alice/admin@{REALM}"))
    get(ScriptedKdc(salt=None), credential=credential)
    assert credential.asked[0][1] == b"EXAMPLE.TESTaliceadmin"


@pytest.mark.parametrize(
    ("listed", "options", "chosen"),
    [
        pytest.param((23, 18, 18, 999), AsOptions(), 18, id="K025-rc4-first-duplicate-and-unknown"),
        pytest.param((23, 17, 18), AsOptions(), 18, id="K025-strongest-last"),
        pytest.param(
            (23, 17),
            AsOptions(etypes=(23, 17)),
            17,
            id="K025-aes-before-rc4-even-when-permitted-first",
        ),
        pytest.param((999, 19, -128), AsOptions(), 19, id="K025-one-that-is-known"),
    ],
)
def test_the_strongest_permitted_etype_is_chosen(
    listed: tuple[int, ...], options: AsOptions, chosen: int
) -> None:
    credential = Password()
    kdc = ScriptedKdc(etypes=(23, 17, 18, 19))
    listing = kdc.etype_info2(*listed)
    kdc.answer = lambda request, realm: (
        kdc.preauth_required(listing, PaData(2, b"")) if len(kdc.seen) == 1 else None
    )
    get(kdc, options, credential)
    assert [etype for etype, _, _ in credential.asked] == [chosen]


def test_k025_of_two_entries_for_one_etype_the_first_counts() -> None:
    from purekrb.messages.kdc import EtypeInfo2, EtypeInfo2Entry

    credential = Password()
    kdc = ScriptedKdc(salt=b"first")
    twice = EtypeInfo2(
        (EtypeInfo2Entry(18, b"first", None), EtypeInfo2Entry(18, b"second", None))
    ).encode()
    kdc.answer = lambda request, realm: (
        kdc.preauth_required(PaData(19, twice), PaData(2, b"")) if len(kdc.seen) == 1 else None
    )
    get(kdc, credential=credential)
    assert [salt for _, salt, _ in credential.asked] == [b"first"]


def test_any_flipped_bit_of_a_reply_is_refused_or_changes_nothing() -> None:
    """What no checksum covers may change (padata, kvno, name-type); names, times and keys may not."""
    genuine: list[bytes] = []
    nonces = iter([b"\1\2\3\4"] * 10_000)

    def record(message: bytes) -> bytes:
        genuine.append(message)
        return message

    def random(n: int) -> bytes:
        return next(nonces)[:n] if n == 4 else bytes(n)

    good = get(ScriptedKdc(preauth=False, message=record), random=random)
    request: list[KdcRequest] = []
    exchange = as_exchange(Password(), clock=clock, random=random)
    request.append(next(exchange))
    message = genuine[0]
    survived = 0
    for bit in range(0, len(message) * 8, 7):
        altered = bytearray(message)
        altered[bit // 8] ^= 1 << bit % 8
        exchange = as_exchange(Password(), clock=clock, random=random)
        next(exchange)
        try:
            exchange.send(bytes(altered))
        except StopIteration as done:
            survived += 1
            got = done.value
            assert (got.client, got.service, got.session_key) == (
                good.client,
                good.service,
                good.session_key,
            )
            assert (got.flags, got.endtime, got.authtime) == (
                good.flags,
                good.endtime,
                good.authtime,
            )
        except KerberosError:
            pass
    assert survived < len(message) * 8 // 7 * 0.7  # the ticket's ciphertext is opaque to the client
    assert good.flags & TicketFlags.INITIAL
