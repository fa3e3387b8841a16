"""What users type is there, under the names that documentation and programs depend on."""

from __future__ import annotations

import ast
import importlib
import inspect
import types
from pathlib import Path

import pytest

import purekrb
from purekrb import errors

SOURCE = Path(purekrb.__file__).read_text()

#: Fixed names and what they are. Names are added here when they become public, and never taken away.
PUBLIC = {
    "Principal": type,
    "EncryptionKey": type,
    "EncryptionType": type,
    "Credential": type,
    "Keytab": type,
    "KeytabEntry": type,
    "CCache": type,
    "Kirbi": type,
    "OtpAnswer": type,
    "OtpChallenge": type,
    "ServiceTicket": type,
    "KdcTrust": type,
    "Config": type,
    "KdcClient": type,
    "Initiator": type,
    "Acceptor": type,
    "Flag": type,
    "ChannelBindings": type,
    "ClientIdentity": type,
    "IovBuffer": type,
    "IovType": type,
    "PrfKey": type,
    "canonicalize_host": types.FunctionType,
    "initiate": types.FunctionType,
    "connect": types.FunctionType,
    "listen": types.FunctionType,
    "verify_credentials": types.FunctionType,
    "aio": types.ModuleType,
    "crypto": types.ModuleType,
    "replay": types.ModuleType,
    "spn": types.ModuleType,
    "sspi": types.ModuleType,
    "testing": types.ModuleType,
}
#: Names that live in a module: "module.name" or "module.Class.attribute", below purekrb.
INSIDE = [
    *(
        f"crypto.{n}"
        for n in ("string_to_key", "encrypt", "decrypt", "checksum", "verify_checksum")
    ),
    *(f"crypto.{n}" for n in ("prf", "n_fold", "cf2")),
    *(
        f"spn.{n}"
        for n in (
            "ServicePrincipalName",
            "SpnType",
            "make_spn",
            "get_spn",
            "crack_spn",
            "CrackedSpn",
        )
    ),
    *(f"aio.{n}" for n in ("KdcClient", "initiate", "connect", "start_server")),
    "testing.Realm",
    *(
        f"sspi.{n}"
        for n in ("AcquireCredentialsHandle", "QueryCredentialsAttributes", "FreeCredentialsHandle")
    ),
    *(
        f"sspi.{n}"
        for n in ("InitializeSecurityContext", "AcceptSecurityContext", "CompleteAuthToken")
    ),
    *(
        f"sspi.{n}"
        for n in ("MakeSignature", "VerifySignature", "EncryptMessage", "DecryptMessage")
    ),
    *(
        f"sspi.{n}"
        for n in ("QueryContextAttributes", "QuerySecurityContextToken", "QuerySecurityPackageInfo")
    ),
    *(
        f"sspi.{n}"
        for n in ("ImpersonateSecurityContext", "RevertSecurityContext", "DeleteSecurityContext")
    ),
    *(f"sspi.{n}" for n in ("CredHandle", "CtxtHandle", "SecBuffer", "SecBufferDesc", "error")),
    "sspi.set_default_credential",
    *(
        f"sspi.{side}Auth.{n}"
        for side in ("Client", "Server")
        for n in ("authorize", "encrypt", "decrypt", "sign", "verify", "wrap", "unwrap", "reset")
    ),
    "replay.ReplayCache",
    "replay.MemoryReplayCache",
    "replay.SqliteReplayCache",
    *(
        f"Credential.{n}"
        for n in ("from_password", "from_keytab", "from_key", "from_ccache", "principal", "save")
    ),
    *(f"Keytab.{n}" for n in ("load", "decode", "encode", "save", "from_password", "__iter__")),
    *(f"CCache.{n}" for n in ("load", "decode", "encode", "save")),
    *(f"KdcClient.{n}" for n in ("get_tgt", "get_ticket")),
    *(f"Principal.{n}" for n in ("parse", "components", "realm", "name_type")),
    "Config.from_file",
    *(
        f"{context}.{n}"
        for context in ("Initiator", "Acceptor")
        for n in (
            *(
                "step",
                "established",
                "flags",
                "mutual",
                "initiator",
                "acceptor",
                "endtime",
                "session_key",
                "etype",
            ),
            *("wrap", "unwrap", "unwrap_into", "get_mic", "verify_mic", "wrap_size_limit"),
            *(
                "wrap_iov",
                "unwrap_iov",
                "wrap_iov_length",
                "prf",
                "export_context",
                "import_context",
            ),
        )
    ),
    "Acceptor.delegated_credential",
    *(
        f"Flag.{n}"
        for n in ("DELEG", "MUTUAL", "REPLAY", "SEQUENCE", "CONF", "INTEG", "DCE_STYLE", "IDENTIFY")
    ),
    "Flag.EXTENDED_ERROR",
    *(f"ChannelBindings.{n}" for n in ("tls_server_end_point", "tls_unique", "tls_exporter")),
    *(f"IovType.{n}" for n in ("HEADER", "DATA", "SIGN_ONLY", "PADDING", "TRAILER", "STREAM")),
]


@pytest.mark.parametrize(("name", "kind"), PUBLIC.items())
def test_a_public_name_is_what_it_was(name: str, kind: type) -> None:
    assert isinstance(getattr(purekrb, name), kind)


@pytest.mark.parametrize("path", INSIDE)
def test_a_public_name_inside_a_module_or_class_is_there(path: str) -> None:
    value: object = purekrb
    for part in path.split("."):
        if inspect.isclass(value) and part in getattr(value, "__dataclass_fields__", {}):
            return
        value = getattr(value, part)


def test_all_is_the_public_names_and_the_errors_and_no_more() -> None:
    assert set(purekrb.__all__) == set(PUBLIC) | set(errors.__all__)
    assert len(purekrb.__all__) == len(set(purekrb.__all__))


def test_the_errors_come_last_and_in_the_order_of_their_module() -> None:
    assert purekrb.__all__[-len(errors.__all__) :] == errors.__all__


def test_every_public_name_is_found_by_dir_and_by_star_import() -> None:
    assert set(purekrb.__all__) <= set(dir(purekrb))
    namespace: dict[str, object] = {}
    exec("from purekrb import *", namespace)
    assert set(purekrb.__all__) <= set(namespace)


def test_type_checkers_see_the_same_names_from_the_same_modules() -> None:
    (block,) = (n for n in ast.parse(SOURCE).body if isinstance(n, ast.If))
    typed = {
        name: f"{node.module}"
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        for name in (
            importlib.import_module(f"{node.module}").__all__ if alias.name == "*" else [alias.name]
        )
    }
    assert set(typed) == set(purekrb.__all__)
    for name, module in typed.items():
        value = getattr(importlib.import_module(module), name)
        assert value is getattr(purekrb, name)


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(purekrb, "ImpacketClient")
    with pytest.raises(AttributeError, match="no attribute 'Initator'"):
        purekrb.Initator  # noqa: B018


def test_the_version_is_that_of_the_distribution() -> None:
    from importlib.metadata import version

    assert purekrb.__version__ == version("purekrb")


def test_every_public_function_and_method_is_typed() -> None:
    for name in purekrb.__all__:
        value = getattr(purekrb, name)
        functions = [value] if inspect.isfunction(value) else []
        if inspect.isclass(value):
            functions = [
                f for n, f in inspect.getmembers(value, inspect.isfunction) if not n.startswith("_")
            ]
        for function in functions:
            if function.__module__.startswith("purekrb"):
                missing = set(inspect.signature(function).parameters) | {"return"}
                missing -= {"self", "cls", *function.__annotations__}
                assert not missing, (
                    f"{name}: {function.__qualname__} has no types for {sorted(missing)}"
                )
