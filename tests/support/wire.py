"""A PostgreSQL client of raw messages, for tests that choose what goes over the wire.

    c = Wire(port, "db", "postgres")
    c.send(query("select 1"))
    c.answers(1)            # [("T", ...), ("D", ...), ("C", b"SELECT 1"), ("Z", b"I")]
"""

import socket
import struct

from tests.support import pg


def message(tag, body=b""):
    return tag.encode() + struct.pack(">i", len(body) + 4) + body


def cstr(text):
    return (text if isinstance(text, bytes) else text.encode()) + b"\0"


def query(sql):
    return message("Q", cstr(sql))


def parse(name, sql, types=()):
    return message("P", cstr(name) + cstr(sql) + struct.pack(">h", len(types))
                   + b"".join(struct.pack(">I", t) for t in types))


def bind(portal, name, values=()):
    body = cstr(portal) + cstr(name) + struct.pack(">hh", 0, len(values))
    for v in values:
        data = str(v).encode()
        body += struct.pack(">i", len(data)) + data
    return message("B", body + struct.pack(">h", 0))


def describe(kind, name):
    return message("D", kind.encode() + cstr(name))


def execute(portal="", rows=0):
    return message("E", cstr(portal) + struct.pack(">i", rows))


def close(kind, name):
    return message("C", kind.encode() + cstr(name))


SYNC = message("S")
FLUSH = message("H")


def fields(body):
    """Of an ErrorResponse or NoticeResponse, by letter."""
    return {chr(f[0]): f[1:].decode("utf-8", "replace") for f in body.split(b"\0") if f}


class Wire:
    """Logs in without a password."""

    def __init__(self, port, dbname, user="postgres", seconds=20, **parameters):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=seconds)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.seconds = seconds
        self.buffer = b""
        parameters = {"user": user, "database": dbname, **parameters}
        body = struct.pack(">i", 196608) + b"".join(cstr(k) + cstr(v) for k, v in parameters.items()) + b"\0"
        self.socket.sendall(struct.pack(">i", len(body) + 4) + body)
        self.status = None
        self.answers(1)

    def send(self, *messages):
        self.socket.sendall(b"".join(messages))

    def receive(self):
        """The next message: (tag, body)."""
        while True:
            if len(self.buffer) >= 5:
                n = struct.unpack(">i", self.buffer[1:5])[0] + 1
                if len(self.buffer) >= n:
                    tag, body = chr(self.buffer[0]), self.buffer[5:n]
                    self.buffer = self.buffer[n:]
                    if tag == "Z":
                        self.status = body.decode()
                    return tag, body
            try:
                data = self.socket.recv(65536)
            except TimeoutError:
                raise pg.Failure(f"no answer within {self.seconds} s") from None
            if not data:
                raise pg.Failure("the connection was closed")
            self.buffer += data

    def answers(self, n=1, until="Z"):
        """What comes up to and with the n-th message `until`."""
        found = []
        while n > 0:
            found.append(self.receive())
            n -= found[-1][0] == until
        return found

    def ask(self, *messages):
        """Sends a batch with its Sync (or a Query), and returns what comes back."""
        self.send(*messages)
        return self.answers(sum(m[:1] in (b"S", b"Q") for m in messages))

    def close(self):
        self.socket.close()


def shown(answers):
    """Answers as one line for comparison: what a client acts upon, without what differs by server."""
    out = []
    for tag, body in answers:
        if tag in "EN":
            f = fields(body)
            out.append(f"{tag}({f.get('C')} {f.get('M')} @{f.get('P', '')})")
        elif tag in "CZDTt":
            out.append(f"{tag}({body!r})")
        elif tag not in "SA":
            out.append(tag)
    return " ".join(out)
