"""`parley chat`, `threads` and `tail` as a person and a script have them: on a real terminal, against a real Parley."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import MODEL
from tests.support.system import PARLEY, System, eventually, new_thread, start, stop
from tests.support.terminal import Tty

BACK = re.compile(r"^parley chat --thread ([0-9a-f-]{36})$", re.MULTILINE)
READY = "scripted › "

Open = Callable[..., Tty]


def env_of(system: System, folder: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")}
    return {**kept, "DATA": str(system.folder / "data"), "PARLEY_CHAT_HISTORY": str(folder / "typed"), **more}


@pytest.fixture
def on(tmp_path: Path) -> Iterator[Open]:
    """Starts a command on a terminal of the test's own."""
    with ExitStack() as stack:

        def opened(system: System, *words: str, columns: int = 80, lines: int = 24, **more: str) -> Tty:
            tty = Tty([str(PARLEY), *words], env_of(system, tmp_path, **more), columns, lines)
            stack.callback(tty.close)
            return tty

        yield opened


def run(system: System, folder: Path, *words: str, stdin: str = "", **more: str) -> subprocess.CompletedProcess[str]:
    """A command with nobody at the terminal."""
    return subprocess.run(
        [PARLEY, *words],
        env=env_of(system, folder, **more),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def numbers(count: int) -> str:
    return " ".join(f"{n:04d}" for n in range(count))


def answered(text: str, count: int) -> bool:
    """Whether the whole of `/stream count` stands there, once and in order, however it was wrapped."""
    return " ".join(re.findall(r"\b[0-9]{4}\b", text)) == numbers(count)


def at_prompt(text: str) -> bool:
    return text.rsplit("\n", 1)[-1].rstrip() == READY.rstrip()


async def test_a_person_picks_an_agent_and_watches_thoughts_tools_and_text(standalone: System, on: Open) -> None:
    tty = on(standalone, "chat")
    await tty.until(lambda text: "which one? (assistant)" in text)
    tty.type("scripted\r")
    await tty.until(at_prompt)
    tty.type("/think Let me see.\x1b\r")
    tty.type('/tool echo {"word": "hi"}\x1b\r')
    tty.type("/text # Result\\n\\nIt is **done**.\\n\\n- one\\n- 世界\r")
    shown = await tty.until(lambda text: at_prompt(text) and "世界" in text.split("Result")[-1])
    answer = [line for line in shown.split("/text")[1].split("\n")[2:] if line]
    assert answer == [
        "│ Let me see.",
        '  ✓ echo {"word": "hi"} → {"word": "hi"}',
        "Result",
        "It is done.",
        " • one",
        " • 世界",
        READY.rstrip(),
    ]
    tty.type("\x04")
    assert await tty.ended() == 0
    assert BACK.search(tty.screen.text())


async def test_leaving_in_mid_stream_and_coming_back_to_see_it_finish(standalone: System, on: Open) -> None:
    tty = on(standalone, "chat", "--agent", "scripted")
    await tty.until(at_prompt)
    tty.type("/stream 400 20\r")
    await tty.until(lambda text: "0020" in text)
    tty.type("\x03")
    assert await tty.ended() == 0
    left = tty.screen.text()
    [thread] = BACK.findall(left)
    assert left.split("\n")[-1] == f"parley chat --thread {thread}", "nothing stands below the line to come back with"
    assert "0399" not in left
    back = on(standalone, "chat", "--thread", thread)
    seen = await back.until(lambda text: "0030" in text)
    assert "0399" not in seen, "it is still under way"
    shown = await back.until(at_prompt)
    assert "› /stream 400 20" in shown
    assert answered(shown.split("› /stream 400 20\n")[1], 400)
    back.type(":quit\r")
    assert await back.ended() == 0
    again = on(standalone, "chat", "--thread", thread)
    shown = await again.until(at_prompt)
    assert answered(shown.split("› /stream 400 20\n")[1], 400), "and once it has ended it is history"


@pytest.mark.parametrize(("columns", "lines"), [(20, 8), (79, 10), (200, 50)])
async def test_the_scrollback_is_right_on_every_size_of_terminal(
    standalone: System, on: Open, columns: int, lines: int
) -> None:
    tty = on(standalone, "chat", "--agent", "scripted", columns=columns, lines=lines)
    await tty.until(at_prompt)
    tty.type("/stream 300 2\r")
    shown = await tty.until(lambda text: "0299" in text and at_prompt(text))
    assert answered(shown, 300)


async def test_ctrl_x_cancels_and_what_is_typed_ahead_is_sent(standalone: System, on: Open) -> None:
    tty = on(standalone, "chat", "--agent", "scripted")
    await tty.until(at_prompt)
    tty.type("/stream 3000 20\r")
    await tty.until(lambda text: "0005" in text)
    tty.type("/text ahead\r\x18")
    shown = await tty.until(lambda text: "– cancelled" in text and at_prompt(text) and "\nahead\n" in text)
    assert shown.index("– cancelled") < shown.index("\nahead\n")


async def test_orders(standalone: System, on: Open, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("x")
    tty = on(standalone, "chat", "--agent", "scripted")
    await tty.until(at_prompt)
    for typed, seen in [
        (":help", "list your threads"),
        (":attach /nowhere", "/nowhere cannot be read"),
        (f":attach {tmp_path}/note.txt", "with the next message: note.txt"),
        (":detach", ""),
        (":atach", "did you mean :attach?"),
        (":cancel", "nothing runs in this thread"),
        (":agent nobody", "there is no agent 'nobody'"),
        ("::quit", 'You said: ":quit"'),
        (":threads", "completed"),
        (":thread nope", "there is no thread nope"),
        (":new", "a new thread"),
    ]:
        before = tty.screen.text().count(READY.rstrip())
        tty.type(f"{typed}\r")
        shown = await tty.until(
            lambda text, before=before: at_prompt(text) and text.count(READY.rstrip()) > before  # type: ignore[misc]
        )
        assert seen in shown.split(typed, 1)[-1] or seen in shown, typed
    tty.type(":quit\r")
    assert await tty.ended() == 0
    assert (tmp_path / "typed").stat().st_mode & 0o077 == 0, "what was typed is its owner's alone"


async def test_a_person_answers_what_an_answer_waits_for_and_sees_it_go_on(standalone: System, on: Open) -> None:
    tty = on(standalone, "chat", "--agent", "scripted")
    await tty.until(at_prompt)
    tty.type('/tool publish {"text": "Rain."}\x1b\r')
    tty.type('/tool get_weather {"location": "Tokyo"}\x1b\r')
    tty.type("/text It is out.\r")
    shown = await tty.until(lambda text: at_prompt(text) and ":result 2 TEXT" in text)
    assert "◇ approval publish" in shown and "◇ client get_weather" in shown and ":approve 1" in shown
    tty.type(":result\r")
    await tty.until(lambda text: at_prompt(text) and ":result needs TEXT" in text)
    tty.type("/text and then\r")
    await tty.until(lambda text: at_prompt(text) and "queued: what waits is answered first" in text)
    tty.type(":approve go on\r")
    shown = await tty.until(lambda text: at_prompt(text) and "✓ publish" in text)
    assert "go on" in shown.rpartition("approved by")[2]
    tty.type(":result 21 °C\r")
    shown = await tty.until(lambda text: at_prompt(text) and "It is out." in text and "\nand then\n" in text)
    assert "✓ get_weather" in shown and shown.rindex("It is out.") < shown.rindex("\nand then\n")
    tty.type(":open\r")
    await tty.until(lambda text: at_prompt(text) and "nothing waits in this thread" in text)


async def test_approvals_are_listed_shown_and_answered_from_a_shell(standalone: System, tmp_path: Path) -> None:
    async with standalone.client() as client:
        thread = await new_thread(client)
        path = f"/api/v1/chat/threads/{thread}/messages"
        said = (await client.post(path, json={"content": '/tool publish {"text": "a\\u001b[31m"}\n/text Done.'})).json()

        async def listed() -> Any:
            found = run(standalone, tmp_path, "approvals", "list", "--thread", thread, "--json")
            return [json.loads(line) for line in found.stdout.splitlines()]

        [approval] = await eventually(listed)
        shown = run(standalone, tmp_path, "approvals", "list", "--thread", thread)
        assert approval["id"] in shown.stdout and "publish" in shown.stdout and "open" in shown.stdout
        whole = run(standalone, tmp_path, "approvals", "show", approval["id"])
        assert "whoever may approve" in whole.stdout and "\x1b" not in whole.stdout
        wrong = run(standalone, tmp_path, "approvals", "approve", approval["id"], "--arguments", "[1]")
        assert (wrong.returncode, wrong.stderr) == (1, "parley: --arguments wants a JSON object\n")
        edited = ("--arguments", '{"text": "b"}', "--comment", "shorter")
        done = run(standalone, tmp_path, "approvals", "approve", approval["id"], *edited)
        assert (done.returncode, done.stdout) == (0, f"{approval['id']} is approved\n"), done.stderr
        again = run(standalone, tmp_path, "approvals", "deny", approval["id"])
        assert again.returncode == 1 and again.stderr.count("\n") == 1
        gone = run(standalone, tmp_path, "approvals", "deny", f"{thread}.p99")
        assert gone.returncode == 1 and "parley approvals list" in gone.stderr

        async def ended() -> bool:
            return bool((await client.get(f"/api/v1/chat/runs/{said['run_id']}")).json()["status"] == "completed")

        await eventually(ended)
        assert "nothing to approve" in run(standalone, tmp_path, "approvals", "list", "--thread", thread).stdout
        assert "approved" in run(standalone, tmp_path, "approvals", "list", "--status", "all").stdout


async def test_files_go_in_are_read_and_what_was_made_comes_out(standalone: System, on: Open, tmp_path: Path) -> None:
    (tmp_path / "plan b.txt").write_text("Buy tea.")
    (tmp_path / "out").mkdir()
    tty = on(standalone, "chat", "--agent", "scripted", "--attach", str(tmp_path / "plan b.txt"), columns=200)
    await tty.until(at_prompt)
    tty.type('/tool read_attachment {"name": "plan b.txt"}\x1b\r')
    tty.type('/tool save_artifact {"name": "tea list.md", "content": "# Tea"}\x1b\r')
    tty.type("/text Read and saved.\r")
    shown = await tty.until(lambda text: at_prompt(text) and "\nRead and saved." in text)
    assert re.search(r'✓ read_attachment {"name": "plan b\.txt"} → .*Buy tea\.', shown)
    assert re.search(r'^    made tea list\.md · :save "tea list\.md"$', shown, re.MULTILINE)
    for typed, seen in [
        (f':save "tea list.md" {tmp_path}/out', "out/tea list.md"),
        (f':save "tea list.md" {tmp_path}/out', "out/tea list-2.md"),
        (f':save "plan b.txt" {tmp_path}/out/plan.txt', "out/plan.txt"),
        (f':save "plan b.txt" {tmp_path}/out/plan.txt', "plan.txt is there already: name another path"),
        (":save none.md", "there is no file none.md in this thread"),
        (":save ../plan.txt", "must be a plain name"),
    ]:
        before = tty.screen.text().count(READY.rstrip())
        tty.type(f"{typed}\r")
        shown = await tty.until(
            lambda text, before=before: at_prompt(text) and text.count(READY.rstrip()) > before  # type: ignore[misc]
        )
        assert seen in shown.rsplit(typed, 1)[-1], typed
    found = {path.name: path.read_text() for path in (tmp_path / "out").iterdir()}
    assert found == {"tea list.md": "# Tea", "tea list-2.md": "# Tea", "plan.txt": "Buy tea."}
    tty.type(":quit\r")
    assert await tty.ended() == 0
    [thread] = BACK.findall(tty.screen.text())
    back = on(standalone, "chat", "--thread", thread, columns=200)
    shown = await back.until(at_prompt)
    assert "  with plan b.txt" in shown and ':save "tea list.md"' in shown, "who comes back sees both again"


async def test_a_model_cannot_touch_the_terminal(standalone: System, on: Open) -> None:
    tty = on(standalone, "chat", "--agent", "scripted")
    await tty.until(at_prompt)
    # The emulator fails at what it does not know, such as a title or a clipboard.
    tty.type("/text a\\u001b]0;title\\u0007b\\u001b[2Jc\\u009b31md\r")
    shown = await tty.until(lambda text: at_prompt(text) and "a␛]0" in text)
    assert "a␛]0;title␇b␛[2Jc�31md" in shown


async def test_a_gateway_that_restarts_is_waited_for(tmp_path: Path, on: Open) -> None:
    folder = tmp_path / "own"
    system = start("up", folder, **MODEL)
    try:
        tty = on(system, "chat", "--agent", "scripted")
        await tty.until(at_prompt)
        tty.type("/stream 200 20\r")
        await tty.until(lambda text: "0020" in text)
        assert stop(system) == 0
        await tty.until(lambda text: "trying again" in text)
        system = start("up", folder, **MODEL)
        shown = await tty.until(lambda text: "0199" in text and at_prompt(text), 60.0)
        # The model call died with the process that made it; its next attempt is shown whole.
        assert answered(re.split(r"attempt [0-9]+\)\n", shown)[-1], 200)
    finally:
        stop(system)


async def test_a_gateway_that_dies_is_left_for_another_one(breakable: System, on: Open) -> None:
    tty = on(breakable, "chat", "--agent", "scripted")
    await tty.until(at_prompt)
    tty.type("/stream 300 20\r")
    await tty.until(lambda text: "0020" in text)
    os.kill(breakable.pid("gateway"), signal.SIGKILL)
    shown = await tty.until(lambda text: "0299" in text and at_prompt(text), 60.0)
    assert answered(shown, 300), "nothing is missing and nothing stands there twice"
    assert "attempt" not in shown


async def test_one_message_on_a_terminal_streams_and_ends(standalone: System, on: Open) -> None:
    tty = on(standalone, "chat", "--agent", "scripted", "/stream 100 20")
    seen = await tty.until(lambda text: "0010" in text)
    assert "0099" not in seen
    assert await tty.ended() == 0
    assert answered(tty.screen.text().split("[parley")[0], 100)
    left = on(standalone, "chat", "--agent", "scripted", "/stream 100 20")
    await left.until(lambda text: "0010" in text)
    left.type("\x03")
    assert await left.ended() == 130
    assert BACK.search(left.screen.text())


# ---- scripts


@pytest.fixture
async def thread(standalone: System) -> AsyncIterator[str]:
    async with standalone.client() as client:
        yield await new_thread(client)


def test_a_piped_message_gives_the_plain_answer_on_stdout(standalone: System, tmp_path: Path) -> None:
    script = '/tool echo {"a": 1}\n/text **Bold** \\u00fc\\u001b'
    done = run(standalone, tmp_path, "chat", "--agent", "scripted", stdin=script)
    assert (done.returncode, done.stdout) == (0, "**Bold** ü\x1b\n"), "as it is: a pipe is no terminal"
    assert "echo" in done.stderr
    [thread] = re.findall(r"--thread ([0-9a-f-]{36})", done.stderr)
    more = run(standalone, tmp_path, "chat", "--thread", thread, "/text one\n/error cut\n/text  two")
    assert (more.returncode, more.stdout) == (0, "one two\n"), "an attempt that broke leaves no trace"


def test_a_script_sends_files_and_is_told_what_was_made(standalone: System, tmp_path: Path) -> None:
    (tmp_path / "plan.txt").write_text("Buy tea.")
    script = (
        '/tool read_attachment {"name": "plan.txt"}\n/tool save_artifact {"name": "a.md", "content": "x"}\n/text Done.'
    )
    done = run(
        standalone, tmp_path, "chat", "--agent", "scripted", "--attach", str(tmp_path / "plan.txt"), stdin=script
    )
    assert (done.returncode, done.stdout) == (0, "Done.\n")
    assert re.search(r"read_attachment .* ok → .*Buy tea\.", done.stderr)
    assert "[made a.md; in the chat, :save a.md]" in done.stderr


def test_a_run_that_fails_is_exit_status_1(standalone: System, tmp_path: Path) -> None:
    done = run(standalone, tmp_path, "chat", "--agent", "scripted", "/error 400")
    assert (done.returncode, done.stdout) == (1, "")
    assert "parley: the run failed: model_400" in done.stderr


def test_json_prints_the_frames(standalone: System, tmp_path: Path) -> None:
    done = run(standalone, tmp_path, "chat", "--agent", "scripted", "--json", stdin="/text hi there")
    frames = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0
    assert (frames[0]["type"], frames[-1]["type"]) == ("message.posted", "run.completed")
    assert "".join(frame["delta"] for frame in frames if frame["type"] == "text.delta") == "hi there"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("chat", "--agent", "nobody", "hi"), "parley: there is no agent 'nobody' in this workspace"),
        (
            ("chat", "--thread", "0f0f0f0f-1111-4222-8333-444444444444", "hi"),
            "parley: there is no thread 0f0f0f0f-1111-4222-8333-444444444444 (`parley threads` lists yours)",
        ),
        (("chat",), "parley: there is nothing to send: give a MESSAGE, or pipe one in"),
        (("chat", "--thread", "x", "--agent", "y", "hi"), "parley: a thread has its agent: give --agent or --thread"),
        (("chat", "--attach", "/nowhere", "hi"), "parley: /nowhere cannot be read: No such file or directory"),
        (("tail", "--thread", "nope"), "parley: there is no thread nope"),
        (("tail", "--from", "start"), "parley: all threads can be followed from now on only"),
    ],
)
def test_what_cannot_be_done_is_one_line(standalone: System, tmp_path: Path, words: tuple[str, ...], line: str) -> None:
    done = run(standalone, tmp_path, *words)
    assert (done.returncode, done.stdout) == (1, "")
    [said] = done.stderr.splitlines()
    assert said.startswith(line)


def test_a_key_that_is_refused_and_a_parley_that_is_not_there_are_one_line(standalone: System, tmp_path: Path) -> None:
    url = standalone.ready()["base_url"]
    for more, line in [
        ({"PARLEY_URL": url, "PARLEY_KEY": "pk_x"}, "parley: the API key is not valid"),
        ({"DATA": str(tmp_path / "none")}, "parley: no Parley runs on "),
        ({"PARLEY_URL": "http://127.0.0.1:9", "PARLEY_KEY": "pk_x"}, "parley: http://127.0.0.1:9 cannot be reached"),
    ]:
        for words in (("chat", "hi"), ("threads",), ("tail",)):
            done = run(standalone, tmp_path, *words, **more)
            assert (done.returncode, done.stdout) == (1, ""), words
            [said] = done.stderr.splitlines()
            assert said.startswith(line), (words, said)


async def test_ctrl_c_leaves_a_script_with_the_line_to_come_back(standalone: System, tmp_path: Path) -> None:
    words = [str(PARLEY), "chat", "--agent", "scripted", "--json", "/stream 100 20"]
    process = await asyncio.create_subprocess_exec(
        *words,
        env=env_of(standalone, tmp_path),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        stdin=asyncio.subprocess.DEVNULL,
    )
    assert process.stdout is not None and process.stderr is not None
    async with asyncio.timeout(30):
        while b"text.delta" not in await process.stdout.readline():
            pass
        process.send_signal(signal.SIGINT)
        out, said = await process.communicate()
    assert process.returncode == 130
    assert b"run.completed" not in out
    [thread] = BACK.findall(said.decode())
    back = run(standalone, tmp_path, "chat", "--thread", thread)
    assert (back.returncode, back.stdout.split()) == (0, numbers(100).split())


async def test_threads_lists_title_agent_and_how_the_last_run_stands(
    standalone: System, tmp_path: Path, thread: str
) -> None:
    failed = run(standalone, tmp_path, "chat", "--agent", "scripted", "/error 401")
    [name] = re.findall(r"--thread ([0-9a-f-]{36})", failed.stderr)
    rows = [json.loads(line) for line in run(standalone, tmp_path, "threads", "--json").stdout.splitlines()]
    by_id = {row["id"]: row for row in rows}
    assert by_id[name]["status"] == "failed" and by_id[name]["title"] == "/error 401"
    assert by_id[thread]["status"] == "empty" and by_id[thread]["agent_id"] == "scripted"
    table = run(standalone, tmp_path, "threads", "--limit", "200").stdout
    assert re.search(rf"^{name} .* scripted .* failed *$", table, re.MULTILINE)
    async with standalone.client() as client:
        assert (await client.patch(f"/api/v1/chat/threads/{thread}", json={"archived": True})).status_code == 200
    assert thread in run(standalone, tmp_path, "threads", "--archived").stdout
    assert thread not in run(standalone, tmp_path, "threads", "--limit", "200").stdout


async def tailing(
    system: System, folder: Path, *words: str, until: Callable[[str], Any], told: list[str] | None = None
) -> str:
    """What `tail` prints, until it satisfies `until`; then it is stopped with Ctrl-C. `told`: what stderr said."""
    process = await asyncio.create_subprocess_exec(
        *[str(PARLEY), "tail", *words],
        env=env_of(system, folder),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        stdin=asyncio.subprocess.DEVNULL,
    )
    assert process.stdout is not None and process.stderr is not None
    text = ""
    try:
        async with asyncio.timeout(30):
            while not until(text):
                line = await process.stdout.readline()
                assert line, text
                text += line.decode()
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(10):
            assert await process.wait() == 130
            if told is not None:
                told.append((await process.stderr.read()).decode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return text


async def say(system: System, thread: str, text: str) -> str:
    async with system.client() as client:
        said = await client.post(f"/api/v1/chat/threads/{thread}/messages?wait", json={"content": text})
        assert said.status_code == 200
        return str(said.json()["run"]["id"])


async def test_tail_prints_a_run_or_a_thread_as_it_is_stored(standalone: System, tmp_path: Path, thread: str) -> None:
    run_id = await say(standalone, thread, "/text hello")
    done = run(standalone, tmp_path, "tail", "--run", run_id, "--json")
    facts = [json.loads(line) for line in done.stdout.splitlines()]
    wanted = ["message.posted", "model.called", "model.returned", "run.completed"]
    assert (done.returncode, [fact["type"] for fact in facts]) == (0, wanted)
    lines = run(standalone, tmp_path, "tail", "--run", run_id).stdout.splitlines()
    assert [line.split()[2] for line in lines] == wanted
    assert lines[0].endswith("/text hello") and lines[2].endswith("hello")
    text = await tailing(
        standalone, tmp_path, "--thread", thread, "--from", "start", until=lambda text: "run.completed" in text
    )
    assert text.splitlines()[0].split()[1:3] == ["1", "thread.created"]


async def test_tail_shows_the_facts_of_all_threads_as_they_come(
    standalone: System, tmp_path: Path, thread: str
) -> None:
    begun = asyncio.Event()

    async def keep_talking() -> None:
        # Nobody knows from outside when it listens: talk until it has heard.
        while not begun.is_set():
            await say(standalone, thread, "/text hello")

    def heard(text: str) -> bool:
        if "run.completed" in text:
            begun.set()
        return begun.is_set()

    async with asyncio.TaskGroup() as both:
        both.create_task(keep_talking())
        printing = both.create_task(tailing(standalone, tmp_path, "--json", until=heard))
    facts = [json.loads(line) for line in printing.result().splitlines()]
    assert {fact["thread_id"] for fact in facts} == {thread}
    assert not any(fact["type"].endswith(".delta") for fact in facts)
    seqs = [fact["seq"] for fact in facts]
    assert seqs == list(range(seqs[0], seqs[0] + len(seqs))), "no fact is missing and none comes twice"


async def test_tail_goes_on_from_the_cursor_that_it_told(standalone: System, tmp_path: Path, thread: str) -> None:
    begun, told = asyncio.Event(), list[str]()

    async def keep_talking() -> None:
        while not begun.is_set():
            await say(standalone, thread, "/text hello")

    def heard(text: str) -> bool:
        if "run.completed" in text:
            begun.set()
        return begun.is_set()

    async with asyncio.TaskGroup() as both:
        both.create_task(keep_talking())
        printing = both.create_task(tailing(standalone, tmp_path, "--json", until=heard, told=told))
    shown = [json.loads(line) for line in printing.result().splitlines()]
    [cursor] = re.findall(r"parley tail --after (\S+)]", told[0])
    await say(standalone, thread, "/text while nobody looked")
    again = await tailing(
        standalone,
        tmp_path,
        "--json",
        "--after",
        cursor,
        until=lambda text: "nobody looked" in text.split("posted")[-1],
    )
    shown += [json.loads(line) for line in again.splitlines()]
    seqs = [fact["seq"] for fact in shown if fact["thread_id"] == thread]
    assert seqs == sorted(set(seqs))
    done = run(standalone, tmp_path, "tail", "--after", cursor, "--from", "now")
    assert done.returncode == 1 and "give --from or --after, not both" in done.stderr
    done = run(standalone, tmp_path, "tail", "--after", "nonsense")
    assert done.returncode == 1 and "the cursor is not one" in done.stderr
