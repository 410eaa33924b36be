"""Random calls of several accounts at once, faults, crashes and time, against a reference model of EC2.

`ORC_MODEL_STEPS` says how many steps (10,000 without it), `ORC_MODEL_SEED` which ones: a number for many episodes, or
the `NUMBER/EPISODE` that a failure names, which runs that one again.

    ORC_MODEL_STEPS=300000 ORC_MODEL_SEED=7 python -m pytest -s tests/model_based
    ORC_MODEL_SEED=20260102/7 python -m pytest tests/model_based

The same in short, with every decision drawn by Hypothesis: what it finds it makes as short as it can, and prints a line
that runs it again. `ORC_MODEL_EXAMPLES` says how many (20 without it, always the same ones).

With `ORC_MODEL_TRACE=1` the story of a failure has every effect on the host and every commit too.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.model_based.draws import DRAWS
from tests.model_based.episode import Episode, Failed

STEPS = int(os.environ.get("ORC_MODEL_STEPS", "10000"))
SEED = os.environ.get("ORC_MODEL_SEED", "20260102")
TRACED = bool(os.environ.get("ORC_MODEL_TRACE"))
EPISODE = 1000
EXAMPLES = int(os.environ.get("ORC_MODEL_EXAMPLES", "20"))
EXAMPLE = 20  # steps, of which each takes dozens of decisions
ENOUGH = 10  # episodes, to have seen everything
SEEN = ("DependencyViolation", "IdempotentParameterMismatch", "InstanceLimitExceeded", "UnauthorizedOperation")


@pytest.mark.timeout(max(300, STEPS // 10))
def test_it_does_what_the_reference_does(tmp_path: Path) -> None:
    seeds = [SEED] if "/" in SEED else [f"{SEED}/{number}" for number in range(-(-STEPS // EPISODE))]
    counts, answers, accepted = Counter[str](), Counter[str](), Counter[str]()
    began = time.perf_counter()
    for seed in seeds:
        episode = Episode(seed, tmp_path / seed.replace("/", "-"), traced=TRACED)
        try:
            episode.run(EPISODE)
        except Failed as failed:
            again = f"again: ORC_MODEL_SEED={seed} python -m pytest tests/model_based"
            raise AssertionError(f"{failed}\n\n{again}") from failed.__cause__
        counts.update(episode.counts)
        counts.update({"reconciler steps": episode.deployment.steps, "points": episode.deployment.points})
        answers.update(episode.clients.answered)
        accepted.update(episode.clients.accepted)
    took_s = time.perf_counter() - began
    print(f"seed {SEED}: {len(seeds) * EPISODE} steps in {took_s:.1f} s; {dict(counts)}")
    print(f"answers: {dict(answers.most_common())}")
    print(f"accepted: {dict(accepted.most_common())}")
    if len(seeds) >= ENOUGH:
        assert not set(DRAWS) - set(accepted), "these have never succeeded: the draws have gone stale"
        assert not set(SEEN) - set(answers), "these were never answered: the draws have gone stale"


@settings(
    max_examples=EXAMPLES,
    derandomize="ORC_MODEL_EXAMPLES" not in os.environ,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
@given(chance=st.randoms(use_true_random=False))
def test_whatever_is_drawn_it_does_what_the_reference_does(chance: Random) -> None:
    with TemporaryDirectory() as directory:
        Episode("drawn", Path(directory), traced=TRACED, chance=chance).run(EXAMPLE)
