"""A budget of training masks: the one place that says what may be asked for.

The command line, the configuration, the experiment file and Python all come through here, so that
a wrong budget gets one answer everywhere. Whether a dataset has enough masks is found where they
are chosen, in `dxseg.data.splits`.
"""

from __future__ import annotations

from dxseg.errors import UsageError


def parse_mask_budget(value: object) -> int | float:
    """Read a budget.

    Args:
        value: A number or its text: `35` is a count, `0.1` a fraction.

    Raises:
        UsageError: It is neither.
    """
    number = _number(value) if isinstance(value, str) else value
    if isinstance(number, int) and not isinstance(number, bool) and number > 0:
        return number
    if isinstance(number, float) and 0 < number <= 1:
        return number
    raise UsageError(
        f"masks {value!r}: expected a count such as 35, or a fraction in 0 to 1 such as 0.1; for "
        "all masks leave the option, or split.masks, out"
    )


def _number(text: str) -> int | float | None:
    try:
        return int(text) if text.lstrip("+-").isdecimal() else float(text)
    except ValueError:
        return None
