"""All cases that kernels are measured on."""

from __future__ import annotations

from case import Case
from cases_conv import conv_cases, pair_cases, transposed_cases
from cases_dense import dense_cases
from cases_maps import elementwise_cases, optimizer_cases
from cases_sound import sound_cases


def all_cases() -> list[Case]:
    """Return all, those that targets name first."""
    found = [*pair_cases(), *conv_cases(), *dense_cases(), *elementwise_cases()]
    found += [*transposed_cases(), *optimizer_cases(), *sound_cases()]
    order = ("pair", "first", "3x3", "other")
    return sorted(found, key=lambda c: order.index(c.group))
