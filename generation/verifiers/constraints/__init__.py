"""Every constraint by its id. One file per family; the groups are said in constraint.py.

>>> CONSTRAINTS["punctuation:no_comma"].follows("Well, no", {})
0.0
"""

from generation.verifiers.constraints.constraint import Constraint, Context, plain
from generation.verifiers.constraints.content import CONTENT_CONSTRAINTS
from generation.verifiers.constraints.edges import EDGE_CONSTRAINTS
from generation.verifiers.constraints.held_out import HELD_OUT_CONSTRAINTS
from generation.verifiers.constraints.keywords import KEYWORD_CONSTRAINTS
from generation.verifiers.constraints.length import LENGTH_CONSTRAINTS
from generation.verifiers.constraints.marks import MARK_CONSTRAINTS
from generation.verifiers.constraints.whole import WHOLE_CONSTRAINTS

CONSTRAINTS: dict[str, Constraint] = {
    constraint.id: constraint
    for family in (
        KEYWORD_CONSTRAINTS,
        LENGTH_CONSTRAINTS,
        CONTENT_CONSTRAINTS,
        WHOLE_CONSTRAINTS,
        EDGE_CONSTRAINTS,
        MARK_CONSTRAINTS,
        HELD_OUT_CONSTRAINTS,
    )
    for constraint in family
}
GROUPS = ("ifeval", "train", "test")

__all__ = ["CONSTRAINTS", "GROUPS", "Constraint", "Context", "plain"]
