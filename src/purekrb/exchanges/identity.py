"""The identity of a ticket's client: its principal, and the facts about its account in the PAC.

Only data that the KDC signed with the service's own key count. So the order is: find the PAC,
verify its server signature, and only then decode its buffers. Source: MS-PAC 2.8, MS-KILE 3.4.5.3.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from purekrb import crypto
from purekrb.constants import AuthDataType, ErrorCode, KeyUsage
from purekrb.errors import IntegrityError, PacError
from purekrb.exchanges.authorization_data import relevant_entries
from purekrb.keys import EncryptionKey, etype_name
from purekrb.log import Log
from purekrb.messages.ap import AuthorizationData, AuthorizationDataEntry, EncTicketPart
from purekrb.messages.pac import ClientInfo, LogonInfo, Pac, PacBuffer, UpnDnsInfo
from purekrb.names import Principal
from purekrb.sid import Sid
from purekrb.text import visible
from purekrb.tracebacks import forget_frames

__all__ = ["ClientIdentity", "client_identity", "verified_pac"]

log = Log("purekrb.ap")

ClaimValue = int | str | bool
#: SE_GROUP_USE_FOR_DENY_ONLY: a membership that only takes rights away. Source: MS-PAC 2.2.1.
_DENY_ONLY = 0x10


@dataclass(frozen=True, slots=True)
class ClientIdentity:
    """The identity of a client.

    `principal` is always known. The other fields come from the PAC; they are None or () if the PAC
    does not tell them.

    - `has_pac`: whether the ticket holds a PAC, which is then verified. Tickets of KDCs without a
      directory have none.
    - `foreign`: whether the client and the service have different realms. Then only the client's
      realm vouches for the names.
    - `user_sid`: the account's SID as text, S-1-5-21-... Grant rights to SIDs: a name can pass to
      another account.
    - `group_sids`: the SIDs of its groups, the primary group first, without deny-only groups.
    - `domain`, `name`: the NetBIOS name of its domain and the account's name, as in DOMAIN\\name.
      The name of a computer ends in `$`.
    - `full_name`: the display name.
    - `upn`: the user principal name, alice@example.test. If the account has none, the KDC makes
      one up.
    - `dns_domain`: the DNS name of its domain.
    - `claims`, `device_claims`: what the directory claims of the account, and of the computer that it
      used: identifier -> values.
    """

    principal: Principal
    has_pac: bool = False
    user_sid: str | None = None
    group_sids: tuple[str, ...] = ()
    domain: str | None = None
    name: str | None = None
    full_name: str | None = None
    upn: str | None = None
    dns_domain: str | None = None
    foreign: bool = False
    #: The buffers of a verified PAC. A program that uses no claims does not pay for them.
    _claims: bytes | None = field(default=None, repr=False)
    _device_claims: bytes | None = field(default=None, repr=False)

    @property
    def claims(self) -> dict[str, tuple[ClaimValue, ...]]:
        """What the client's domain controller claims of its account: identifier -> values.

        Values are numbers, text and truth values. If the client is `foreign`, only its realm vouches
        for them. Raises PacError if they are malformed or have more than 60,000 bytes, and
        UnsupportedError if they are compressed and the extra `claims` is not installed. Source: MS-PAC
        2.11, MS-ADTS 2.2.18.
        """
        return _claims_in(self._claims)

    @property
    def device_claims(self) -> dict[str, tuple[ClaimValue, ...]]:
        """What is claimed of the computer that the client used, as `claims`. Source: MS-PAC 2.13."""
        return _claims_in(self._device_claims)

    @property
    def sids(self) -> tuple[str, ...]:
        """The SIDs of the account and of its groups, as text; () without a PAC."""
        return (*(() if self.user_sid is None else (self.user_sid,)), *self.group_sids)

    def __str__(self) -> str:
        """DOMAIN\\name if the PAC has both and the domain is the client's realm, or the principal.

        The KDC of another realm may choose any names, and the service's KDC passes them on. So for
        a client of another realm this is always the principal. Characters that a terminal does not
        show are escaped.
        """
        ours = self.name and self._is_of_its_realm()
        return visible(f"{self.domain}\\{self.name}" if ours else str(self.principal))

    def _is_of_its_realm(self) -> bool:
        realm = self.principal.realm.casefold()
        if not self.domain or self.foreign:
            return False
        if self.dns_domain:
            return self.dns_domain.casefold() == realm
        # A NetBIOS name has at most 15 characters; by default they are the first of the DNS name.
        return self.domain.casefold() == realm.partition(".")[0][:15]


@forget_frames
def client_identity(
    ticket: EncTicketPart,
    service_key: EncryptionKey,
    *,
    required: bool = False,
    realm: str | None = None,
) -> ClientIdentity:
    """Return the identity of a ticket's client. Raises PacError.

    `ticket`, `service_key` and `required` are those of `verified_pac`. `realm` is the service's
    realm; without it, the client counts as a client of the same realm.
    """
    client = ticket.cname.principal(ticket.crealm)
    foreign = realm is not None and client.realm != realm
    pac = verified_pac(ticket, service_key, required=required)
    if pac is None:
        log.debug("the ticket of %s holds no PAC: its SIDs are unknown", client)
        return ClientIdentity(client, foreign=foreign)
    log.debug("the PAC of %s is verified", client)
    logon_info, upn_info = pac.buffer(PacBuffer.LOGON_INFO), pac.buffer(PacBuffer.UPN_DNS_INFO)
    requester = pac.buffer(PacBuffer.REQUESTER_SID)
    logon = None if logon_info is None else LogonInfo.decode(logon_info)
    names = None if upn_info is None else UpnDnsInfo.decode(upn_info)
    if logon is not None:
        # Three places name the account. If a KDC was made to mix up two accounts, they differ
        # (CVE-2020-25719).
        _check_same(
            logon.user_sid, None if requester is None else requester == logon.user_sid.encode()
        )
        _check_same(
            logon.user_sid,
            None if names is None or names.sid is None else names.sid == logon.user_sid,
        )
    return ClientIdentity(
        principal=client,
        has_pac=True,
        user_sid=None if logon is None else str(logon.user_sid),
        group_sids=() if logon is None else _group_sids(logon),
        domain=None if logon is None else logon.domain,
        name=None if logon is None else logon.effective_name,
        full_name=None if logon is None else logon.full_name,
        upn=None if names is None else names.upn,
        dns_domain=None if names is None else names.dns_domain,
        foreign=foreign,
        _claims=pac.buffer(PacBuffer.CLIENT_CLAIMS_INFO),
        _device_claims=pac.buffer(PacBuffer.DEVICE_CLAIMS_INFO),
    )


@forget_frames
def _claims_in(buffer: bytes | None) -> dict[str, tuple[ClaimValue, ...]]:
    if not buffer:
        return {}
    from purekrb.messages.pac_buffers import Claims  # only who asks for claims pays for it

    found: dict[str, tuple[ClaimValue, ...]] = {}
    for claim in Claims.decode(buffer).claims():
        if claim.id in found:
            raise PacError("the PAC holds a claim twice")
        found[claim.id] = claim.values
    return found


@forget_frames
def verified_pac(
    ticket: EncTicketPart, service_key: EncryptionKey, *, required: bool = False
) -> Pac | None:
    """Return the ticket's verified PAC, or None if there is no PAC. Raises PacError.

    The PAC must be signed with `service_key`, which decrypted the ticket, with the checksum type of
    that key. It must name the ticket's client and authtime. With `required`, the ticket must have a
    PAC, and the KDC must have signed ticket and PAC as a whole (CVE-2020-17049, CVE-2022-37967).
    Only KDCs can verify these two signatures.
    """
    data = _find_pac(ticket.authorization_data)
    if data is None:
        if required:
            raise _not_acceptable("the ticket holds no PAC")
        return None
    pac = Pac.decode(data)
    server, kdc = pac.signature(PacBuffer.SERVER_CHECKSUM), pac.signature(PacBuffer.KDC_CHECKSUM)
    # MS-PAC 2.8: both signatures are always there.
    if server is None or kdc is None:
        raise PacError(
            "the PAC is not signed: it needs the signatures of the service's key and of the KDC's"
        )
    # A weaker checksum type than that of the key would let an attacker forge a PAC.
    if server.cksumtype != crypto.profile_of(service_key.etype).checksum_type:
        raise PacError(
            f"the PAC is signed with checksum type {server.cksumtype}, "
            f"which is not that of the service's {etype_name(service_key.etype)} key"
        )
    # MS-PAC 2.8: the server signature covers the whole PAC.
    try:
        crypto.verify_checksum(
            service_key, KeyUsage.KERB_NON_KERB_CKSUM_SALT, pac.signed_data(), server.signature
        )
    except IntegrityError:
        raise PacError(
            "the PAC's server signature is wrong: it was altered, or made for another service"
        ) from None
    # MS-PAC 2.7: the client information ties the PAC to its ticket.
    client_info = pac.buffer(PacBuffer.CLIENT_INFO)
    if client_info is None:
        raise PacError("the PAC does not name its client")
    about = ClientInfo.decode(client_info)
    if about.name != "/".join(ticket.cname.components) or about.authtime != ticket.authtime:
        raise PacError("the PAC has another client or another authtime than its ticket")
    if required:
        for kind in (PacBuffer.TICKET_CHECKSUM, PacBuffer.FULL_CHECKSUM):
            if pac.signature(kind) is None:
                raise _not_acceptable(f"the KDC made no {kind.name}")
    return pac


def _not_acceptable(why: str) -> PacError:
    return PacError(
        f"{why}, and this acceptor requires a PAC: "
        "update the domain controllers, or allow tickets without PAC",
        code=ErrorCode.KDC_ERR_POLICY,
    )


def _find_pac(entries: tuple[AuthorizationDataEntry, ...] | None) -> bytes | None:
    """Return the one PAC, which must be in a top-level AD-IF-RELEVANT, or None. MS-PAC 3.1.1."""
    found = [
        entry.ad_data
        for entry in relevant_entries(entries)
        if entry.ad_type == AuthDataType.WIN2K_PAC
    ]
    if not found:
        return None
    proper = [
        entry.ad_data
        for outer in entries or ()
        if outer.ad_type == AuthDataType.IF_RELEVANT
        for entry in AuthorizationData.decode(outer.ad_data).entries
        if entry.ad_type == AuthDataType.WIN2K_PAC
    ]
    if len(found) > 1 or proper != found:
        raise PacError("the ticket holds several PACs, or one in a place where no KDC puts it")
    return proper[0]


def _check_same(account: Sid, same: bool | None) -> None:
    if same is False:
        raise PacError(
            f"the PAC names two accounts: "
            f"its logon information names {account}, another part names another one"
        )


def _group_sids(logon: LogonInfo) -> tuple[str, ...]:
    granted = (group.sid for group in logon.groups if not group.attributes & _DENY_ONLY)
    return tuple(dict.fromkeys(map(str, (logon.primary_group, *granted))))
