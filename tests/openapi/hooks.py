"""What is changed in a request before it is sent, so that trying the whole API harms nothing and ends.

Commands are replaced by harmless ones, folders by one that goes away, and waits are cut short. What is malformed stays
as it is: then the server refuses it, and that is what is tried.
"""

import os
import zlib

import schemathesis

FOLDER = os.environ["TRIED_FOLDER"]
REPOSITORY = os.environ["TRIED_REPOSITORY"]
COMMANDS = ["echo hello", "true", "cat", "exit 3", "printf 'a\\nb\\n'; echo c >&2", "head -c 20000 /dev/zero | tr '\\0' x"]
# First words of a line of a prompt that make the demo agent do more than talk (its README).
DEEDS = ("run", "write", "save", "terminal", "spawn", "flood", "longline", "hang", "slow", "ignorecancel", "stderr", "mcp")


def one_of(choices, value):
    """One of the choices; the same for the same value."""
    return choices[zlib.crc32(repr(value).encode()) % len(choices)]


def no_deed(text):
    lines = text.splitlines()
    if any(line.strip().lower().startswith(DEEDS) for line in lines):
        return "say no"
    return text


def talk_only(value):
    if isinstance(value, str):
        return no_deed(value)
    if isinstance(value, list):
        return [talk_only(part) for part in value]
    if isinstance(value, dict):
        return {key: talk_only(part) if key in ("text", "input", "prompt") else part for key, part in value.items()}
    return value


def is_number(value):
    return isinstance(value, int) and not isinstance(value, bool)


def whole(value):
    """JSON Schema takes 1.0 for a whole number; a client that has one writes 1. Numbers beyond a double are refused,
    which no schema can say."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if is_number(value) and abs(value) > 10**300:
        return 0
    if isinstance(value, list):
        return [whole(part) for part in value]
    if isinstance(value, dict):
        return {key: whole(part) for key, part in value.items()}
    return value


def kept(body, *names):
    return {name: body[name] for name in names if name in body}


# A body made at random is refused more often than not, and then nothing is there that a link could lead to.
MEANT = {
    "create_session": lambda body: {"provider": "demo", **kept(body, "title", "metadata", "system_prompt", "wait")},
    "create_turn": lambda body: {"input": ["ask me"], **kept(body, "when")},
    "create_worktree": lambda body: {"repo_root": REPOSITORY, "worktree_name": one_of(["a", "b", "c/d"], body)},
    "create_process": lambda body: {"command": one_of(COMMANDS, body), **kept(body, "name", "queue", "session_id")},
    "create_team": lambda body: {"name": "crew", **kept(body, "lead_agent_id", "created_by")},
    "spawn_member": lambda body: {"prompt": "hello", **kept(body, "source_session_id", "title", "metadata")},
}


def change_body(name, body, is_good):
    if name == "create_process":
        if isinstance(body.get("command"), str) and body["command"]:
            body["command"] = one_of(COMMANDS, body)
        if isinstance(body.get("args"), list) and body["args"] and all(isinstance(a, str) for a in body["args"]):
            body["args"] = ["echo", *body["args"][1:]]
    if isinstance(body.get("cwd"), str) and body["cwd"]:
        body["cwd"] = one_of([FOLDER, REPOSITORY, FOLDER + "/none"], body)
    if isinstance(body.get("repo_root"), str) and body["repo_root"]:
        body["repo_root"] = one_of([REPOSITORY, REPOSITORY, FOLDER], body)
    for key in ("kill_grace_ms", "timeout_ms"):
        if is_number(body.get(key)) and body[key] > 500:
            body[key] = 500
    if name in MEANT and is_good and one_of([True, True, False], body):
        body = MEANT[name](body)
    # An agent starts what it is given.
    servers = body.get("mcp_servers")
    if isinstance(servers, list):
        for server in servers:
            if isinstance(server, dict) and isinstance(server.get("command"), str):
                server["command"] = "true"
    return talk_only(body)


def is_long(value):
    """Whether it is a number of a query above 300, which may be a text already."""
    return is_number(value) and value > 300 or isinstance(value, str) and value.isdecimal() and int(value) > 300


def change_query(query):
    for key in ("wait_ms", "timeout_ms"):
        if is_long(query.get(key)):
            query[key] = 300
    if query.get("wait") in (True, "true") and "timeout_ms" not in query:
        query["timeout_ms"] = 300


def change_stream(case):
    """A stream is over after one event, or at once where nothing says that one will come."""
    query = case.query
    if not query or one_of([True, False], query):
        case.query = {"limit": 1}
        if case.headers:
            case.headers.pop("Last-Event-ID", None)
    elif is_number(query.get("limit", 0)):
        query["limit"] = 0


@schemathesis.hook
def before_call(context, case, **kwargs):
    definition = case.operation.definition.raw
    name = definition.get("operationId", "")
    if isinstance(case.query, dict):
        change_query(case.query)
    if name.startswith("stream_"):
        change_stream(case)
    if isinstance(case.body, dict):
        is_good = case.meta is None or case.meta.generation.mode.is_positive
        case.body = change_body(name, whole(case.body), is_good)
