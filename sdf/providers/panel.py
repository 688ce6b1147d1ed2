"""Who answers for whom: each seat of a recipe with its provider, behind one governor per provider and model.

Seats that share a provider and its settings share its connections, engine and key; those that share the model too
share one limit, since that is what servers count by.
"""

from __future__ import annotations

from sdf import providers
from sdf.job import Job
from sdf.providers import Provider
from sdf.providers.batch_log import BatchLog
from sdf.providers.governor import TIMEOUT, Governor
from sdf.providers.served import Served
from sdf.recipe import Backend
from sdf.records import Answer, Request, Seat


class Panel:
    """Build it inside a running event loop, where the requests are made: providers hold keys and do not pickle."""

    def __init__(self, job: Job, batches: BatchLog | None = None) -> None:
        self.recipe = recipe = job.recipe
        self._providers: dict[Backend, Provider] = {}
        self._governors: dict[Seat, Governor] = {}
        lanes: dict[tuple[Backend, str], Governor] = {}
        for seat in job.seats:
            backend, model = recipe.backend_of(seat), recipe.model_of(seat)
            if backend not in self._providers:
                self._providers[backend] = providers.make(backend.provider, dict(backend.settings), batches)
            if (backend, model) not in lanes:
                lanes[backend, model] = Governor(
                    self._providers[backend],
                    max_in_flight=recipe.n_in_flight,
                    timeout=None if backend.provider in providers.UNTIMED else TIMEOUT,
                )
            self._governors[seat] = lanes[backend, model]

    async def answer(self, request: Request) -> Answer:
        """As `Governor.answer`, by the backend of the request's seat."""
        return await self._governors[request.seat].answer(request)

    async def served(self, seat: Seat) -> Served:
        """What is known of the seat's model, as `Provider.served`."""
        return await self._providers[self.recipe.backend_of(seat)].served(self.recipe.model_of(seat))

    async def close(self) -> None:
        for provider in self._providers.values():
            await provider.close()
