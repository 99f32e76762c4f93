"""TensorZero's gateway as its Python package carries it: it takes a free port, which is printed."""
import asyncio
import sys

from tensorzero import tensorzero


async def main():
    started = tensorzero._start_http_gateway(
        config_file=sys.argv[1], clickhouse_url=None, postgres_url=None, valkey_url=None, async_setup=True
    )
    gateway = await started
    print("listening on", gateway.base_url.split("/")[2], flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
