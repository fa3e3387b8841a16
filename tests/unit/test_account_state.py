"""What a directory tells of an account's state, and what is said of it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

import pytest

from purekrb.directory import Account, Directory, EmbeddedDirectory
from purekrb.directory.account_state import (
    AccountState,
    account_findings,
    etype_finding,
    give_aes,
    read_state,
    state_of,
)
from purekrb.directory.answers import Entry
from purekrb.directory.transaction import transaction
from purekrb.errors import DirectoryError, InsufficientRightsError
from purekrb.findings import Finding

NOW = datetime(2026, 11, 29, 12, tzinfo=timezone.utc)
EPOCH = datetime(1601, 1, 1, tzinfo=timezone.utc)


def filetime(at: datetime) -> str:
    return str(int((at - EPOCH).total_seconds()) * 10_000_000)


@pytest.fixture
def directory() -> Iterator[EmbeddedDirectory]:
    with Directory.embedded("example.test") as directory:
        directory.add_user("svc")
        yield directory


def state(account: Account, **attributes: str) -> AccountState:
    """The state of an account with these attributes, in which "_" stands for "-"."""
    values = {name.replace("_", "-"): (text.encode(),) for name, text in attributes.items() if text}
    return state_of(account, Entry(account.dn, values))


def found(account: Account, **attributes: str) -> list[Finding]:
    return list(account_findings(state(account, **{**AS_IT_SHOULD_BE, **attributes}), NOW))


@pytest.fixture
def account(directory: EmbeddedDirectory) -> Account:
    return directory.find_account("svc")


AS_IT_SHOULD_BE = {
    "userAccountControl": "512",
    "pwdLastSet": filetime(NOW - timedelta(days=20)),
    "accountExpires": "9223372036854775807",
}


def test_nothing_is_said_of_an_account_as_it_should_be(account: Account) -> None:
    assert found(account) == []
    numbers = {"msDS_KeyVersionNumber": "3", "msDS_SupportedEncryptionTypes": "24"}
    shown = state(account, **AS_IT_SHOULD_BE, **numbers)
    assert (shown.kvno, shown.has_aes, shown.ends) == (3, True, None)
    assert shown.password_set == NOW - timedelta(days=20)
    assert shown.facts == (
        "kvno 3; encryption types: aes128-cts-hmac-sha1-96, aes256-cts-hmac-sha1-96; "
        "its password was set on 2026-11-09"
    )


@pytest.mark.parametrize(
    ("attributes", "status", "cause", "remedy"),
    [
        ({"userAccountControl": "514"}, "failed", "is disabled", "samba-tool user enable svc"),
        ({"userAccountControl": "262656"}, "warning", "smart card", "SMARTCARD_REQUIRED"),
        (
            {"userAccountControl": "524800"},
            "warning",
            "TRUSTED_FOR_DELEGATION",
            "samba-tool delegation for-any-service svc off",
        ),
        ({"userAccountControl": "2097664"}, "failed", "only use DES", "UseDESKeyOnly 0"),
        ({"userAccountControl": "4194816"}, "warning", "no pre-auth", "DoesNotRequirePreAuth 0"),
        (
            {"msDS_User_Account_Control_Computed": "16"},
            "failed",
            "is locked",
            "samba-tool user unlock svc",
        ),
        ({"pwdLastSet": "0"}, "failed", "must change its password", "samba-tool user setpassword"),
        (
            {"msDS_User_Account_Control_Computed": "8388608"},
            "failed",
            "a password that has expired",
            "make its keytab again",
        ),
        (
            {"msDS_UserPasswordExpiryTimeComputed": filetime(NOW + timedelta(days=3))},
            "warning",
            "the password of CN=svc,CN=Users,DC=example,DC=test expires on 2026-12-02 12:00Z",
            "samba-tool user setpassword svc",
        ),
        (
            {"pwdLastSet": filetime(NOW - timedelta(days=400))},
            "warning",
            "has had its password since 2025-10-25",
            "long random password",
        ),
        (
            {"accountExpires": filetime(NOW - timedelta(days=1))},
            "failed",
            "the account CN=svc,CN=Users,DC=example,DC=test has expired on 2026-11-28 12:00Z",
            "samba-tool user setexpiry svc --noexpiry",
        ),
        (
            {"accountExpires": filetime(NOW + timedelta(days=13))},
            "warning",
            "expires on 2026-12-12",
            "Clear-ADAccountExpiration svc",
        ),
    ],
)
def test_each_state_is_told_with_its_remedy(
    account: Account, attributes: dict[str, str], status: str, cause: str, remedy: str
) -> None:
    (finding,) = found(account, **attributes)
    assert (finding.step, finding.status) == ("account", status)
    assert cause in finding.text
    assert "CN=svc" in finding.text
    assert remedy in finding.remedy


@pytest.mark.parametrize("days", [15, 4000])
def test_an_end_that_is_far_away_is_no_matter(account: Account, days: int) -> None:
    far = filetime(NOW + timedelta(days=days))
    assert found(account, accountExpires=far, msDS_UserPasswordExpiryTimeComputed=far) == []


def test_domain_controllers_are_trusted_by_design(account: Account) -> None:
    old = filetime(NOW - timedelta(days=900))
    assert found(account, userAccountControl="532480", pwdLastSet=old) == []


def test_a_state_that_is_hidden_is_not_taken_for_good(account: Account) -> None:
    assert found(account, userAccountControl="") == []  # no domain controller: it tells no keys
    (finding,) = found(account, userAccountControl="", msDS_KeyVersionNumber="3")
    assert finding.status == "skipped"
    assert "does not show its userAccountControl" in finding.text


@pytest.mark.parametrize("value", ["soon", "1e9", "99999999999999999999", " 1", "\uff11"])
def test_k645_times_that_are_none_are_refused(account: Account, value: str) -> None:
    with pytest.raises(DirectoryError, match="expected a FILETIME"):
        found(account, accountExpires=value)


@pytest.mark.parametrize("value", ["-1", "0", "9223372036854775806", "9223372036854775807"])
def test_times_that_no_calendar_has_are_never(account: Account, value: str) -> None:
    assert found(account, accountExpires=value) == []


def test_k646_a_name_in_a_remedy_is_one_word_of_a_shell(directory: EmbeddedDirectory) -> None:
    name = "a b;$(reboot)`'"
    (finding,) = found(directory.add_user(name), userAccountControl="514")
    command = finding.remedy.partition("(")[2].removesuffix(")").partition(", ")[0]
    assert shlex.split(command) == ["Enable-ADAccount", name]


class Refusing:
    """A session of an account that may not write; it may say who it is."""

    def __init__(self, directory: EmbeddedDirectory, *, known: bool) -> None:
        self._session, self._known = directory._session, known
        self.domain, self.base_dn = self._session.domain, self._session.base_dn

    def modify(self, dn: str, changes: object) -> None:
        raise InsufficientRightsError("no right", code=8344)

    def search(self, base: str, *arguments: object, **options: object) -> object:
        if not base:
            sid = self._session.search("", "(objectClass=*)", ("tokenGroups",))
            return sid if not self._known else [Known(self._session)]
        return self._session.search(base, *arguments, **options)  # type: ignore[arg-type]


class Known:
    def __init__(self, session: object) -> None:
        (entry,) = session.search("DC=example,DC=test", "(sAMAccountName=svc)", ("objectSid",))  # type: ignore[attr-defined]
        self.attributes = {"tokenGroups": entry.attributes["objectSid"]}


@pytest.mark.parametrize("known", [True, False])
def test_a_missing_right_is_told_with_who_grants_it(
    directory: EmbeddedDirectory, known: bool
) -> None:
    account = directory.find_account("svc")
    with transaction() as undo:
        finding = give_aes(Refusing(directory, known=known), state(account), undo)  # type: ignore[arg-type]
    assert finding is not None
    assert finding.status == "failed"
    assert "may not set its msDS-SupportedEncryptionTypes" in finding.text
    who = (
        (f"svc@{directory._session.domain}", str(account.sid))
        if known
        else ("ACCOUNT@example.test", "SID")
    )
    assert f'/G "{who[0]}:WP;msDS-SupportedEncryptionTypes"' in finding.remedy
    assert f"(OA;;WP;20119867-1d04-4ab7-9371-cfc3d5df0afd;;{who[1]})" in finding.remedy


def test_the_remedy_of_a_computer_is_for_computers(directory: EmbeddedDirectory) -> None:
    account = directory.add_computer("web.example.test")
    remedy = etype_finding(read_state(directory._session, account)).remedy
    assert "Set-ADComputer 'WEB$' -KerberosEncryptionType" in remedy
    assert "Set-ADUser" not in remedy
