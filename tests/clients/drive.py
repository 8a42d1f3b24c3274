"""What the Python client has to go through, as drive.mjs tells: drive.py BASE_URL TOKEN FIFO"""

import concurrent.futures
import sys

from client import Conversation, Lake, LakeError


def main(base_url, token, fifo):
    lake = Lake(base_url, token)
    session, _ = lake.request("POST", "/v1/sessions", {"provider": "demo"})
    path = f"/v1/sessions/{session['id']}"

    def ask(text, when):
        return lake.request("POST", f"{path}/turns", {"input": [text], "when": when})[0]["turn_id"]

    ask("slow 40 50", "now")
    conversation = Conversation()
    deltas, caught_up, last, second = 0, 0, None, None
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        for kind, value in lake.follow(session["id"]):
            conversation.take(kind, value)
            if kind == "snapshot":
                last = value[0][1]
            caught_up += kind == "caught_up"
            if kind != "event":
                continue
            assert value["seq"] == last + 1, f"{value['seq']} came behind {last}"
            last = value["seq"]
            deltas += value["kind"] == "item.delta"
            if deltas == 5 and second is None:
                with open(fifo, "a") as out:
                    out.write("middle\n")
                # The server is away now: this one is sent until it is back, and acts once.
                second = pool.submit(ask, "say after the kill", "queue")
            if value["kind"] == "turn.completed" and second and value["turn_id"] == second.result():
                break
    assert caught_up >= 2, f"it was caught up {caught_up} times: nothing broke"
    turns, _ = lake.request("GET", f"{path}/turns")
    texts = [turn["assistant_text"] for turn in turns]
    assert texts == ["".join(f"{n} " for n in range(1, 41)), "after the kill"], texts
    items, _ = lake.request("GET", f"{path}/transcript")
    assert conversation.items == items, "the conversation is not the transcript"
    try:
        Lake(base_url, "wrong").request("GET", "/v1/sessions")
        raise AssertionError("a wrong token is taken")
    except LakeError as error:
        assert error.code == "unauthorized" and error.request_id, error
    print(f"{last} events, {len(items)} items")


main(*sys.argv[1:])
