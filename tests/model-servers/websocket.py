"""A WebSocket server that echoes, and a client that talks to one: `serve PORT`, `talk URL [CA_FILE]`."""

import asyncio
import ssl
import sys

import websockets


async def echo(connection):
    async for message in connection:
        await connection.send(message)


async def serve(port):
    async with websockets.serve(echo, "127.0.0.1", port, max_size=None, subprotocols=["infer.v1"]):
        await asyncio.Future()


async def talk(url, ca_file=None):
    context = ssl.create_default_context(cafile=ca_file) if ca_file else None
    async with websockets.connect(url, ssl=context, max_size=None, subprotocols=["infer.v1"]) as connection:
        assert connection.subprotocol == "infer.v1", connection.subprotocol
        whole = bytes(range(256)) * 4096
        for message in ["hello", "", whole]:
            await connection.send(message)
            assert await connection.recv() == message
        # In fragments, which arrive as one message.
        await connection.send(["a", "b", "c"])
        assert await connection.recv() == "abc"
        await (await connection.ping())
    assert connection.close_code == 1000, connection.close_code
    print("talked")


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        asyncio.run(serve(int(sys.argv[2])))
    else:
        asyncio.run(talk(*sys.argv[2:]))
