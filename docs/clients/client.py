"""A reference client of gooselake: Python 3.9 and newer, the standard library alone, to be read and copied.

docs/CLIENTS.md tells what it shows: a snapshot and the stream behind it without a seam, a cursor that survives breaks
and restarts, waiting that grows, requests that can be sent again, and which errors are final.

    python3 client.py http://127.0.0.1:8080 "$TOKEN" demo "say Hello!"
"""

import contextlib
import http.client
import json
import random
import sys
import time
import urllib.parse
import uuid

QUIET_SECS = 35  # A stream that is silent for longer than three heartbeats of the server is dead.
PAUSE_FIRST_SECS, PAUSE_MAX_SECS = 0.25, 10


class LakeError(Exception):
    """An answer that is an error: `code` is for programs, the text for people."""

    def __init__(self, status, body, headers):
        body = body if isinstance(body, dict) else {}
        super().__init__(body.get("error") or f"the server answered {status}")
        self.status = status
        self.code = body.get("code", "unknown")
        self.body = body
        self.request_id = headers.get("X-Request-Id")
        self.retry_after_secs = float(headers.get("Retry-After") or 0)


class Lake:
    """A server. `retry_secs`: how long a request is tried again while the server is away or full."""

    def __init__(self, base_url, token, retry_secs=60):
        self.url = urllib.parse.urlsplit(base_url.rstrip("/"))
        self.token = token
        self.retry_secs = retry_secs

    def request(self, method, path, body=None):
        """A request that may be sent more than once and acts once. Gives the JSON and the headers of the answer."""
        headers = {"Authorization": f"Bearer {self.token}"}
        if body is not None:
            body = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        if method == "POST":
            # With the key a second POST is answered with what the first has made, also across a restart.
            headers["Idempotency-Key"] = str(uuid.uuid4())
        until = time.monotonic() + self.retry_secs
        attempt = 0
        while True:
            try:
                connection, answer = self._open(method, path, body, headers)
                with connection:
                    return _json(answer.read()), answer.headers
            except Exception as error:
                if not _is_passing(error) or time.monotonic() > until:
                    raise
                _pause(attempt, error)
                attempt += 1

    def follow(self, session_id):
        """Follows a session for ever: yields ("snapshot", pages) first, then ("event", event) for each event behind it,
        once and in order, and ("caught_up", None) when what was missed is through (after each connect). Each page is
        (items, seq), the conversation as of that seq. A second snapshot replaces the first: it comes when events were
        dropped meanwhile, or the log is another one. Ends with the loop; raises what no waiting mends."""
        path = f"/v1/sessions/{session_id}"
        cursor = None  # the seq of the last event that the caller has
        attempt = 0
        while True:
            problem = None
            try:
                if cursor is None:
                    pages = self._transcript(path)
                    cursor = pages[0][1]
                    yield "snapshot", pages
                for frame in self._frames(f"{path}/events/stream?after_seq={cursor}"):
                    attempt = 0
                    if "id" in frame:
                        event = json.loads(frame["data"])
                        cursor = event["seq"]
                        yield "event", event
                    elif frame["event"] == "stream.opened" and json.loads(frame["data"])["resume"] == "pruned":
                        cursor = None
                        break
                    elif frame["event"] == "stream.caught_up":
                        yield "caught_up", None
                    # stream.closing says that the server stops; the end of the stream follows by itself.
            except Exception as error:
                problem = error
                if getattr(error, "code", None) == "cursor_ahead":
                    cursor = None
                elif not _is_passing(error):
                    raise
            if cursor is not None:
                _pause(attempt, problem)
            attempt += 1

    def _open(self, method, path, body, headers):
        kind = http.client.HTTPSConnection if self.url.scheme == "https" else http.client.HTTPConnection
        connection = kind(self.url.hostname, self.url.port, timeout=QUIET_SECS)
        try:
            connection.request(method, self.url.path + path, body, headers)
            answer = connection.getresponse()
            if answer.status >= 400:
                raise LakeError(answer.status, _json(answer.read()), answer.headers)
            return contextlib.closing(connection), answer
        except BaseException:
            connection.close()
            raise

    def _transcript(self, path):
        pages, cursor = [], None
        while cursor is not None or not pages:
            more = f"&cursor={cursor}" if cursor else ""
            items, headers = self.request("GET", f"{path}/transcript?limit=10000{more}")
            pages.append((items, int(headers["X-As-Of-Seq"])))
            cursor = headers.get("X-Next-Cursor")
        return pages

    def _frames(self, path):
        """The frames of one connection, as SSE has them. Raises when it breaks, is silent for too long, is refused."""
        connection, answer = self._open("GET", path, None, {"Authorization": f"Bearer {self.token}"})
        with connection:
            frame = {}
            # A line is read when the last one is dealt with: a slow caller slows the server, and loses nothing.
            for line in answer:
                line = line.decode().rstrip("\r\n")
                if not line:
                    if "data" in frame:
                        yield frame
                    frame = {}
                elif not line.startswith(":"):
                    field, _, text = line.partition(":")
                    frame[field] = text[1:] if text.startswith(" ") else text


class Conversation:
    """The items of a conversation, kept up to date by what `follow` yields."""

    def __init__(self):
        self.entries = {}  # item_id -> (item, the seq that it is as of)

    @property
    def items(self):
        return [item for item, _ in self.entries.values()]

    def take(self, kind, value):
        if kind == "snapshot":
            self.entries = {item["item_id"]: (item, seq) for items, seq in value for item in items}
        elif kind == "event" and value["kind"].startswith("item."):
            payload = value["payload"]
            item_id = payload["item"]["item_id"] if "item" in payload else payload["item_id"]
            item, seq = self.entries.get(item_id, ({}, 0))
            if value["seq"] <= seq:
                return  # a later page of the snapshot has it already
            field, change = payload.get("field"), payload.get("set", {})
            if field:
                change = {field: (item.get(field) or "") + payload["delta"]}
            self.entries[item_id] = (payload.get("item") or {**item, **change}, value["seq"])


def _json(data):
    try:
        return json.loads(data) if data else None
    except ValueError:
        return None  # an error of a proxy


def _is_passing(error):
    """The network failed, the server says to come again, or a proxy says that it is away. 401 never passes."""
    if isinstance(error, LakeError):
        return error.status in (429, 503) or (error.code == "unknown" and error.status >= 502)
    return isinstance(error, (OSError, http.client.HTTPException))


def _pause(attempt, error):
    """Waits longer each time, and not all clients alike."""
    most = min(PAUSE_MAX_SECS, PAUSE_FIRST_SECS * 2 ** min(attempt, 10))
    time.sleep(max(getattr(error, "retry_after_secs", 0), most * random.uniform(0.5, 1)))


def main(base_url, token, provider="demo", prompt="say Hello!"):
    lake = Lake(base_url, token)
    session, _ = lake.request("POST", "/v1/sessions", {"provider": provider})
    turn, _ = lake.request("POST", f"/v1/sessions/{session['id']}/turns", {"input": [prompt]})
    for kind, event in lake.follow(session["id"]):
        if kind == "event" and event["kind"] == "item.delta" and event["payload"].get("field") == "text":
            print(event["payload"]["delta"], end="", flush=True)
        ends = ("turn.completed", "turn.failed", "turn.interrupted")
        if kind == "event" and event["turn_id"] == turn["turn_id"] and event["kind"] in ends:
            return print()


if __name__ == "__main__":
    main(*sys.argv[1:])
