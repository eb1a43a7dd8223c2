"""A TCP proxy whose connections can be cut, or held still, at any moment."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress


class Proxy:
    """Passes what comes to ``port`` on to ``target``, in a thread of its own."""

    def __init__(self, target: int) -> None:
        self.target, self.port = target, 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._flowing = asyncio.Event()
        self._flowing.set()
        begun = threading.Event()
        threading.Thread(target=self._run, args=(begun,), daemon=True).start()
        begun.wait(10)

    def cut(self) -> None:
        """Reset every connection."""
        self._loop.call_soon_threadsafe(lambda: [writer.transport.abort() for writer in list(self._writers)])

    def hold(self, seconds: float) -> None:
        """Let nothing through for so long."""
        self._loop.call_soon_threadsafe(self._flowing.clear)
        self._loop.call_soon_threadsafe(self._loop.call_later, seconds, self._flowing.set)

    def release(self) -> None:
        """Let everything through again."""
        self._loop.call_soon_threadsafe(self._flowing.set)

    def _run(self, begun: threading.Event) -> None:
        async def main() -> None:
            server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
            self.port = server.sockets[0].getsockname()[1]
            begun.set()
            await asyncio.Event().wait()

        self._loop.run_until_complete(main())

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            other, out = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            self._writers.discard(writer)
            return
        self._writers.add(out)
        await asyncio.gather(self._pass(reader, out), self._pass(other, writer))
        for each in (writer, out):
            self._writers.discard(each)
            each.transport.abort()

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(65536):
                await self._flowing.wait()
                sink.write(data)
                await sink.drain()
        with suppress(OSError):
            sink.write_eof()
