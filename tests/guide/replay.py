#!/usr/bin/env python3
"""The pasted sessions of the documents, typed again against a server with the demo agent.

usage: replay.py [--update] FOLDER DOCUMENT...   FOLDER holds the built programs (target/debug)

Each document has a shell, a data folder and a port of its own, and a server from the start when it starts none itself. All blocks marked `console` are typed in their order:
what stands behind `$ ` is a command, the lines behind it are what it must print. A document says /tmp/gg-demo,
/tmp/project and 127.0.0.1:8080; here these are other folders and another port. Ids, times and numbers of two digits and
more differ from run to run: they are compared by their kind, and commands keep them in variables. In what must be
printed, `…` stands for anything, and a line that is nothing else for any lines. `--update` writes what was printed into
the document, but where that has a `…`.

Needs python3 (3.9), bash, curl, jq and git. Exits 1 with the differences when something else was printed.
"""

import os
import re
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ID = re.compile(r"\b([a-z]+)_([0-9a-f]{14,32}(?:_\d+)?)\b")
NUMBER = re.compile(r"(?<![\w.])\d+\.\d+(?:e-\d+)?|(?<![\w.])\d+e-\d+|\d{2,}")
STATUS = re.compile(r"\d{3}")
# What a document that needs a server and starts none has before its first line: what `make run` does.
START = [(-1, "gg-runtime-server --data-dir /tmp/gg-demo 2>/tmp/gg-demo.log & SERVER=$!", ["listening …", "token …"])]
# The longest that one command may take, in seconds: a turn of the guide takes six.
DEADLINE = 60
END = "---- end of what the command printed"


def blocks(text):
    """The commands of each console block: (line number, command, lines that it must print)."""
    found, inside = [], False
    for number, line in enumerate(text.split("\n")):
        if line.startswith("```"):
            inside = line == "```console"
        elif inside and line.startswith("$ "):
            found.append((number, line[2:], []))
        elif inside and found:
            found[-1][2].append(line)
    return found


def masked(line):
    """The line without what differs from run to run."""
    if STATUS.fullmatch(line):
        return line
    return NUMBER.sub("<number>", ID.sub(lambda match: f"<{match[1]}>", line))


def pattern(lines):
    """What must be printed, as a regular expression over the masked lines."""
    parts = []
    for line in lines:
        if line == "…":
            parts.append(r"(?:.*\n)*?")
        else:
            words = re.split(r" ?… ?", line)
            parts.append(".*".join(re.escape(masked(word)) for word in words) + r"\n")
    return re.compile("".join(parts))


class Shell:
    """One bash that keeps its variables from command to command. Its servers end with it."""

    def __init__(self, programs, folder):
        self.port, self.folder = free_port(), folder
        self.folder.joinpath("bin").mkdir()
        server = self.folder / "bin/gg-runtime-server"
        server.write_text(f'#!/bin/sh\nexec {programs}/gg-runtime-server --bind 127.0.0.1:{self.port} "$@"\n')
        server.chmod(0o755)
        path = os.pathsep.join([str(server.parent), str(programs), os.environ["PATH"]])
        kept = {name: os.environ[name] for name in ("LANG", "USER", "TMPDIR") if name in os.environ}
        env = {**kept, "PATH": path, "HOME": str(folder), "GIT_CONFIG_GLOBAL": "/dev/null"}
        self.process = subprocess.Popen(
            ["bash", "--norc", "--noprofile"], cwd=folder, env=env, text=True, bufsize=1, start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def here(self, text):
        """What a document says, as it is called here."""
        text = text.replace("/tmp/gg-demo", f"{self.folder}/data").replace("/tmp/project", f"{self.folder}/project")
        return text.replace("127.0.0.1:8080", f"127.0.0.1:{self.port}")

    def there(self, text):
        """The way back."""
        text = text.replace(f"{self.folder}/project", "/tmp/project").replace(f"{self.folder}/data", "/tmp/gg-demo")
        return text.replace(f"127.0.0.1:{self.port}", "127.0.0.1:8080")

    def type(self, command, at_least):
        """What the command prints; of one in the background, at least so many lines."""
        self.process.stdin.write(f"{command}\nprintf '\\n%s\\n' '{END}'\n")
        lines, rest, is_over, deadline = [], "", False, time.monotonic() + DEADLINE
        output = self.process.stdout.buffer
        with selectors.DefaultSelector() as ready:
            ready.register(output, selectors.EVENT_READ)
            while not is_over or len(lines) < at_least:
                if not ready.select(max(0, deadline - time.monotonic())):
                    raise SystemExit(f"guide: it did not end: {command}\nprinted so far: {lines}")
                chunk = os.read(output.fileno(), 65536)
                if not chunk:
                    raise SystemExit(f"guide: the shell ended in: {command}")
                *whole, rest = (rest + chunk.decode()).split("\n")
                for line in whole:
                    if line == END:
                        is_over = True
                        # The line break before the mark, or the one that an answer without its own was given.
                        if lines and lines[-1] == "":
                            lines.pop()
                    else:
                        lines.append(line)
        return lines

    def end(self):
        self.process.stdin.close()
        for pid in filter(self.is_server, filter(str.isdigit, os.listdir("/proc"))):
            # SIGINT ends the agents too.
            os.kill(int(pid), signal.SIGINT)
            wait_gone(pid)
        self.process.wait(DEADLINE)

    def is_server(self, pid):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return False
        is_here = any(os.fsencode(self.folder) in word for word in words)
        return is_here and os.path.basename(words[0]) == b"gg-runtime-server"


def wait_gone(pid):
    try:
        handle = os.pidfd_open(int(pid))
    except ProcessLookupError:
        return
    with selectors.DefaultSelector() as ready:
        ready.register(handle, selectors.EVENT_READ)
        ready.select(DEADLINE)
    os.close(handle)


def free_port():
    """Below the ports that the system gives away by itself, so that it is free for the second server too."""
    for port in range(20000 + os.getpid() % 10000, 32000):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise SystemExit("guide: there is no free port")


def replay(programs, document, is_update):
    """How many commands printed something else."""
    text = document.read_text()
    lines, wrong, shift = text.split("\n"), 0, 0
    folder = Path(tempfile.mkdtemp(prefix="gg-guide-"))
    shell = Shell(programs, folder)
    try:
        found = blocks(text)
        starts = any(command.startswith("gg-runtime-server") for _, command, _ in found)
        for number, command, wanted in found if starts else START + found:
            at_least = len([line for line in wanted if line != "…"]) if " & " in command else 0
            printed = [shell.there(line) for line in shell.type(shell.here(command), at_least)]
            # Empty lines at the end are how a document or a stream looks, not what is said.
            while printed and printed[-1] == "":
                printed.pop()
            while wanted and wanted[-1] == "":
                wanted = wanted[:-1]
            seen = "".join(f"{masked(line)}\n" for line in printed)
            if is_update and not any("…" in line for line in wanted):
                start = number + shift + 1
                lines[start:start + len(wanted)] = printed
                shift += len(printed) - len(wanted)
            if not pattern(wanted).fullmatch(seen):
                wrong += 1
                print(f"{document}:{number + 1}: $ {command}\n--- the document says\n" + "\n".join(wanted)
                      + "\n--- was printed\n" + "\n".join(printed), flush=True)
    finally:
        shell.end()
        shutil.rmtree(folder)
    if is_update:
        document.write_text("\n".join(lines))
    return wrong


def main():
    arguments = [word for word in sys.argv[1:] if word != "--update"]
    if len(arguments) < 2:
        raise SystemExit(__doc__)
    programs = Path(arguments[0]).resolve()
    is_update = "--update" in sys.argv
    wrong = sum(replay(programs, Path(name), is_update) for name in arguments[1:])
    if wrong and not is_update:
        raise SystemExit(f"guide: {wrong} commands print something else; --update takes what they print")
    print("guide: done")


main()
