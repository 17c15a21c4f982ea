"""Attachments as clients send them: what is taken, what is refused, and what a download looks like."""

from __future__ import annotations

import base64
import os

import pytest

from parley_gateway import files
from parley_gateway.errors import Problem
from parley_gateway.files import NewFile, decoded, disposition, read_files


def file(name: str = "a.txt", data: bytes = b"a", content_type: str | None = None) -> NewFile:
    return NewFile(name=name, content_base64=base64.b64encode(data).decode(), content_type=content_type)


def refused(*given: NewFile) -> Problem:
    with pytest.raises(Problem) as problem:
        read_files(given)
    return problem.value


@pytest.mark.parametrize("size", [1, 2, 3, 4, 196_607, 196_608, 196_609, 600_000])
def test_bytes_come_out_as_they_went_in_whatever_their_number(size: int) -> None:
    data = os.urandom(size)
    (upload,) = read_files([file(data=data)])
    assert upload.data == data and upload.attachment.size == size
    assert decoded(base64.encodebytes(data).decode()) == data, "line breaks are let be"


@pytest.mark.parametrize(
    "text", ["YQ", "YQ=", "YQ==YQ==", "Y Q==", "YQ==\x00", "é===", "-_-_", "=", "a" * 262_144 + "=b=="]
)
def test_what_is_no_base64_is_refused(text: str) -> None:
    problem = refused(file(), NewFile(name="b", content_base64=text))
    assert (problem.status, problem.code, problem.details) == (400, "invalid_attachment", {"attachment": 1})


def test_padding_in_the_middle_is_no_base64_even_where_a_piece_ends() -> None:
    piece = base64.b64encode(bytes(files._PIECE // 4 * 3 - 1)).decode()
    assert len(piece) == files._PIECE and piece.endswith("=")
    with pytest.raises(ValueError, match="not base64"):
        decoded(piece + "YQ==")


def test_nothing_is_no_attachment_and_two_of_a_name_are_one_too_many() -> None:
    assert refused(file(data=b"")).code == "invalid_attachment"
    assert refused(file("e\u0301"), file("é")).details == {"attachment": 1}
    assert [upload.attachment.name for upload in read_files([file("a"), file("A")])] == ["a", "A"]


def test_together_they_may_have_so_much_and_not_a_byte_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_FILES_BYTES", 1000)
    assert len(read_files([file("a", bytes(499)), file("b", bytes(501))])) == 2
    problem = refused(file("a", bytes(500)), file("b", bytes(501)))
    assert (problem.status, problem.code) == (413, "too_large")
    assert refused(*(file(str(number)) for number in range(101))).status == 413


def test_the_real_limit_is_25_mebibytes() -> None:
    whole = bytes(25 * 1024 * 1024)
    assert read_files([file(data=whole)])[0].attachment.size == len(whole)
    assert refused(file(data=whole + b"x")).status == 413
    assert len(base64.b64encode(whole)) < files.BASE64_MB * 1024 * 1024


def test_a_download_has_a_name_for_every_client_and_no_way_out_of_its_header() -> None:
    assert disposition("a b.txt") == "attachment; filename=\"a b.txt\"; filename*=UTF-8''a%20b.txt"
    odd = disposition('é";\\x=\r\n😀')
    assert odd.isascii() and '"' not in odd.split('"', 1)[1].rsplit('"', 1)[0] and "\n" not in odd and "\r" not in odd
    assert odd.endswith("filename*=UTF-8''%C3%A9%22%3B%5Cx%3D%0D%0A%F0%9F%98%80")
