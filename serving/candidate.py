"""A second version tried on real questions: it answers copies (shadow) or a share (canary)."""

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from statistics import median

from prometheus_client import Counter

from arithmetic.errors import BrokenBundle
from arithmetic.grammar import Equation, Grammar
from arithmetic.layouts import Answer
from registry.pull import Pulled
from serving.background import Background
from serving.checking import Checker, Given
from serving.metrics import Metrics
from serving.remembered import Memory
from serving.reports import CandidateHealth
from serving.served import Served
from serving.settings import Settings
from serving.tally import CALLS_KEPT, Tally
from serving.watch import Registry, Watch
from serving.withdrawals import Withdrawals

log = logging.getLogger(__name__)

CANARY_SHARE = 0.05
# In shadow, one call in so many is also timed on Production, in the same thread: only there are
# the two latencies comparable.
COMPARED = 4

Answerer = Callable[[Sequence[Equation]], list[Answer]]
Copy = tuple[Served, Answerer, Sequence[Equation]]  # candidate, Production, questions


class Candidate:
    """Follows MODEL_URI_CANDIDATE; a version without the alias any more is let go at once.

    Args:
        settings: mode, share, model URI.
        registry: what to ask.
        load: a verified folder to a self-tested version.
        production: the version that is Production now.
        checker: judges the candidate's answers.
    """

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        load: Callable[[Pulled], Served],
        production: Callable[[], Served | None],
        checker: Checker,
        metrics: Metrics,
    ):
        self.mode = settings.candidate_mode
        shadow = self.mode == "shadow"
        self.share = settings.candidate_share or (1.0 if shadow else CANARY_SHARE)
        self.served: Served | None = None
        self._load, self._production, self._checker = load, production, checker
        self._shadow: Background[Copy] = Background("shadow", self._answer, settings.check_limit)
        self._calls = self.not_copied = 0
        self._owed = 0.0
        self._production_calls: deque[float] = deque(maxlen=CALLS_KEPT)
        self._copied = Counter(
            "arithmetic_shadow_questions",
            "Questions copied to the candidate, or not for want of room.",
            ["version", "outcome"],
            registry=metrics.registry,
        )
        place = settings.model_cache, settings.model_uri_candidate, settings.mlflow_tracking_uri
        self.watch = Watch(
            settings.model_uri_candidate,
            registry,
            settings.model_cache,
            self._take,
            # So that its files are kept, and deleted in the end; nothing starts from it.
            memory=Memory(*place),
            withdrawals=Withdrawals(*place),
            on_withdrawal=lambda identity, reason, replaced: None,
            on_named=lambda identity, reason: None,
            seconds=settings.watch_seconds,
            retry_seconds=settings.pull_retry_seconds,
            emptied=self._drop,
            let_go=self._drop,
            start_from_disk=False,
            fall_back=False,
        )

    def start(self) -> None:
        self.watch.start()
        self._shadow.start()

    def stop(self) -> None:
        self.watch.stop()
        self._shadow.stop()

    def pick(self) -> Served | None:
        """The candidate if it is its turn to answer; only a canary has turns."""
        served = self.served
        if served is None or self.mode != "canary" or self._production() is None:
            return None
        # Each time, as Production may have moved on since the candidate was loaded.
        return served if self._obstacle(served) is None and self._its_turn(1) else None

    def copy(self, of: Tally, production: Answerer, equations: Sequence[Equation]) -> None:
        """Let the candidate answer what Production, `of`, has answered; never waits."""
        served = self.served
        if served is None or self.mode != "shadow" or served.bundle_sha256 == of.bundle_sha256:
            return
        grammar = served.grammar
        known = [e for e in equations if accepts(grammar, e)]
        if not known or not self._its_turn(len(known)):
            return
        fits = self._shadow.put((served, production, known), len(known))
        self.not_copied += 0 if fits else len(known)
        outcome = "copied" if fits else "dropped"
        self._copied.labels(served.version, outcome).inc(len(known))

    def withdraw(self, served: Served, reason: str) -> bool:
        """Try it no more, until the alias has named another one; whether no other worker has yet
        said so."""
        served.tally.withdrawn = True
        first, _ = self.watch.withdraw(served.identity, reason)
        return first

    def report(self) -> CandidateHealth:
        """For /health."""
        served, calls = self.served, list(self._production_calls)
        reason = self.watch.reason
        if served is not None:
            reason = self._obstacle(served) or reason
        return CandidateHealth(
            model_uri=self.watch.model_uri,
            mode=self.mode,
            share=self.share,
            model_version=served.version if served else None,
            bundle_sha256=served.bundle_sha256 if served else None,
            registry=self.watch.registry_state(),
            reason=reason,
            accuracy=served.tally.report() if served else None,
            not_copied=self.not_copied,
            production_call_ms=round(median(calls) * 1e3, 3) if calls else None,
        )

    def _obstacle(self, served: Served) -> str | None:
        """Why it may not answer in Production's place, or is not tried, if that is so."""
        production = self._production()
        if production is None:
            return None
        if production.bundle_sha256 == served.bundle_sha256:
            return f"version {served.version} is Production already"
        if self.mode == "canary" and not knows_all(served, production):
            return lacking(served)
        return None

    def _its_turn(self, questions: int) -> bool:
        """Whether this call is among the share, spread evenly."""
        self._owed += self.share * questions
        if self._owed < questions:
            return False
        self._owed -= questions
        return True

    def _take(self, pulled: Pulled) -> Callable[[], None]:
        served = self._load(pulled)
        production = self._production()
        if self.mode == "canary" and production is not None and not knows_all(served, production):
            raise BrokenBundle(lacking(served))

        def put() -> None:
            self._production_calls.clear()
            self.not_copied = 0
            self.served = served

        return put

    def _drop(self) -> None:
        self.served = None

    def _answer(self, copy: Copy) -> None:
        """In the shadow's thread: answer one call's questions and have them checked."""
        served, production, equations = copy
        try:
            answers = served.answer(equations)
        except Exception:  # whatever a candidate does, only the candidate pays for it
            log.exception("version %s, the candidate, failed on %s…", served.version, equations[0])
            self._checker.put(Given(served.tally, served.grammar, equations, None, asked_for=False))
            return
        self._checker.put(Given(served.tally, served.grammar, equations, answers, asked_for=False))
        self._calls += 1
        if self._calls % COMPARED == 0:
            started = time.perf_counter()
            production(equations)
            self._production_calls.append(time.perf_counter() - started)


def knows_all(candidate: Served, production: Served) -> bool:
    """Whether a candidate accepts every question that Production does."""
    own, other = candidate.grammar, production.grammar
    return own.max_operand >= other.max_operand and set(other.operations) <= set(own.operations)


def lacking(candidate: Served) -> str:
    return (
        f"version {candidate.version} does not know every question that Production answers, so it "
        "cannot answer a share of them; try it as a shadow"
    )


def accepts(grammar: Grammar, equation: Equation) -> bool:
    """Whether a grammar knows an equation that another one has parsed."""
    largest = max(equation.operand_1, equation.operand_2)
    return equation.operation in grammar.operations and largest <= grammar.max_operand
