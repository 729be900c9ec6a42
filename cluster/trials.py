"""The experiments of a cluster: which run, what they have seen, and what they say.

Everything that changes is an entry, applied and handed on to be kept: replaying the entries makes the same state. Times
are seconds of Unix time, passed in.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from cluster.events import EventKind
from cluster.experiments import ExperimentConflict, ExperimentNotFound, ExperimentStatus, Exposed, State
from cluster.ledger import Entry
from judging.bandit import shares
from judging.experiment import Arm, Experiment, Recording, assignment_of
from judging.winner import Result, result
from nstarx.spec.experiment import ExperimentSpec, InvalidOutcome, OutcomeRecord
from nstarx.spec.route import RouteSpec
from nstarx.spec.trial import PLACES, Trial

JUDGE_S = 1.0
"""Between two verdicts on one experiment: each costs tens of milliseconds."""
REMEMBERED_GATEWAYS = 1000
REMEMBERED_TRIALS = 100
"""Experiments that are no longer configured, and whose results can still be read."""
WORTH_MOVING = 0.01
"""A bandit's shares are right to within a percentage point; smaller steps would be noise."""
WORTH_TELLING = 0.05


class Told(NamedTuple):
    """Something that has happened to an experiment."""

    kind: EventKind
    sentence: str
    details: dict[str, Any]


class _Run:
    """A trial, what it has seen, and the latest verdict."""

    def __init__(self, trial: Trial, state: Experiment | None = None) -> None:
        spec = trial.experiment
        self.trial = trial
        self.state = state or Experiment(trial.salt, trial.started, spec.remembered, spec.key is not None)
        self.news = 1
        """How often there was something new to judge by."""
        self.judged: Result | None = None
        self.judged_at = self.judged_news = 0.0
        self.weighed_news = 0
        """What `tick` has drawn its conclusions from; whoever asked for the verdict has drawn none."""
        self.moved_at = trial.started
        """When the bandit last looked."""
        self.moved_news = 0
        self.told = _shares(trial.weights)
        """The shares that were told last."""

    def verdict(self, now: float) -> Result:
        """At most `JUDGE_S` old, or by all that is known."""
        is_old = now - self.judged_at >= JUDGE_S and (self.trial.runs or self.news != self.judged_news)
        if self.judged is None or is_old:
            until = self.trial.stopped or now
            self.judged = result(self.state, self.trial.experiment, until)
            self.judged_at, self.judged_news = now, self.news
        return self.judged

    def is_due(self, now: float) -> bool:
        """Whether there is something new to say, and it is time."""
        is_fresh = self.news == self.judged_news
        return self.trial.runs and self.news != self.weighed_news and (is_fresh or now - self.judged_at >= JUDGE_S)


class Trials:
    """The life of all experiments."""

    def __init__(
        self, keep: Callable[[Entry], None] = lambda entry: None, rng: np.random.Generator | None = None
    ) -> None:
        """`keep` is told of every change. `rng` is for bandits."""
        self._keep = keep
        self._rng = rng or np.random.default_rng()
        self._configured: dict[str, ExperimentSpec] = {}
        self._routes: dict[str, tuple[str, ...]] = {}
        self._runs: dict[str, _Run] = {}
        self._heard: OrderedDict[str, int] = OrderedDict()
        """Gateway to the number of its last batch of assignments."""

    # Configuration

    def check(self, experiments: Iterable[ExperimentSpec]) -> None:
        """Raises ExperimentConflict when one that runs would compare something else."""
        for spec in experiments:
            run = self._runs.get(spec.name)
            if run and run.trial.runs and _compared(spec) != _compared(run.trial.experiment):
                raise ExperimentConflict(
                    f"experiment '{spec.name}' is running, and meanwhile only its weights, max_duration_s and "
                    f"remembered can change; `nstarx experiments stop {spec.name}` first"
                )

    def follow(self, experiments: Iterable[ExperimentSpec], routes: Iterable[RouteSpec], now: float) -> list[Told]:
        """These are configured from now on. One that runs is stopped where it compares something else than before, or
        no route names it."""
        self._configured = {spec.name: spec for spec in experiments}
        self._routes = _named_by(routes)
        running = [(name, run) for name, run in self._runs.items() if run.trial.runs]
        return [told for name, run in running if (told := self._follow(name, run, now))]

    def _follow(self, name: str, run: _Run, now: float) -> Told | None:
        spec, running = self._configured.get(name), run.trial.experiment
        if spec is None or name not in self._routes:
            return self._end(run, now, "no route names it any more")
        if _compared(spec) != _compared(running):
            return self._end(run, now, "its configuration has changed what it compares")
        if spec != running:
            weights = run.trial.weights if spec.arms == running.arms else dict(spec.arms)
            self._change(run, now, experiment=spec, weights=weights)
        return None

    # Life

    def start(self, name: str, now: float) -> Told:
        """A new run, which knows nothing of a former one. Raises ExperimentNotFound, ExperimentConflict."""
        spec = self._configured.get(name)
        if spec is None:
            raise ExperimentNotFound(name, self._configured)
        run = self._runs.get(name)
        if run and run.trial.runs:
            raise ExperimentConflict(f"experiment '{name}' is running already; stop it before you start it anew")
        if name not in self._routes:
            raise ExperimentConflict(
                f"no route names experiment '{name}', so it would assign nobody; give a route the split "
                f"{{experiment: {name}}}"
            )
        started = max(now, run.trial.started + 0.001) if run else now
        trial = Trial(
            experiment=spec, started=started, changed=now, weights=dict(spec.arms), places=self._free_places(spec)
        )
        self._put(trial)
        sentence = f"experiment '{name}' has started: {_spoken(trial.weights)}"
        return Told(EventKind.EXPERIMENT_STARTED, sentence, {"experiment": name, "weights": trial.weights})

    def stop(self, name: str, now: float) -> Told:
        """It assigns nobody any more; outcomes may still come. Raises ExperimentNotFound, ExperimentConflict."""
        run = self._run(name)
        if run is None or not run.trial.runs:
            raise ExperimentConflict(f"experiment '{name}' is not running")
        return self._end(run, now, "a person stopped it")

    def _end(self, run: _Run, now: float, why: str) -> Told:
        name = run.trial.experiment.name
        said = run.verdict(now)
        self._change(run, now, stopped=now)
        details = {"experiment": name, "verdict": said.verdict, "winner": said.winner}
        return Told(EventKind.EXPERIMENT_STOPPED, f"experiment '{name}' has stopped: {why}; {said.sentence}", details)

    def _free_places(self, spec: ExperimentSpec) -> tuple[tuple[int, int], ...]:
        """Places of its group that nobody has who runs. Raises ExperimentConflict when they are too few."""
        if spec.group is None:
            return ()
        wanted, found, begin = round(spec.group.share_percent * PLACES / 100), [], 0
        for taken, end in [*self._taken_places(spec.group.name), (PLACES, PLACES)]:
            free = min(taken - begin, wanted)
            if free > 0:
                found.append((begin, begin + free))
                wanted -= free
            begin = end
        if wanted > 0:
            free = sum(end - begin for begin, end in found)
            raise ExperimentConflict(
                f"group '{spec.group.name}' has {100 * free / PLACES:g} % of its callers left, and '{spec.name}' needs "
                f"{spec.group.share_percent:g} %; stop another experiment of the group"
            )
        return tuple(found)

    def _taken_places(self, group: str) -> list[tuple[int, int]]:
        return sorted(
            part
            for run in self._runs.values()
            if run.trial.runs and run.trial.experiment.group and run.trial.experiment.group.name == group
            for part in run.trial.places
        )

    # What is seen

    def hand_in(self, gateway: str, number: int, exposed: Iterable[Exposed]) -> None:
        """A gateway's assignments. A batch whose number is not above that of its last one was heard before."""
        if number > self._heard.get(gateway, -1):
            batches = [[*batch[:2], dict(batch.weights), dict(batch.assignments)] for batch in exposed]
            self._happen({"kind": "exposed", "gateway": gateway, "number": number, "exposed": batches})

    def record(self, name: str, outcomes: Sequence[OutcomeRecord]) -> list[Recording]:
        """What became of each, in order. Raises InvalidOutcome, ExperimentNotFound or ExperimentConflict, and none
        counts."""
        run = self._run(name)
        if run is None:
            raise ExperimentConflict(f"experiment '{name}' has never been started, so nothing was assigned")
        for place, outcome in enumerate(outcomes):
            try:
                run.trial.experiment.check(outcome)
            except InvalidOutcome as error:
                raise InvalidOutcome(f"outcomes.{place}: {error.sentence}") from None
        recordings = [run.state.record(outcome) for outcome in outcomes]
        new = [o for o, recording in zip(outcomes, recordings, strict=True) if recording is not Recording.DUPLICATE]
        if new:
            run.news += 1
            documents = [_without_key(outcome, run.trial.salt) for outcome in new]
            self._keep({"kind": "outcomes", "name": name, "started": run.trial.started, "outcomes": documents})
        return recordings

    # What it says

    def tick(self, now: float) -> list[Told]:
        """What is to be told by now. Judges one experiment at most, the one that waited longest, and lets bandits
        move. To be called about twice a second."""
        told: list[Told] = []
        due = [run for run in self._runs.values() if run.is_due(now)]
        if due:
            told += self._judge(min(due, key=lambda run: run.judged_at), now)
        for run in list(self._runs.values()):
            if run.trial.runs and run.trial.experiment.bandit.enabled:
                told += self._move(run, now)
        return told

    def _judge(self, run: _Run, now: float) -> list[Told]:
        said, trial, name = run.verdict(now), run.trial, run.trial.experiment.name
        run.weighed_news = run.news
        details = {"experiment": name, **said.to_json()}
        if not said.valid and not trial.skewed:
            self._change(run, now, skewed=True)
            return [Told(EventKind.EXPERIMENT_SKEWED, f"experiment '{name}' is {said.sentence}", details)]
        if said.verdict != "undecided" and not trial.decided:
            self._change(run, now, decided=True)
            return [Told(EventKind.EXPERIMENT_DECIDED, f"experiment '{name}' is decided: {said.sentence}", details)]
        return []

    def _move(self, run: _Run, now: float) -> list[Told]:
        """Let the weights of a bandit follow its outcomes."""
        trial, spec = run.trial, run.trial.experiment
        if now - run.moved_at < spec.bandit.interval_s or run.news == run.moved_news or trial.skewed:
            return []
        run.moved_at, run.moved_news = now, run.news
        metric = spec.primary.metric
        seen = {arm: run.state.arms.get(arm, Arm())[metric] for arm, weight in spec.arms.items() if weight > 0}
        found = shares(spec.primary, seen, spec.bandit.floor_percent / 100, self._rng)
        weights = {arm: round(100 * found.get(arm, 0.0), 2) for arm in spec.arms}
        if _distance(_shares(weights), _shares(trial.weights)) < WORTH_MOVING:
            return []
        self._change(run, now, weights=weights)
        if _distance(_shares(weights), run.told) < WORTH_TELLING:
            return []
        before, run.told = run.told, _shares(weights)
        details = {"experiment": spec.name, "before": before, "after": run.told}
        return [Told(EventKind.WEIGHTS_CHANGED, f"experiment '{spec.name}' moves weight: {_spoken(weights)}", details)]

    def status(self, name: str, now: float, fresh: bool = True) -> ExperimentStatus:
        """With a verdict at most `JUDGE_S` old, or, of many, with the latest. Raises ExperimentNotFound."""
        run, spec = self._run(name), self._configured.get(name)
        if run is None:
            assert spec is not None
            return ExperimentStatus(name=name, state="idle", experiment=spec, routes=self._routes.get(name, ()))
        trial, state = run.trial, run.state
        metric = trial.experiment.primary.metric
        return ExperimentStatus(
            name=name,
            state=self._state_of(name, trial),
            experiment=trial.experiment,
            routes=self._routes.get(name, ()),
            started=trial.started,
            stopped=trial.stopped,
            shares=_shares(trial.weights),
            assigned=sum(state.ratio.assigned.values()),
            outcomes=sum(arm[metric].n for arm in state.arms.values()),
            waiting=state.waiting,
            lost=state.lost,
            result=(run.judged if run.judged and not fresh else run.verdict(now)).to_json(),
        )

    def statuses(self, now: float) -> list[ExperimentStatus]:
        """Those that are configured, then those that were."""
        return [self.status(name, now, fresh=False) for name in dict.fromkeys([*self._configured, *self._runs])]

    def _state_of(self, name: str, trial: Trial) -> State:
        if name not in self._configured:
            return "removed"
        return "running" if trial.runs else "stopped"

    def shown(self) -> dict[str, Trial]:
        """The latest run of every configured experiment: what gateways need, and hand on to the next life."""
        return {name: self._runs[name].trial for name in self._configured if name in self._runs}

    # Keeping

    def adopt(self, trials: Mapping[str, Trial]) -> None:
        """Take over what a gateway remembers of a former life, where it is newer than what was kept."""
        for name, trial in trials.items():
            own = self._runs.get(name)
            if own is None or own.trial.changed < trial.changed:
                self._put(trial)

    def to_json(self) -> dict[str, Any]:
        """Everything that has been seen, for a restart."""
        return {
            "runs": [
                {"trial": run.trial.model_dump(mode="json"), "state": run.state.to_json()}
                for run in self._runs.values()
            ],
            "heard": list(self._heard.items()),
        }

    def restore(self, document: Any, entries: Sequence[Entry]) -> None:
        """Begin from what `to_json` gave, None for nothing, and what has happened since."""
        kept = document or {"runs": [], "heard": []}
        self._heard = OrderedDict(kept["heard"])
        self._runs = {}
        for run in kept["runs"]:
            trial = _trial(run["trial"])
            self._runs[trial.experiment.name] = _Run(trial, Experiment.from_json(run["state"]))
        for entry in entries:
            self._apply(entry)

    def _happen(self, entry: Entry) -> None:
        self._keep(entry)
        self._apply(entry)

    def _put(self, trial: Trial) -> None:
        self._happen({"kind": "trial", "trial": trial.model_dump(mode="json")})
        gone = [name for name in self._runs if name not in self._configured]
        for name in gone[: max(len(gone) - REMEMBERED_TRIALS, 0)]:
            self._happen({"kind": "forgotten", "name": name})

    def _change(self, run: _Run, now: float, **parts: Any) -> None:
        self._put(run.trial.model_copy(update={**parts, "changed": max(now, run.trial.changed)}))

    def _apply(self, entry: Entry) -> None:
        match entry["kind"]:
            case "trial":
                self._apply_trial(_trial(entry["trial"]))
            case "forgotten":
                self._runs.pop(entry["name"], None)
            case "exposed":
                self._apply_exposed(entry)
            case "outcomes":
                self._apply_outcomes(entry)

    def _apply_trial(self, trial: Trial) -> None:
        run = self._runs.get(trial.experiment.name)
        if run is None or run.trial.started != trial.started:
            self._runs[trial.experiment.name] = _Run(trial)
            return
        run.trial = trial
        run.state.remembered = trial.experiment.remembered
        run.news += 1

    def _apply_exposed(self, entry: Entry) -> None:
        self._heard[entry["gateway"]] = entry["number"]
        self._heard.move_to_end(entry["gateway"])
        if len(self._heard) > REMEMBERED_GATEWAYS:
            self._heard.popitem(last=False)
        for name, started, weights, assignments in entry["exposed"]:
            run = self._runs.get(name)
            if run and run.trial.started == started:
                run.state.expose(assignments, weights)
                run.news += 1

    def _apply_outcomes(self, entry: Entry) -> None:
        run = self._runs.get(entry["name"])
        if run and run.trial.started == entry["started"]:
            run.news += 1
            for outcome in entry["outcomes"]:
                run.state.record(OutcomeRecord(**outcome))

    def _run(self, name: str) -> _Run | None:
        """The latest run. Raises ExperimentNotFound where there is neither a run nor a configuration."""
        if name not in self._runs and name not in self._configured:
            raise ExperimentNotFound(name, {*self._configured, *self._runs})
        return self._runs.get(name)


def _without_key(outcome: OutcomeRecord, salt: str) -> dict[str, Any]:
    """What is kept of an outcome: its assignment, which does not tell who the caller is."""
    assignment = outcome.assignment or assignment_of(salt, outcome.key or "")
    return {**outcome.model_dump(exclude_none=True, exclude={"key"}), "assignment": assignment}


def _trial(document: Any) -> Trial:
    return Trial.model_validate(document, strict=False)


def _compared(spec: ExperimentSpec) -> ExperimentSpec:
    """An experiment less what may change while it runs."""
    arms = dict.fromkeys(spec.arms, 1.0)
    return spec.model_copy(update={"arms": arms, "max_duration_s": 1.0, "remembered": 1000})


def _named_by(routes: Iterable[RouteSpec]) -> dict[str, tuple[str, ...]]:
    """Experiment to the routes that name it."""
    named: dict[str, tuple[str, ...]] = {}
    for route in routes:
        for experiment in route.experiments:
            named[experiment] = (*named.get(experiment, ()), route.name)
    return named


def _shares(weights: Mapping[str, float]) -> dict[str, float]:
    total = sum(weights.values())
    return {arm: weight / total for arm, weight in weights.items()}


def _distance(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    return max(abs(one.get(arm, 0.0) - other.get(arm, 0.0)) for arm in {*one, *other})


def _spoken(weights: Mapping[str, float]) -> str:
    return ", ".join(f"{arm} {100 * share:.3g} %" for arm, share in _shares(weights).items())
