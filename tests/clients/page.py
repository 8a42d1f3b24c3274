"""Serves the browser's page and its modules, and passes on what the page tells: page.py FOLDER FIFO

Prints its port when it listens. FOLDER holds page.html, the two modules and settings.json.
"""

import functools
import http.server
import sys


class Page(http.server.SimpleHTTPRequestHandler):
    extensions_map = {".html": "text/html", ".mjs": "text/javascript", ".json": "application/json"}

    def do_POST(self):
        word = self.rfile.read(int(self.headers["Content-Length"]))
        with open(sys.argv[2], "ab") as fifo:
            fifo.write(word + b"\n")
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


handler = functools.partial(Page, directory=sys.argv[1])
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
print(server.server_address[1], flush=True)
server.serve_forever()
