"""What the checks of every SDK share: where the gateway is, what models say, and how a check is made and run."""

import base64
import struct
import sys
import traceback
import zlib

from pydantic import BaseModel

GATEWAY, PROVIDERS = sys.argv[1], sys.argv[2].split(",")
SAYS = "The press runs within its"
ASKS = [{"role": "user", "content": "How is the press?"}]
# What thinks where it is asked to: only models are asked to that are known to take it.
THINKERS = {"bedrock": "anthropic.claude-sonnet-4-able"}
VECTORS = [name for name in PROVIDERS if name in ("openai", "azure", "gemini", "mistral", "ollama", "vllm", "compatible")]


class Reading(BaseModel):
    n: int


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


# One black pixel.
PNG = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
PNG += chunk(b"IDAT", zlib.compress(b"\0\0")) + chunk(b"IEND", b"")
PICTURE = base64.b64encode(PNG).decode()
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
TOOL = {"type": "function", "function": {"name": "look", "description": "Looks.", "parameters": SCHEMA}}

CHECKS = []


def check(function):
    CHECKS.append((function, None))
    return function


def over(providers):
    def keep(function):
        CHECKS.extend((function, provider) for provider in providers)
        return function

    return keep


def thinker(provider):
    return f"{provider}/{THINKERS.get(provider, 'gpt-5-able')}"


def same(seen, wanted, what="it"):
    assert seen == wanted, f"{what} is {seen!r}, not {wanted!r}"


def raises(kind, call, **wanted):
    try:
        call()
    except kind as error:
        for name, value in wanted.items():
            same(getattr(error, name), value, name)
        return error
    raise AssertionError(f"nothing was raised, where {kind.__name__} belongs")


def look(n: int) -> str:
    """Looks."""
    return f"{80 * n} bar"


def run():
    failed = 0
    for function, provider in CHECKS:
        try:
            function() if provider is None else function(provider)
        except Exception as error:
            failed += 1
            where = f" over {provider}" if provider else ""
            lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if "llm_clients" in frame.filename]
            print(f"{function.__name__}{where}, line {lines}: {type(error).__name__}: {str(error)[:600]}")
    print(f"{len(CHECKS)} checks, {failed} failed")
    sys.exit(failed != 0)
