"""The native contract: threads, their messages, and every fact of them as frames (base `/api/v1/chat`)."""

from parley_gateway.dialects.threads.access import BASE
from parley_gateway.dialects.threads.routes import routes

__all__ = ["BASE", "routes"]
