"""The state file of an installed service: any JSON in any of its fields."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from purekrb.directory.state import ServiceState, StateAccount
from purekrb.errors import KerberosError
from purekrb.sid import Sid

STATE = ServiceState(
    object_guid=UUID("a762885a-aa44-11d2-81f1-00c04fb9624e"),
    scp_dn="CN=SockAuthAD,CN=WEB,CN=Computers,DC=ad,DC=test",
    domain="ad.test",
    spns=("ADSockAuth/web.ad.test/a762885a-aa44-11d2-81f1-00c04fb9624e",),
    account=StateAccount(
        "CN=svc,CN=Users,DC=ad,DC=test", "svc", UUID(int=1), Sid.parse("S-1-5-21-1-2-3-1104")
    ),
)
FIELDS = json.loads(STATE.encode())
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda s: st.lists(s) | st.dictionaries(st.text(), s),
)


@given(ANY, st.sampled_from(sorted(FIELDS)))
def test_any_json_in_any_field_is_read_or_refused(value: Any, name: str) -> None:
    data = json.dumps({**FIELDS, name: value}).encode()
    try:
        state = ServiceState.decode(data)
    except KerberosError:
        return
    assert ServiceState.decode(state.encode()) == state
