"""Whether an exported file finds what its network finds, and where it goes wrong if not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from detr.bands import Bands
from detr.export.agreement import SURE, TOLERANCES, Agreement, Tolerance, agreement, any_sure
from detr.export.divergence import Stage, Trace, trace
from detr.export.file_runner import FileRunner
from detr.export.passing import Passed, by_file, by_network
from detr.export.stages import STAGES
from detr.models import Network

_MOST_TRACED = 4  # pictures, those with the most that has no counterpart


@dataclass(frozen=True, eq=False)
class Verdict:
    """`ok`, or where it diverges."""

    pictures: int
    sure: (
        float | None
    )  # the score from which on detections count; None: the best 100 of each, as nothing scores so much
    tolerance: Tolerance
    agreement: Agreement
    followed: int = 0  # pictures of which PyTorch was given the file's own rounding and choice of queries
    stages: tuple[Stage, ...] = ()  # of the picture that diverges first, where any was looked at
    diverging: str | None = None
    blind: bool = False  # the file doesn't show its stages

    @property
    def ok(self) -> bool:
        return self.agreement.share >= self.tolerance.share

    @property
    def text(self) -> str:
        """`5,120 of 5,124 detections above 0.3 in 128 pictures have a counterpart (IoU 0.99, score within 0.01)`"""
        found, tolerance = self.agreement, self.tolerance
        what = "detections, the best of each," if self.sure is None else f"detections above {self.sure}"
        text = (
            f"{found.matched:,} of {found.counted:,} {what} in {self.pictures} pictures have a counterpart with an IoU "
            f"of {tolerance.iou} and a score within {tolerance.score} ({found.share:.2%}, expected "
            f"{tolerance.share:.0%}; the worst of them {found.worst_iou:.4f} and {found.worst_score:.1e})"
        )
        if self.followed:
            text += f"; in {self.followed} of them only after taking its rounding, and its choice of queries that tie"
        if not self.ok:
            text += f"; {self.where}"
        return text

    @property
    def where(self) -> str:
        """Which stage diverges first, in words."""
        if self.blind:
            return "which stage differs this kind of file doesn't show; is the same model right as onnx?"
        if self.diverging is None:
            return "no stage alone differs by more than allowed"
        stage = next(each for each in self.stages if each.name == self.diverging)
        return f"the first stage to diverge is {stage.name} (off by {stage.error:.2g}, allowed is {stage.allowed:.2g})"


def verify(network: Network, runner: FileRunner, pictures: Iterable[Bands]) -> Verdict:
    """Compare what `network` and the file find in the pictures, and where they don't agree, stage by stage.

    The tolerance is that of what the file computes in. Two programs that are both right may choose otherwise among
    queries that rank alike, and round a pixel up or down: where no stage differs by more, PyTorch is given the file's
    resized picture and its choice before its answer counts.
    """
    tolerance = TOLERANCES[runner.number]
    passed = list(_both(network, runner, pictures))
    sure = SURE if any(any_sure(side.found) for _, *sides in passed for side in sides) else None
    agreements = [agreement(ours.found, theirs.found, tolerance, sure=sure) for _, ours, theirs in passed]
    verdict = Verdict(len(passed), sure, tolerance, sum(agreements, Agreement()))
    if verdict.ok or not runner.shows_stages:
        return replace(verdict, blind=not runner.shows_stages)
    worst = sorted(range(len(passed)), key=lambda index: agreements[index].matched - agreements[index].counted)
    traces: list[Trace] = []
    for index in worst:
        enough = sum(agreements, Agreement()).share >= tolerance.share
        if enough or (len(traces) >= _MOST_TRACED and any(each.first for each in traces)):
            break
        seen = trace(network, runner, passed[index][0], tolerance)
        traces.append(seen)
        if seen.first is None:
            agreements[index] = agreement(seen.alike.found, seen.theirs.found, tolerance, sure=sure)
            verdict = replace(verdict, followed=verdict.followed + 1)
    verdict = replace(verdict, agreement=sum(agreements, Agreement()))
    return verdict if verdict.ok else _placed(verdict, traces)


def _both(network: Network, runner: FileRunner, pictures: Iterable[Bands]) -> Iterator[tuple[Bands, Passed, Passed]]:
    for picture in pictures:
        ours, theirs = by_network(network, picture, runner.about), by_file(runner, picture)
        yield picture, replace(ours, between={}, ranking=None), replace(theirs, between={})


def _placed(verdict: Verdict, traces: list[Trace]) -> Verdict:
    diverging = [each for each in traces if each.first is not None]
    if not diverging:
        return replace(verdict, stages=traces[0].stages)
    first = min(diverging, key=lambda each: STAGES.index(each.first.name if each.first else STAGES[-1]))
    assert first.first is not None
    return replace(verdict, stages=first.stages, diverging=first.first.name)
