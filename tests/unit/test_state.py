"""The state file of an installed service."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from purekrb.directory.state import ServiceState, StateAccount, default_path
from purekrb.errors import CredentialError, DecodeError, RegistrationError
from purekrb.sid import Sid

GUID = UUID("a762885a-aa44-11d2-81f1-00c04fb9624e")
ACCOUNT = StateAccount(
    "CN=svc,CN=Users,DC=ad,DC=test", "svc", UUID(int=1), Sid.parse("S-1-5-21-1-2-3-1104")
)
STATE = ServiceState(
    object_guid=GUID,
    scp_dn="CN=SockAuthAD,CN=WEB,CN=Computers,DC=ad,DC=test",
    domain="ad.test",
    spns=(
        "ADSockAuth/web.ad.test/CN=SockAuthAD,CN=WEB,CN=Computers,DC=ad,DC=test",
        f"ADSockAuth/web.ad.test/{GUID}",
    ),
    account=ACCOUNT,
)


@pytest.mark.parametrize(
    "state", [STATE, replace(STATE, account=None, spns=())], ids=["domain", "local"]
)
def test_a_state_is_read_as_it_was_saved_and_belongs_to_its_owner_alone(
    state: ServiceState, tmp_path: Path
) -> None:
    path = tmp_path / "new" / "files.json"
    state.save(path)
    state.save(path)
    assert ServiceState.load(path) == state
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(path.parent) == ["files.json"]


def test_the_scp_is_remembered_as_windows_does_it() -> None:
    assert STATE.guid_binding_string == "LDAP://<GUID=5a8862a744aad21181f100c04fb9624e>"
    fields = json.loads(STATE.encode())
    assert fields["guid_binding_string"] == STATE.guid_binding_string
    for spelling in ("5A8862A744AAD21181F100C04FB9624E", str(GUID), str(GUID).upper()):
        fields["guid_binding_string"] = f"LDAP://<GUID={spelling}>"
        assert ServiceState.decode(json.dumps(fields).encode()) == STATE


def changed(**changes: Any) -> bytes:
    return json.dumps({**json.loads(STATE.encode()), **changes}).encode()


def without(name: str) -> bytes:
    return json.dumps({k: v for k, v in json.loads(STATE.encode()).items() if k != name}).encode()


BAD = {
    "empty": b"",
    "no JSON": b"LDAP://<GUID=5a8862a744aad21181f100c04fb9624e>",
    "no UTF-8": b"\xff" + STATE.encode(),
    "cut": STATE.encode()[:-10],
    "a list": b"[1]",
    "a number": b"1",
    "nested without end": b"[" * 100_000,
    "another version": changed(format_version=2),
    "a version that is true": changed(format_version=True),
    "a version as text": changed(format_version="1"),
    **{f"without {name}": without(name) for name in json.loads(STATE.encode())},
    "an account without a SID": changed(
        account={"dn": "CN=a", "name": "a", "object_guid": str(GUID)}
    ),
    "an account that is text": changed(account="svc"),
    "a SID that is none": changed(account={**json.loads(STATE.encode())["account"], "sid": "S-1"}),
    "a GUID that is none": changed(guid_binding_string="LDAP://<GUID=5a8862a7>"),
    "a GUID with braces": changed(guid_binding_string=f"LDAP://<GUID={{{GUID}}}>"),
    "a DN in place of the GUID": changed(guid_binding_string="LDAP://CN=x"),
    "SPNs as one text": changed(spns="cls/web"),
    "an SPN that is none": changed(spns=["cls"]),
    "an SPN that is a number": changed(spns=[1]),
    "a DN that is null": changed(scp_dn=None),
    "a DN with NUL": changed(scp_dn="CN=a\0"),
    "a DN without end": changed(scp_dn="CN=" + "a" * 5000),
    "an empty domain": changed(domain=""),
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
def test_a_state_file_that_is_not_as_it_was_written_is_refused(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_bytes(data)
    path.chmod(0o600)
    with pytest.raises(RegistrationError, match="state file") as refused:
        ServiceState.load(path)
    assert refused.value.reason == "NO_STATE"
    with pytest.raises(DecodeError):
        ServiceState.decode(data)


def link(path: Path) -> None:
    real = path.with_suffix(".real")
    path.rename(real)
    path.symlink_to(real)


def link_of_another_user(path: Path) -> None:
    link(path)
    os.lchown(path, 65534, 65534)


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


SPOILED: dict[str, Callable[[Path], Any]] = {
    "missing": Path.unlink,
    **({"a link of another user": link_of_another_user} if os.geteuid() == 0 else {}),
    "a FIFO": fifo,
    "writable by others": lambda path: path.chmod(0o666),
    "too large": lambda path: path.write_bytes(STATE.encode() + b" " * (1 << 20)),
}


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED)
def test_a_state_file_that_anyone_may_have_put_there_is_refused(
    spoil: Callable[[Path], Any], tmp_path: Path
) -> None:
    path = tmp_path / "state.json"
    STATE.save(path)
    assert ServiceState.load(path) == STATE
    spoil(path)
    with pytest.raises(RegistrationError, match="state file") as refused:
        ServiceState.load(path)
    assert refused.value.reason == "NO_STATE"


def test_a_link_of_ones_own_is_followed(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    STATE.save(path)
    link(path)
    assert ServiceState.load(path) == STATE


def test_a_state_is_not_saved_through_a_link(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CredentialError, match="symbolic link"):
        STATE.save(path)
    (tmp_path / "file").write_text("")
    with pytest.raises(CredentialError, match="directory"):
        STATE.save(tmp_path / "file" / "state.json")
    assert not (tmp_path / "elsewhere").exists()


def test_each_scp_has_a_file_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_STATE_HOME", "/s")
    assert default_path("ADSockAuth", "Sock Auth") == "/s/purekrb/ADSockAuth/Sock_Auth.json"
    assert default_path("../..", "/etc/passwd\0") == "/s/purekrb/_../_etc_passwd_.json"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_path("a", "b") == "/s/purekrb/a/b.json"
    monkeypatch.delenv("XDG_STATE_HOME")
    assert default_path("a", "b") == "/var/lib/purekrb/a/b.json"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("HOME", "/home/svc")
    assert default_path("a", "b") == "/home/svc/.local/state/purekrb/a/b.json"
