"""Windows' status numbers for refused logons, in words.

A domain controller puts an NTSTATUS into its KRB-ERRORs, and a Windows error number into the
diagnostic text of a refused LDAP bind. Both tell the reason, where the protocol's own code covers
several. Neither is authenticated in a KRB-ERROR, so nothing is decided by them. Source: MS-ERREF
2.2, 2.3.1; MS-KILE 2.2.1.
"""

from __future__ import annotations

__all__ = ["CHANGE_IT", "LOGON_STATUS", "STATUS_BAD_BINDINGS", "WIN32_STATUS", "describe"]

_ENABLE = "ask the domain's administrator to enable it"
#: What to do about a password that the KDC does not take any more.
CHANGE_IT = (
    "change it with `purekrb kpasswd`, kpasswd of MIT or Heimdal, on a Windows machine, or by the "
    "administrator"
)
_POLICY = "ask the domain's administrator what the account may do"
_ENTER_AGAIN = "enter it again, or have the administrator set a new one"
#: NTSTATUS -> what it says about the account, and the advice.
LOGON_STATUS: dict[int, tuple[str, str]] = {
    0xC000005E: ("no domain controller was available to the one that was asked", "try again later"),
    0xC0000064: ("the domain has no such account", "check the name"),
    0xC000006A: ("the password is wrong", _ENTER_AGAIN),
    0xC000006D: ("the name or the password is wrong", _ENTER_AGAIN),
    0xC000006E: (
        "a restriction of the account (blank password, silo or authentication policy) forbids this",
        _POLICY,
    ),
    0xC000006F: ("the account may not log on at this hour", "try again in its logon hours"),
    0xC0000070: (
        "the account may not log on from this workstation",
        "use one of its workstations, or ask the domain's administrator to add this one",
    ),
    0xC0000071: ("the password has expired", CHANGE_IT),
    0xC0000072: ("the account is disabled", _ENABLE),
    0xC0000133: ("the clocks of this machine and the domain controller differ", "set them (NTP)"),
    0xC000015B: ("the account does not have this kind of logon right", _POLICY),
    0xC0000190: ("the trust between the domains failed", "have the administrator repair the trust"),
    0xC0000192: ("the domain controller's Netlogon service does not run", "have it started"),
    0xC0000193: ("the account has expired", "ask the domain's administrator to extend it"),
    0xC0000198: ("this is the account of a trust, which cannot log on", "use another account"),
    0xC0000199: ("this is a computer's account, which may not log on here", "use a user's account"),
    0xC000019A: (
        "this is a domain controller's account, which may not log on here",
        "use a user's account",
    ),
    0xC000019B: ("the trust between the domains is inconsistent", "have it set up again"),
    0xC0000224: ("the password must be changed before the first logon", CHANGE_IT),
    0xC0000234: (
        "the account is locked after wrong passwords",
        "wait until the lock ends, or ask the domain's administrator to unlock it",
    ),
    0xC00002F9: ("the certificate is for another name", "choose the account's own certificate"),
    0xC00002FA: (
        "the account requires a smart card",
        "log in with the smart card, or ask the domain's administrator to permit passwords",
    ),
    0xC0000320: ("the domain controller's certificate is not usable for PKINIT", "have it renewed"),
    0xC000035B: (
        "the channel bindings are missing or belong to another TLS connection",
        "something between terminates TLS, or this side sent no channel bindings",
    ),
    0xC0000388: ("the security was weakened on the way", "try again over another network"),
    0xC000038A: ("the certificate's issuer is not trusted", "have the issuer added to NTAuth"),
    0xC000038B: ("the certificate's revocation cannot be checked", "have its CRL published"),
    0xC0000389: ("the certificate is revoked", "get a new one"),
    0xC000038C: ("the certificate is not accepted", "get one that the domain trusts for log-on"),
    0xC000038D: ("the certificate has expired", "get a new one"),
    0xC0000408: (
        "the service takes user-to-user tickets only",
        "register the SPN for an account with a key, or ask with the TGT of the service "
        "(get_ticket(..., user_to_user=), kvno --u2u)",
    ),
    0xC000040E: ("the domain controller's certificate has expired", "have it renewed"),
    0xC000040F: ("the domain controller's certificate is revoked", "have it replaced"),
    0xC0000413: (
        "selective authentication: the account is not on the allow-list of that machine",
        'ask its administrator for the right "Allowed to authenticate"',
    ),
    0xC0000418: ("NTLM is blocked in the domain", "use Kerberos: call the service by its SPN"),
}

STATUS_BAD_BINDINGS = 0xC000035B
#: Windows' error number, as in `data 52e` of an LDAP bind's diagnostic text -> its NTSTATUS.
WIN32_STATUS: dict[int, int] = {
    0x35B: 0xC000035B,  # 80090346 comes with the low half of the NTSTATUS
    0x525: 0xC0000064,
    0x52E: 0xC000006D,
    0x52F: 0xC000006E,
    0x530: 0xC000006F,
    0x531: 0xC0000070,
    0x532: 0xC0000071,
    0x533: 0xC0000072,
    0x569: 0xC000015B,
    0x701: 0xC0000193,
    0x773: 0xC0000224,
    0x775: 0xC0000234,
    0x78F: 0xC0000413,
}


def describe(status: int) -> tuple[str, str]:
    """Return what an NTSTATUS says, and the advice; "" if there is none for this number."""
    return LOGON_STATUS.get(status) or (f"the domain controller's reason is 0x{status:08X}", "")
