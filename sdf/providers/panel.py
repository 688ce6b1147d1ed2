"""Who answers for whom: each seat of a recipe with its provider, behind one governor per provider and model.

Seats that share a provider and its settings share its connections, engine and key; those that share the model too
share one limit, since that is what servers count by.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from sdf import providers
from sdf.errors import CircuitOpen, RecipeError, SdfError, Unauthorized
from sdf.job import Job
from sdf.money.allowance import LaneReport, LaneShare
from sdf.money.budget import Purse, Till
from sdf.money.prices import tariff
from sdf.providers import Batched, Provider
from sdf.providers.batch_log import BatchLog, UnderWay
from sdf.providers.crowd import Crowd
from sdf.providers.governor import TIMEOUT, Governor
from sdf.providers.seats import of_seat
from sdf.providers.served import Served
from sdf.recipe import Backend
from sdf.records import Answer, Request, Seat, Usage


class Lane(NamedTuple):
    """A provider and a model of it: what a server limits, and what has one price."""

    provider: Provider
    model: str
    till: Till
    governor: Governor


class Panel:
    """Build it inside a running event loop, where the requests are made: providers hold keys and do not pickle."""

    def __init__(
        self, job: Job, batches: BatchLog | None = None, purse: Purse | None = None, *, has_answered: bool = False
    ) -> None:
        self.recipe = recipe = job.recipe
        self._providers: dict[Backend, Provider] = {}
        self._batched: dict[Backend, Batched] = {}
        self._seats: dict[Seat, Lane] = {}
        self._lanes: dict[str, Lane] = {}
        lanes: dict[tuple[Backend, str], Lane] = {}
        purse, crowd = purse or Purse(), Crowd(has_answered)
        for seat in job.seats:
            backend, model = recipe.backend_of(seat), recipe.model_of(seat)
            if backend not in self._providers:
                self._providers[backend] = self._made(seat, backend, batches)
            if (backend, model) not in lanes:
                till = Till(purse, tariff(job.prices, backend.provider, dict(backend.settings), model))
                governor = Governor(
                    self._providers[backend],
                    max_in_flight=recipe.n_open(backend.provider),
                    timeout=None if backend.provider in providers.UNTIMED else TIMEOUT,
                    till=till,
                    crowd=crowd,
                    batched=self._batched.get(backend),
                )
                lanes[backend, model] = Lane(self._providers[backend], model, till, governor)
                self._lanes[f"{len(self._lanes)} {backend.provider} {model}"] = lanes[backend, model]
            self._seats[seat] = lanes[backend, model]

    def _made(self, seat: Seat, backend: Backend, batches: BatchLog | None) -> Provider:
        settings = dict(backend.settings)
        try:
            if batches is None or backend.provider not in providers.BATCHED:
                return providers.make(backend.provider, settings)
            self._batched[backend] = providers.make_batched(backend.provider, settings, batches)
            return self._batched[backend]
        except RecipeError as error:
            raise of_seat(self.recipe, seat, error) from None

    async def answer(self, request: Request) -> Answer:
        """As `Governor.answer`, by the backend of the request's seat."""
        try:
            return await self._seats[request.seat].governor.answer(request)
        except (Unauthorized, CircuitOpen, RecipeError) as error:
            raise of_seat(self.recipe, request.seat, error) from error.__cause__

    def cost(self, request: Request, usage: Usage) -> float | None:
        """Dollars of an answer to the request; None where its price is not known."""
        return self._seats[request.seat].till.cost(request, usage)

    def reports(self) -> dict[str, LaneReport]:
        """A word on each lane. Every worker of a job gives its lanes the same names."""
        return {name: lane.governor.report(lane.provider.told.get(lane.model)) for name, lane in self._lanes.items()}

    def follow(self, shares: Mapping[str, LaneShare]) -> None:
        for name, share in shares.items():
            self._lanes[name].governor.follow(share)

    async def served(self, seat: Seat) -> Served:
        """What is known of the seat's model, as `Provider.served`."""
        try:
            return await self._providers[self.recipe.backend_of(seat)].served(self.recipe.model_of(seat))
        except SdfError as error:
            raise of_seat(self.recipe, seat, error) from error.__cause__

    @property
    def under_way(self) -> tuple[UnderWay, ...]:
        """The batches that answers are waited for."""
        return tuple(each for batched in self._batched.values() for each in batched.under_way)

    def drain(self) -> None:
        """No new batch goes out."""
        for each in self._batched.values():
            each.drain()

    async def close(self) -> None:
        for provider in self._providers.values():
            await provider.close()
