"""Channel bindings. Source: RFC 2744 3.11."""

from __future__ import annotations

from purekrb.gss import channel_bindings

__all__ = ["ChannelBindings"]


class ChannelBindings:
    """The channel that a context is bound to; every field may be None and may change."""

    def __init__(
        self,
        initiator_address_type: int | None = None,
        initiator_address: bytes | None = None,
        acceptor_address_type: int | None = None,
        acceptor_address: bytes | None = None,
        application_data: bytes | None = None,
    ) -> None:
        self.initiator_address_type = initiator_address_type
        self.initiator_address = initiator_address
        self.acceptor_address_type = acceptor_address_type
        self.acceptor_address = acceptor_address
        self.application_data = application_data

    def _to_purekrb(self) -> channel_bindings.ChannelBindings:
        return channel_bindings.ChannelBindings(
            application_data=_bytes(self.application_data),
            initiator_address=_bytes(self.initiator_address),
            acceptor_address=_bytes(self.acceptor_address),
            initiator_addrtype=int(self.initiator_address_type or 0),
            acceptor_addrtype=int(self.acceptor_address_type or 0),
        )


def _bytes(value: bytes | None) -> bytes:
    if value is not None and not isinstance(value, (bytes, bytearray)):
        raise TypeError(f"Expected bytes, got {type(value).__name__}")
    return bytes(value or b"")
