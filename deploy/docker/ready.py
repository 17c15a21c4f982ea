"""Asks the service in this container whether it is ready: status 0 when it is. `python -IS ready.py PORT`.

Run every few seconds in every container, so it imports one module and reads one line.
"""

import socket
import sys

try:
    with socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=2) as connection:
        connection.settimeout(2)
        connection.sendall(b"GET /readyz HTTP/1.0\r\nHost: localhost\r\n\r\n")
        status = connection.recv(64).split(b" ", 2)[1:2]
except OSError as error:
    sys.exit(f"no answer: {error}")
if status != [b"200"]:
    sys.exit(f"not ready: {b''.join(status).decode('ascii', 'replace')}")
