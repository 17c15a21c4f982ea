"""`PARLEY_KAFKA`: what it may say, and that no message of ours shows a password."""

from __future__ import annotations

import ssl

import pytest

from parley_events.errors import BadAddress
from parley_events.log.kafka_address import client_options, servers_of


@pytest.mark.parametrize("address", ["127.0.0.1:9092", "kafka-1:9092,kafka-2:9092", "[::1]:9092"])
def test_hosts_alone_are_what_they_were(address: str) -> None:
    assert client_options(address) == {"bootstrap_servers": address}
    assert servers_of(address) == address


def test_a_user_and_a_mechanism() -> None:
    address = "sasl_plaintext://me%40x:p%2Fa%3As%40s@a:9093,b:9093?mechanism=SCRAM-SHA-512"
    assert client_options(address) == {
        "bootstrap_servers": "a:9093,b:9093",
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "me@x",
        "sasl_plain_password": "p/a:s@s",
    }
    assert servers_of(address) == "a:9093,b:9093"


def test_tls_checks_the_brokers_certificate_and_name() -> None:
    for address in ("ssl://a:9093", "sasl_ssl://me:secret@a:9093"):
        context = client_options(address)["ssl_context"]
        assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert client_options("sasl_ssl://me:secret@a:9093")["sasl_mechanism"] == "PLAIN"


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("kafka://me:s3cret@a:9092", "begins with none of"),
        ("sasl_plaintext://me@a:9092", "wants user:password@"),
        ("sasl_plaintext://a:9092", "wants user:password@"),
        ("sasl_plaintext://:s3cret@a:9092", "wants user:password@"),
        ("sasl_plaintext://me:s3cret@", "names no host"),
        ("sasl_plaintext://me:s3/cret@a:9092", ""),
        ("sasl_plaintext://me:s3#cret@a:9092", ""),
        ("sasl_plaintext://me:s3cret@a:9092?mechanism=GSSAPI", "mechanism is one of"),
        ("sasl_plaintext://me:s3cret@a:9092?ca=x", "takes mechanism after a ?"),
        ("sasl_ssl://me:s3cret@a:9092?ca=/nowhere/ca.pem", "a certificate cannot be read"),
        ("sasl_ssl://me:s3cret@a:9092?ca", "is no address"),
        ("ssl://me:s3cret@a:9092", "takes no user"),
        ("ssl://a:9092?cert=/nowhere/me.pem", "a certificate cannot be read"),
    ],
)
def test_what_is_wrong_is_said_and_no_secret_is_shown(address: str, why: str) -> None:
    with pytest.raises(BadAddress) as caught:
        client_options(address)
    assert why in str(caught.value)
    assert "PARLEY_KAFKA" in str(caught.value)
    assert "cret" not in str(caught.value)
