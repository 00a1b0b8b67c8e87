"""Two groups side by side: rows matched by what is equal in both, with paired statistics where the test side is one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tracking.answers import Answered
from tracking.comparison import ComparisonRefused, refer_to
from tracking.pairing import count_flips
from tracking.rows import Estimate, Row, own_settings
from tracking.tables import MISSING, TableText, default_metric, format_estimate

# What makes a row what it is, besides its settings.
FIELDS = (
    *("role", "model", "recipe", "runtime", "precision", "data", "dataset", "level", "leaky", "device", "seed"),
    *("split_digest", "preprocessing_digest"),
)
OTHER_SIDE = "other test side"


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A row of the first group and its counterpart in the second.

    Attributes
    ----------
    a, b : Row
        `b` with its difference to `a` where they were tested on the same records.
    paired : bool
        Whether they were.
    flips : float or None
        Share of decisions that differ.
    differs : dict of str to (str, str)
        What they are or were made with that is not the same.
    """

    a: Row
    b: Row
    paired: bool
    flips: float | None
    differs: Mapping[str, tuple[str, str]]


def match_rows(first: Sequence[Row], second: Sequence[Row]) -> list[tuple[Row, Row]]:
    """Find the counterpart of each row: of the same role, and equal in everything of which both groups hold some value.

    What the groups have no value of in common, such as the seed of groups with one seed each, is what they are
    compared in. Of rows of a group that are the same in everything, such as a student before each of several recipes,
    the last counts.

    Raises
    ------
    ComparisonRefused
        If a row has several counterparts; the message names them.
    """
    pairs = []
    for role in dict.fromkeys(row.role for row in first):
        left, right = (_distinct([row for row in rows if row.role == role]) for rows in (first, second))
        names = _shared_names(left, right)
        by_key: dict[tuple[Any, ...], tuple[list[Row], list[Row]]] = {}
        for side, rows in enumerate((left, right)):
            for row in rows:
                by_key.setdefault(_key(row, names), ([], []))[side].append(row)
        for a, b in by_key.values():
            if len(a) * len(b) > 1:
                listed = "\n".join(f"  {row.name} (run {row.run_id}) of {row.group}" for row in (*a, *b))
                raise ComparisonRefused(
                    f"which of these rows belong together is open, nothing that both groups have differs:\n{listed}\n"
                    "Narrow the groups down with a filter, for example \"params.seed = '0'\"."
                )
            if a and b:
                pairs.append((a[0], b[0]))
    return pairs


def compare_groups(
    first: Sequence[Row], second: Sequence[Row], read: Callable[[str], Answered], n_resamples: int = 2000
) -> list[Pair]:
    """Match the rows of two groups and compare each with its counterpart; errors as in `match_rows` and `refer_to`.

    Parameters
    ----------
    first, second : sequence of Row
    read : callable
        Gives the predictions of a run by its id.
    n_resamples : int, default 2000
    """
    pairs = []
    for a, b in match_rows(first, second):
        answered = a.device is None and b.device is None
        same = answered and a.split_digest is not None and a.split_digest == b.split_digest
        flips, own = None, b
        if same:
            ours, theirs = read(str(b.run_id)), read(str(a.run_id))
            own, flips = refer_to(b, a, ours, theirs, n_resamples), count_flips(ours, theirs)
        pairs.append(Pair(a=a, b=own, paired=same, flips=flips, differs=_differences(a, b)))
    return pairs


def tabulate_pairs(pairs: Sequence[Pair], groups: tuple[str, str], metric: str | None = None) -> TableText:
    """Lay pairs out in columns: figures of A and of B, their difference, and what else is not the same.

    Parameters
    ----------
    pairs : sequence of Pair
    groups : tuple of str
        Names of A and B.
    metric : str, optional
        The headline of the rows by default.
    """
    metric = metric or default_metric([row for pair in pairs for row in (pair.a, pair.b)])
    shared = [set(pair.differs.items()) for pair in pairs]
    everywhere = set.intersection(*shared) if shared else set()
    header = (
        *("name", "model", "recipe", "precision", "data", f"A {metric} [95 %]", f"B {metric} [95 %]", "B - A [95 %]"),
        *("flips", "A bytes", "B bytes", "A p50 ms", "B p50 ms", "differs in"),
    )
    cells = [
        (
            *(_both(pair, name) for name in ("name", "model", "recipe", "precision", "data")),
            *(format_estimate(row.metrics.get(metric)) for row in (pair.a, pair.b)),
            format_estimate(_delta(pair, metric), difference=True) if pair.paired else OTHER_SIDE,
            MISSING if pair.flips is None else f"{pair.flips:.2%}",
            *(MISSING if row.size_bytes is None else f"{row.size_bytes:,}" for row in (pair.a, pair.b)),
            *(MISSING if row.latency_ms_p50 is None else f"{row.latency_ms_p50:.3g}" for row in (pair.a, pair.b)),
            _tell(dict(item for item in pair.differs.items() if item not in everywhere)) or MISSING,
        )
        for pair in pairs
    ]
    notes = [f"A: {groups[0]}", f"B: {groups[1]}"]
    if everywhere:
        notes.append(f"different in every row: {_tell(dict(sorted(everywhere)))}")
    if not all(pair.paired for pair in pairs):
        notes.append(f"{OTHER_SIDE}: not evaluated on the same test split, so there is no difference to state")
    return TableText(header, cells, "; ".join(notes))


def _distinct(rows: Sequence[Row]) -> list[Row]:
    """Rows that differ in something; of those that do not the last."""
    return list(
        {tuple(sorted((name, str(value)) for name, value in _identity(row).items())): row for row in rows}.values()
    )


def tell_unmatched(first: Sequence[Row], second: Sequence[Row], pairs: Sequence[Pair]) -> list[str]:
    """One line for each row that has no counterpart."""
    matched = {row.run_id for pair in pairs for row in (pair.a, pair.b)}
    return [
        f"only in {name}: {row.name}"
        for name, rows in (("A", first), ("B", second))
        for row in _distinct(rows)
        if row.run_id not in matched
    ]


def _identity(row: Row) -> dict[str, Any]:
    return {**{name: getattr(row, name) for name in FIELDS}, **own_settings(row)}


def _shared_names(first: Sequence[Row], second: Sequence[Row]) -> list[str]:
    """Names of which the two sides have a value in common."""
    sides = [[_identity(row) for row in rows] for rows in (first, second)]
    names = dict.fromkeys(name for side in sides for values in side for name in values)
    left, right = ({name: {values.get(name) for values in side} for name in names} for side in sides)
    return [name for name in names if left[name] & right[name]]


def _key(row: Row, names: Sequence[str]) -> tuple[Any, ...]:
    values = _identity(row)
    return tuple(values.get(name) for name in names)


def _differences(a: Row, b: Row) -> dict[str, tuple[str, str]]:
    left, right = _identity(a), _identity(b)
    names = [name for name in dict.fromkeys([*left, *right]) if left.get(name) != right.get(name)]
    return {name: (str(left.get(name, MISSING)), str(right.get(name, MISSING))) for name in names}


def _delta(pair: Pair, metric: str) -> Estimate | None:
    return pair.b.delta.get(metric)


def _both(pair: Pair, name: str) -> str:
    a, b = str(getattr(pair.a, name)), str(getattr(pair.b, name))
    return a if a == b else f"{a} | {b}"


def _tell(differs: Mapping[str, tuple[str, str]]) -> str:
    return ", ".join(f"{name} {a} | {b}" for name, (a, b) in differs.items())
