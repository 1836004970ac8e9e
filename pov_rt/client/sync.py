"""The client for code that blocks: scripts, and the views and commands of Django.

with SyncPovClient("http://127.0.0.1:8765", token) as rt:
    for activity in rt.subscribe("acme"):
        print(activity.type, activity.action)
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import Any, Self, TypeVar

from pov_rt.client.client import PovClient, Published
from pov_rt.client.errors import Closed
from pov_rt.client.follow import PlacedActivity
from pov_rt.client.subscription import Subscription
from pov_rt.protocol.messages import Message, NewActivity

ValueT = TypeVar("ValueT")

LAST_TURNS = 10
"""Of a loop that ends: more than the longest way there is from an event to who waits for it."""


class LoopThread:
    """An event loop in a thread of its own, for code that blocks."""

    def __init__(
        self,
        name: str,
        make_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop,
    ) -> None:
        self._loop = make_loop()
        self._ending = asyncio.Event()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, ValueT], timeout: float | None = None) -> ValueT:
        """Do something on the loop and return its result; it ends with whoever waits for it.

        Raises TimeoutError after so many seconds.
        """
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(timeout)
        except BaseException:  # Ctrl-C, too: nobody waits for it any more
            future.cancel()
            raise

    def stop(self) -> None:
        """End what is under way, the loop and the thread."""
        self._loop.call_soon_threadsafe(self._ending.set)
        self._thread.join()

    def _work(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._live())

    async def _live(self) -> None:
        await self._ending.wait()
        # What has come to its end is told to who waits for it, and a connection that was just made
        # gets its task; then the runner cancels what is left.
        for _ in range(LAST_TURNS):
            await asyncio.sleep(0)


class SyncPovClient:
    """A `PovClient` on a loop in a thread of its own; its options are the same.

    May be used from several threads. Open it after a fork, in the process that uses it. Functions
    that it is given (`on_status`, `get_state`, ...) run in its thread.
    """

    def __init__(self, url: str, token: Any, **options: Any) -> None:
        self._made = url, token, options
        self._client: PovClient
        self._thread: LoopThread | None = None

    def __enter__(self) -> Self:
        self._thread = LoopThread("pov-rt client")
        try:
            self._client = self._run(self._open())
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection: loops over activities end, in whatever thread they are."""
        if self._thread is not None:
            try:
                self._run(self._client.close())
            finally:
                self._stop()

    def subscribe(self, pov_id: str, **options: Any) -> SyncSubscription:
        """Follow a PoV; the options are those of `PovClient.subscribe`."""
        return SyncSubscription(self, self._run(self._subscribe(pov_id, options)))

    def request(
        self, message: Message | Mapping[str, Any], *, timeout_s: float | None = None
    ) -> dict[str, Any]:
        """Send a message and return its answer; see `PovClient.request`."""
        return self._run(self._client.request(message, timeout_s=timeout_s))

    def send(self, message: Message | Mapping[str, Any]) -> None:
        """Send a message that has no answer; see `PovClient.send`."""
        self._run(self._client.send(message))

    def publish(self, activity: NewActivity, *, timeout_s: float | None = None) -> Published:
        """Publish as the token's user; see `PovClient.publish`."""
        return self._run(self._client.publish(activity, timeout_s=timeout_s))

    def history(self, pov_id: str, **where: Any) -> dict[str, Any]:
        """Return a page of a PoV's history; see `PovClient.history`."""
        return self._run(self._client.history(pov_id, **where))

    async def _open(self) -> PovClient:
        url, token, options = self._made
        return await PovClient(url, token, **options).__aenter__()

    async def _subscribe(self, pov_id: str, options: dict[str, Any]) -> Subscription:
        return self._client.subscribe(pov_id, **options)

    def _run(self, work: Coroutine[Any, Any, ValueT]) -> ValueT:
        thread = self._thread
        if thread is None:
            work.close()
            raise Closed("the client is not open: use it in a `with`")
        return thread.run(work)

    def _stop(self) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.stop()


class SyncSubscription:
    """The activities of one PoV, in order, each once. For one thread."""

    def __init__(self, client: SyncPovClient, subscription: Subscription) -> None:
        self._client = client
        self._subscription = subscription

    @property
    def position(self) -> Any:
        """Up to where its activities were given; see `Subscription.position`."""
        return self._subscription.position

    def __iter__(self) -> Iterator[PlacedActivity]:
        while (activity := self._client._run(self._next())) is not None:  # noqa: SLF001
            yield activity

    def ack(self) -> None:
        """Have the server remember that all that was given is done with."""
        self._client._run(self._subscription.ack())  # noqa: SLF001

    def close(self) -> None:
        """Unsubscribe; what waits is dropped."""
        self._client._run(self._subscription.close())  # noqa: SLF001

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def _next(self) -> PlacedActivity | None:
        async for activity in self._subscription:
            return activity
        return None
