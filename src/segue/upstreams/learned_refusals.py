"""What was learned from refusals: which of the gateway's own fields each model of an upstream does not take.

It is kept in memory for as long as the process runs, for a limited number of models: the names of models come from
clients. A model that is forgotten is learned again, at the price of one refused request. Not here: reading a refusal
(`dialects.refused_fields`), and what is known of a provider from the start (`dialects.provider_families`).
"""

from __future__ import annotations

from collections import OrderedDict

#: How many models of an upstream are remembered, and how long the name of one may be.
MAX_MODELS = 256
MAX_NAME_CHARS = 256


class LearnedRefusals:
    """The fields that the models of one upstream refuse; the least recently used model is forgotten first."""

    def __init__(self, max_models: int = MAX_MODELS) -> None:
        self._fields: OrderedDict[str, frozenset[str]] = OrderedDict()
        self._max_models = max_models

    def fields_of(self, model: str) -> frozenset[str]:
        """Return the fields that a model is known to refuse."""
        fields = self._fields.get(model)
        if fields is None:
            return frozenset()
        self._fields.move_to_end(model)
        return fields

    def learn(self, model: str, fields: frozenset[str]) -> None:
        """Remember that a model refuses fields."""
        if len(model) > MAX_NAME_CHARS:
            return
        self._fields[model] = self.fields_of(model) | fields
        if len(self._fields) > self._max_models:
            self._fields.popitem(last=False)
