"""asyncpg on purekrb, by the program of docs/postgresql.md, logs in to PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.mit import MitRealm
from support.pages import program, run_on_purekrb
from support.postgresql import Postgresql


@pytest.fixture(scope="module")
def postgresql(
    mit_realm: MitRealm,
) -> Iterator[Postgresql]:
    server = Postgresql(mit_realm)
    yield server
    server.stop()


def test_the_program_of_the_page_logs_in_by_kerberos(
    mit_realm: MitRealm, postgresql: Postgresql, tmp_path: Path
) -> None:
    text = program("postgresql.md", "# postgresql.py")
    arguments = ["localhost", str(postgresql.port), "user", "postgres"]
    env = {**mit_realm.env, "KRB5CCNAME": str(mit_realm.kinit("user"))}
    assert run_on_purekrb(text, tmp_path, *arguments, env=env) == (
        "{'gss_authenticated': True, 'principal': 'user@MIT.TEST'}\n"
    )
    with pytest.raises(RuntimeError, match='GSSAPI authentication failed for user "postgres"'):
        run_on_purekrb(text, tmp_path, *arguments[:2], "postgres", "postgres", env=env)
