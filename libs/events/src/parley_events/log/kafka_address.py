"""Where Kafka is and how to get in, as one text: `PARLEY_KAFKA`. Pure, but for the files of certificates.

    127.0.0.1:9092                                     no more than where: as on one machine
    kafka-1:9092,kafka-2:9092
    sasl_ssl://gateway:secret@kafka-1:9093,kafka-2:9093?mechanism=SCRAM-SHA-512&ca=/etc/kafka/ca.pem
    sasl_plaintext://gateway:secret@kafka-1:9093       within a network that nobody else is in
    ssl://kafka-1:9093?ca=ca.pem&cert=me.pem&key=me.key

User and password are percent-encoded. The text may hold a password: only `servers_of` it belongs in a message or a log.
"""

from __future__ import annotations

import ssl
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from parley_events.errors import BadAddress

_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
_KNOWN = {
    "sasl_ssl": {"mechanism", "ca"},
    "sasl_plaintext": {"mechanism"},
    "ssl": {"ca", "cert", "key"},
}


def servers_of(address: str) -> str:
    """The part of an address that may be shown: hosts and ports."""
    return address.partition("://")[2].rpartition("@")[2].partition("?")[0] if "://" in address else address


def check_address(address: str) -> str:
    """The address, unless it cannot be read. Raises BadAddress."""
    client_options(address)
    return address


def client_options(address: str) -> dict[str, Any]:
    """What aiokafka's clients are made with. Raises BadAddress, which shows no secret."""
    scheme, found, rest = address.partition("://")
    if not found:
        return {"bootstrap_servers": address}
    try:
        # Kafka's names have an underscore, which a URL's scheme cannot have: the rest alone is read as one.
        parts = urlsplit(f"//{rest}")
        asked = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    except ValueError:
        raise BadAddress("PARLEY_KAFKA is no address: percent-encode the user and the password") from None
    if scheme not in _KNOWN:
        raise BadAddress(f"PARLEY_KAFKA begins with none of {', '.join(f'{name}://' for name in _KNOWN)}")
    unknown = asked.keys() - _KNOWN[scheme]
    if unknown or parts.fragment or parts.path not in ("", "/"):
        raise BadAddress(
            f"PARLEY_KAFKA: {scheme}:// takes {', '.join(sorted(_KNOWN[scheme]))} after a ?, and nothing else behind "
            "the hosts; a #, / or ? in a user or password is percent-encoded"
        )
    login, _, servers = parts.netloc.rpartition("@")
    options: dict[str, Any] = {"bootstrap_servers": servers, "security_protocol": scheme.upper()}
    if not servers:
        raise BadAddress("PARLEY_KAFKA names no host")
    if scheme.startswith("sasl"):
        user, colon, password = login.partition(":")
        mechanism = asked.get("mechanism", "PLAIN")
        if not user or not colon or not password:
            raise BadAddress("PARLEY_KAFKA wants user:password@ before the hosts")
        if mechanism not in _MECHANISMS:
            raise BadAddress(f"PARLEY_KAFKA: mechanism is one of {', '.join(_MECHANISMS)}")
        options |= {
            "sasl_mechanism": mechanism,
            "sasl_plain_username": unquote(user),
            "sasl_plain_password": unquote(password),
        }
    elif login:
        raise BadAddress("PARLEY_KAFKA: ssl:// takes no user; name a certificate with ?cert=&key=")
    if scheme.endswith("ssl"):
        options["ssl_context"] = _context(asked)
    return options


def _context(asked: dict[str, str]) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=asked.get("ca"))
        if "cert" in asked:
            context.load_cert_chain(asked["cert"], asked.get("key"))
    except (OSError, ssl.SSLError) as error:
        raise BadAddress(f"PARLEY_KAFKA: a certificate cannot be read: {error}") from None
    return context
