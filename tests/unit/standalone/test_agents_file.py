"""`agents.yaml`: all of its form is accepted, and each mistake is one line with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from parley_dispatcher.tools import TOOLS
from parley_events.body import Approval, ClientTool, McpTool
from parley_standalone.agents_file import MAX_BYTES, AgentsFile, digest_of, noting_keys, read_agents_file
from parley_standalone.errors import CommandError
from parley_standalone.settings import SHIPPED_AGENTS

WHOLE = """\
workspace: {name: default, context: "What every agent here should know.", connectors: [search]}
structures: [6f6c1f6e-0000-4000-8000-000000000001]
mcp_servers:
  - {name: search, url: "http://127.0.0.1:9000/mcp", headers: {Authorization: "env:SEARCH_TOKEN"}}
  - {name: ledger, command: [python, ledger.py], env: {LEDGER: effects.jsonl}, timeout_s: 30,
     tools: {pay: unsafe, book: {effect: checkable, check: booked}}}
agents:
  - id: assistant
    name: Assistant
    description: Answers questions.
    roles: [executive-office-cmo]
    model: claude-sonnet-4-5            # or: scripted
    base_url: null                      # a server of its own that speaks the Messages API
    system_prompt: "..."
    context: "Starting context."
    temperature: 0.7
    tools: [clock, calculator, "ledger/*"]   # built-in names, `<server>/<tool>`, wildcards
    approvals: [ledger/pay]
    client_tools: [{name: get_weather, description: "...", input_schema: {type: object}}]
    skills: skills/assistant
    limits: {steps: 50, seconds: 3600, max_tokens: 8192}
  - {id: researcher, name: Researcher}
  - {id: analyst, name: Analyst}
teams:
  - {id: founders, name: Founders, members: [assistant, researcher, analyst], mode: brainstorm, lead: assistant}
"""
"""Every word of the form, as the contracts show it."""


def read(tmp_path: Path, text: str) -> AgentsFile:
    (tmp_path / "skills/assistant").mkdir(parents=True, exist_ok=True)
    (tmp_path / "skills/assistant/fold-paper.md").write_text("First a crease.")
    path = tmp_path / "agents.yaml"
    path.write_text(text, encoding="utf-8")
    return read_agents_file(path, TOOLS)


def mistake(tmp_path: Path, text: str) -> str:
    """What is said about the text, without the path: one line."""
    with pytest.raises(CommandError) as caught:
        read(tmp_path, text)
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith(f"{tmp_path}/agents.yaml:")
    return line.removeprefix(f"{tmp_path}/agents.yaml:")


def test_the_whole_form_is_accepted(tmp_path: Path) -> None:
    file = read(tmp_path, WHOLE)
    assert file.context == "What every agent here should know."
    assert file.structures == ("6f6c1f6e-0000-4000-8000-000000000001",)
    assistant = file.agents[0]
    assert (assistant.agent_id, assistant.roles) == ("assistant", ("executive-office-cmo",))
    assert (assistant.context, assistant.temperature, assistant.limits.steps) == ("Starting context.", 0.7, 50)
    assert [team.team_id for team in file.teams] == ["founders"]
    assert file.teams[0].members == ("assistant", "researcher", "analyst")
    assert [(skill.agent_id, skill.slug) for skill in file.skills] == [("assistant", "fold-paper")]
    assert file.notices == ()
    assert assistant.approval_terms == (Approval(tool="ledger/pay"),)
    assert [tool.name for tool in assistant.client_tools] == ["get_weather"]


def test_mcp_servers_are_read_with_their_values_not_looked_up_and_their_folder_known(tmp_path: Path) -> None:
    file = read(tmp_path, WHOLE)
    assert file.connectors == ("search",)
    search, ledger = file.mcp_servers
    assert (search.url, search.cwd) == ("http://127.0.0.1:9000/mcp", None)
    assert (search.headers, search.timeout_s) == ({"Authorization": "env:SEARCH_TOKEN"}, 30)
    assert (ledger.command, ledger.cwd, ledger.env) == (
        ("python", "ledger.py"),
        str(tmp_path),
        {"LEDGER": "effects.jsonl"},
    )
    assert ledger.tools == {
        "pay": McpTool(effect="unsafe"),
        "book": McpTool(effect="checkable", check="booked"),
    }


def test_the_shipped_file_declares_the_four_agents_and_the_team_and_needs_no_notice() -> None:
    file = read_agents_file(SHIPPED_AGENTS, TOOLS)
    assert [agent.agent_id for agent in file.agents] == ["assistant", "researcher", "analyst", "scripted"]
    assert [agent.model for agent in file.agents] == ["default", "default", "default", "scripted"]
    assert [(team.team_id, team.members) for team in file.teams] == [
        ("founders", ("assistant", "researcher", "analyst"))
    ]
    assert file.agents[-1].tools == ("*",)
    assert file.notices == ()


def test_the_terms_of_approvals_and_client_tools_are_read(tmp_path: Path) -> None:
    schema = "{type: object, properties: {eur: {type: number}}, required: [eur]}"
    text = f"""\
mcp_servers: [{{name: ledger, command: [x]}}]
agents:
  - id: a
    name: A
    tools: ["ledger/*", clock]
    approvals:
      - calculator
      - {{tool: "ledger/p*", question: "Pay?", input_schema: {schema}, who: [ann, bob], expires_s: 60}}
      - get_weather
      - "*"
    client_tools:
      - {{name: get_weather, description: d, input_schema: {schema}, expires_s: 3}}
      - {{name: echo}}
"""
    [agent] = read(tmp_path, text).agents
    whole = {"type": "object", "properties": {"eur": {"type": "number"}}, "required": ["eur"]}
    assert agent.approval_terms == (
        Approval(tool="calculator"),
        Approval(tool="ledger/p*", question="Pay?", input_schema=whole, who=("ann", "bob"), expires_s=60),
        Approval(tool="get_weather"),
        Approval(tool="*"),
    )
    assert agent.client_tools == (
        ClientTool(name="get_weather", description="d", input_schema=whole, expires_s=3),
        ClientTool(name="echo"),
    ), "a built-in tool that the agent does not have is no hindrance"


SERVERS = "mcp_servers:\n  - {name: s, "
AGENT = "agents:\n  - {id: a, name: A, "


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "1: agents: is missing"),
        ("[]", "1: the file: a mapping is wanted"),
        ("agents: []", "1: agents: must not be empty"),
        ("agents: {", "1: expected the node content, but found '<stream end>'"),
        ("agents: *a", "1: found undefined alias 'a'"),
        ("a: 1\n---\nb: 2", "2: but found another document"),
        ("a:\n\tb: 1", "2: found character '\\t' that cannot start any token"),
        ("\n\na: \x07", "3: a character that YAML does not allow (U+0007)"),
        ("a: !!python/name:os.system", "1: could not determine a constructor"),
        ("a: !!int x", "1: not YAML"),
        ("# a comment\nagent: []\n" + AGENT + "}", "2: agent: there is no such setting"),
        (AGENT + "color: red}", "2: agents.0.color: there is no such setting"),
        (AGENT + "temperature: warm}", "2: agents.0.temperature: Input should be a valid number"),
        (AGENT + "temperature: 3}", "2: agents.0.temperature: Input should be less than or equal to 2"),
        (AGENT + "description: yes}", "2: agents.0.description: a text is wanted (put it in quotes)"),
        (AGENT + "tools: clock}", "2: agents.0.tools: a list is wanted"),
        (AGENT + "tools: [clock, clok]}", "2: agents.0.tools.1: there is no tool 'clok'"),
        (AGENT + "\n     limits:\n       {steps: 0}}", "4: agents.0.limits.steps: Input should be greater"),
        (AGENT + "client_tools: [{description: x}]}", "2: agents.0.client_tools.0.name: is missing"),
        (AGENT + "client_tools: [{name: x, names: x}]}", "2: agents.0.client_tools.0.names: there is no such setting"),
        (AGENT + "client_tools: [{name: a b}]}", "2: agents.0.client_tools.0.name: a name of at most 64"),
        (AGENT + "client_tools: [{name: é}]}", "2: agents.0.client_tools.0.name: a name of at most 64"),
        (AGENT + "client_tools: [{name: ''}]}", "2: agents.0.client_tools.0.name: a name of at most 64"),
        (AGENT + "client_tools: [{name: x}, {name: x}]}", "2: agents.0.client_tools.1.name: there is another client"),
        (AGENT + "tools: ['c*'], client_tools: [{name: clock}]}", "2: agents.0.client_tools.0.name: the agent has a"),
        (
            AGENT + "client_tools: [{name: s__x}]}\n" + SERVERS + "url: http://h/}",
            "2: agents.0.client_tools.0.name: so are the tools of an MCP server called",
        ),
        (
            AGENT + "client_tools: [{name: x, input_schema: {type: string}}]}",
            "2: agents.0.client_tools.0.input_schema: the schema of an object",
        ),
        (
            AGENT + "client_tools: [{name: x, input_schema: {type: object, properties: {a: 1}}}]}",
            "2: agents.0.client_tools.0.input_schema: `properties` must map",
        ),
        (
            AGENT + "client_tools: [{name: x, input_schema: {type: object, required: a}}]}",
            "2: agents.0.client_tools.0.input_schema: `required` must be a list",
        ),
        (
            AGENT + "client_tools: [{name: x, input_schema: {type: object, title: '" + "x" * 65536 + "'}}]}",
            "2: agents.0.client_tools.0.input_schema: a schema may have at most",
        ),
        (AGENT + "client_tools: [{name: x, expires_s: 0}]}", "2: agents.0.client_tools.0.expires_s: Input should be"),
        (
            AGENT + "client_tools: [" + ", ".join(f"{{name: x{n}}}" for n in range(101)) + "]}",
            "2: agents.0.client_tools: Tuple should have at most 100 items",
        ),
        (AGENT + "approvals: [clok]}", "2: agents.0.approvals.0: there is no tool 'clok'"),
        (AGENT + "approvals: [clock, {tool: clok}]}", "2: agents.0.approvals.1: there is no tool 'clok'"),
        (AGENT + "approvals: [s/pay]}", "2: agents.0.approvals.0: there is no MCP server 's'"),
        (AGENT + "approvals: [{question: x}]}", "2: agents.0.approvals.0.tool: is missing"),
        (AGENT + "approvals: [7]}", "2: agents.0.approvals.0: a mapping is wanted"),
        (AGENT + "approvals: [{tool: clock, ask: x}]}", "2: agents.0.approvals.0.ask: there is no such setting"),
        (AGENT + "approvals: [{tool: clock, who: ['']}]}", "2: agents.0.approvals.0.who.0: the id of a user"),
        (
            AGENT + "approvals: [{tool: clock, input_schema: {}}]}",
            "2: agents.0.approvals.0.input_schema: the schema of an object",
        ),
        (AGENT + "approvals: [{tool: clock, expires_s: 99999999}]}", "2: agents.0.approvals.0.expires_s: Input"),
        (AGENT + "name: B}", "2: agents.0.name: stands here for the second time"),
        (AGENT + "}\nagents: []", "3: agents: stands here for the second time"),
        (AGENT + "}\n  - id: b\n    name: B\n  - id: a\n    name: C", "5: agents.2.id: there is another agent 'a'"),
        (AGENT + 'context: "\\uD800"}', "2: agents.0.context: NUL and lone surrogates cannot stand in a text"),
        (AGENT + 'context: "a\\0b"}', "2: agents.0.context: NUL and lone surrogates"),
        (AGENT + '"\\0": 1}', "2: agents.0: NUL and lone surrogates"),
        (AGENT + "skills: nowhere}", "2: agents.0.skills: there is no nowhere"),
        ("agents:\n  - {id: '', name: A}", "2: agents.0.id: String should match pattern"),
        ("agents:\n  - id: a", "2: agents.0.name: is missing"),
        ("agents: &a [*a]", "1: agents.0.0: nests deeper than 60 levels"),
        (AGENT + "model: ''}", "2: agents.0.model: String should have at least 1 character"),
        (AGENT + "model: m, base_url: localhost:9000}", "2: agents.0.base_url: an address is wanted"),
        (AGENT + "model: m, base_url: 'ftp://host'}", "2: agents.0.base_url: an address is wanted"),
        (AGENT + "model: m, base_url: 'http://host:x'}", "2: agents.0.base_url: an address is wanted"),
        (AGENT + "model: m, base_url: 'http://u:p@host'}", "2: agents.0.base_url: an address alone is wanted"),
        (AGENT + "model: m, base_url: 'http://host?k=v'}", "2: agents.0.base_url: an address alone is wanted"),
        (AGENT + "model: m, base_url: 'http://host/v1/'}", "2: agents.0.base_url: the address without /v1"),
        (AGENT + "base_url: 'http://host'}", "2: agents.0.model: the name of a model that the server"),
        (AGENT + "api_key: sk-123}", "2: agents.0.api_key: the name of a variable is wanted (env:NAME), never the key"),
        (AGENT + "api_key: 'env:ANTHROPIC_API_KEY'}", "2: agents.0.api_key: a variable of its own is wanted"),
        (AGENT + "api_key: 'env:AWS_SECRET_ACCESS_KEY'}", "2: agents.0.api_key: a variable of its own is wanted"),
        (
            SERVERS + "url: 'http://h', headers: {K: 'env:AWS_SECRET_ACCESS_KEY'}}\n" + AGENT + "}",
            "2: mcp_servers.0.headers.K: a variable of its own is wanted",
        ),
        (AGENT + "thinking: hard}", "2: agents.0.thinking: `adaptive`, `off` or a number of tokens is wanted"),
        (AGENT + "thinking: 1.5}", "2: agents.0.thinking: `adaptive`, `off` or a number of tokens is wanted"),
        (AGENT + "thinking: 100}", "2: agents.0.thinking: a budget from 1024 to below limits.max_tokens (8192)"),
        (AGENT + "thinking: 8192}", "2: agents.0.thinking: a budget from 1024 to below limits.max_tokens (8192)"),
        (AGENT + "}\nstructures:\n  - x", "4: structures.0: not a UUID"),
        (AGENT + "}\nmcp_servers: [{url: x}]", "3: mcp_servers.0.name: is missing"),
        (AGENT + "tools: [s/*]}", "2: agents.0.tools.0: there is no MCP server 's'"),
        (AGENT + "tools: [t/*]}\n" + SERVERS + "url: http://h/}", "2: agents.0.tools.0: there is no MCP server 't'"),
        ("workspace:\n  connectors: [s]\n" + AGENT + "}", "2: workspace.connectors.0: there is no MCP server 's'"),
        (SERVERS + "}\n" + AGENT + "}", "2: mcp_servers.0: either `url` or `command` is wanted"),
        (SERVERS + "url: http://h/, command: [x]}\n" + AGENT + "}", "2: mcp_servers.0: either `url` or `command`"),
        (SERVERS + "url: h}\n" + AGENT + "}", "2: mcp_servers.0.url: an http:// or https:// address is wanted"),
        (SERVERS + "command: ['']}\n" + AGENT + "}", "2: mcp_servers.0.command.0: must not be empty"),
        (SERVERS + "command: [x], headers: {a: b}}\n" + AGENT + "}", "2: mcp_servers.0.headers: belongs to `url`"),
        (SERVERS + "url: http://h/, env: {a: b}}\n" + AGENT + "}", "2: mcp_servers.0.env: belongs to `command`"),
        (SERVERS + "url: http://h/,\n     headers: {a b: c}}\n" + AGENT + "}", "3: mcp_servers.0.headers.a b: cannot"),
        (SERVERS + 'url: http://h/, headers: {a: "b\\nc"}}\n' + AGENT + "}", "2: mcp_servers.0.headers.a: cannot be"),
        (SERVERS + "command: [x], env: {A: 'env:'}}\n" + AGENT + "}", "2: mcp_servers.0.env.A: 'env:' names no"),
        (SERVERS + "command: [x], env: {A: 'env:B-C'}}\n" + AGENT + "}", "2: mcp_servers.0.env.A: 'env:B-C' names no"),
        (SERVERS + "command: [x], env: {'A=B': c}}\n" + AGENT + "}", "2: mcp_servers.0.env.A=B: cannot be the name"),
        (
            SERVERS + "command: [x], timeout_s: 0}\n" + AGENT + "}",
            "2: mcp_servers.0.timeout_s: Input should be",
        ),
        (
            SERVERS + "command: [x], tools: {a: safe}}\n" + AGENT + "}",
            "2: mcp_servers.0.tools.a.effect: Input should be 'read_only'",
        ),
        (
            SERVERS + "command: [x], tools: {a: checkable}}\n" + AGENT + "}",
            "2: mcp_servers.0.tools.a: `checkable`",
        ),
        (
            SERVERS + "command: [x], tools: {a: {effect: unsafe, check: b}}}\n" + AGENT + "}",
            "2: mcp_servers.0.tools.a.check: is for `checkable` alone",
        ),
        (SERVERS + "command: [x]}\n  - {name: s, command: [y]}\n" + AGENT + "}", "3: mcp_servers.1.name: there is"),
        ("mcp_servers: [{name: a__b, command: [x]}]\n" + AGENT + "}", "1: mcp_servers.0.name: String should match"),
        (AGENT + "}\nteams:\n  - {id: t, name: T, members: []}", "4: teams.0.members: must not be empty"),
        (AGENT + "}\nteams:\n  - {id: t, name: T, members: [a, b]}", "4: teams.0.members.1: there is no agent 'b'"),
        (AGENT + "}\nteams:\n  - {id: t, name: T, members: [a], lead: b}", "4: teams.0.lead: there is no agent 'b'"),
        (AGENT + "}\nteams:\n  - {id: t, name: T, members: [a], mode: solo}", "4: teams.0.mode: Input should be"),
        (
            AGENT + "}\nteams:\n  - {id: t, name: T, members: [a]}\n  - {id: t, name: U, members: [a]}",
            "5: teams.1.id: there is another team 't'",
        ),
    ],
)
def test_a_mistake_is_one_line_with_its_place(tmp_path: Path, text: str, line: str) -> None:
    assert mistake(tmp_path, text).startswith(line)


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing.yaml", tmp_path):
        with pytest.raises(CommandError, match=f"^{path} cannot be read: [^\n]*$"):
            read_agents_file(path, TOOLS)
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9\n")
    with pytest.raises(CommandError, match=r"latin\.yaml cannot be read: [^\n]*$"):
        read_agents_file(tmp_path / "latin.yaml", TOOLS)
    (tmp_path / "large.yaml").write_text("#" * (MAX_BYTES + 1))
    with pytest.raises(CommandError, match="is larger than"):
        read_agents_file(tmp_path / "large.yaml", TOOLS)


def test_an_agent_may_have_a_model_of_its_own(tmp_path: Path) -> None:
    file = read(
        tmp_path,
        AGENT
        + "model: local, base_url: 'http://127.0.0.1:9000', api_key: 'env:LOCAL_KEY', thinking: off}\n"
        + "  - {id: b, name: B, model: claude-opus-4-5, thinking: 4096}\n"
        + "  - {id: c, name: C, model: default, thinking: adaptive}",
    )
    first, second, third = file.agents
    assert (first.model, first.base_url, first.api_key) == ("local", "http://127.0.0.1:9000", "env:LOCAL_KEY")
    assert (first.thinking, second.thinking, third.thinking) == ("off", 4096, "adaptive")
    assert file.notices == ()


def test_agents_whose_key_is_not_there_are_named_and_no_others(tmp_path: Path) -> None:
    file = read(
        tmp_path,
        "agents:\n  - {id: a, name: A, model: claude-sonnet-5-5}\n  - {id: b, name: B, model: default}\n"
        "  - {id: c, name: C, model: local, base_url: 'http://host'}\n"
        "  - {id: d, name: D, model: local, base_url: 'http://host', api_key: 'env:MINE'}",
    )
    assert noting_keys(file, {}).notices == (
        "a: its runs will fail: 'claude-sonnet-5-5' needs ANTHROPIC_API_KEY",
        "d: its runs will fail: env:MINE is not set",
    )
    assert noting_keys(file, {"ANTHROPIC_API_KEY": "sk-secret", "MINE": "x"}).notices == ()


def test_a_date_is_a_text(tmp_path: Path) -> None:
    assert read(tmp_path, AGENT + "description: 2026-02-31}").agents[0].description == "2026-02-31"


def test_another_name_of_the_workspace_is_not_taken_silently(tmp_path: Path) -> None:
    [notice] = read(tmp_path, "workspace: {name: acme}\n" + AGENT + "}").notices
    assert "workspace.name is not served yet" in notice


def test_the_digest_tells_a_change_of_any_word_and_nothing_else(tmp_path: Path) -> None:
    before = read(tmp_path, WHOLE).agents[0]
    assert digest_of(read(tmp_path, "# a comment\n" + WHOLE).agents[0]) == digest_of(before)
    for word, other in (
        ("Answers questions.", "Answers."),
        ("claude-sonnet-4-5", "scripted"),
        ("0.7", "0.8"),
        ("[clock, calculator,", "[calculator, clock,"),
        ("steps: 50", "steps: 51"),
        ("Starting context.", "Another context."),
        ("executive-office-cmo", "cmo"),
    ):
        assert digest_of(read(tmp_path, WHOLE.replace(word, other)).agents[0]) != digest_of(before), word
