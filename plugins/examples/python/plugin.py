"""Drops small orders, and makes of the others a message that Slack understands."""

import json

import wit_world
from componentize_py_types import Err
from wit_world.imports import host
from wit_world.imports.types import Body_Text, Error, Event, Request, Verdict, Verdict_Drop, Verdict_Send


class WitWorld(wit_world.WitWorld):
    def handle(self, event: Event) -> Verdict:
        at_least = json.loads(host.config())["atLeast"]
        order = json.loads(event.payload)
        amount = order.get("amount")
        if not isinstance(amount, (int, float)):
            # A failed attempt; `retryable` False sends it to the dead letters at once.
            raise Err(Error("invalid-payload", "the amount is not a number", False))
        if amount < at_least:
            return Verdict_Drop(f"an order below {at_least}")
        text = f"Order {event.aggregate_id}: {amount} {order['currency']}"
        return Verdict_Send(Request([], "application/json", Body_Text(json.dumps({"text": text}))))

    def validate_config(self, config: str) -> None:
        """Asked once when the router reads its config. A text that is raised refuses it."""
        if not isinstance(json.loads(config).get("atLeast"), int):
            raise Err("`atLeast` must be a whole number")
