"""`detr doctor`: what is wrong with a data set, or with this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from detr.cli import flags
from detr.cli.help import Verb
from detr.cli.plain import print_json, to_stdout
from detr.errors import InputError, UsageError, counted
from detr.files import new_run

if TYPE_CHECKING:
    from detr.data.doctor import Report
    from detr.data.doctor_advice import Plan


@click.command(cls=Verb, context_settings={"show_default": True})
@click.argument("data", type=click.Path(path_type=Path), required=False)
@click.option("--model", default="rtdetr-r18", help="Preset or recipe that is to be trained.")
@flags.side
@flags.images
@click.option("--strict", is_flag=True, help="Leave with 1 if there is an error or a warning, for CI.")
@click.option("--fix", type=click.Path(path_type=Path), help="Folder for a corrected copy, in COCO's format.")
@click.option("--copy", is_flag=True, help="With --fix: copy the images instead of making hard links.")
@click.option("--no-page", is_flag=True, help="Do not write the page with pictures.")
@flags.run("doctor")
@flags.as_json("The report")
def command(
    data: Path | None,
    model: str,
    imgsz: int | None,
    images: Path | None,
    strict: bool,
    fix: Path | None,
    copy: bool,
    no_page: bool,
    as_json: bool,
    **run: Any,
) -> None:
    """Examine DATA before training on it; without DATA, this machine.

    \b
      detr doctor my-data                        # what is wrong, what to do
      detr doctor my-data --model dino-r50 --imgsz 1024
      detr doctor my-data --strict --no-page     # in CI
      detr doctor my-data --fix my-data-fixed    # the original stays as it is
      detr doctor                                # PyTorch, GPU, codecs, extras

    Every image is decoded. Found are: damaged images, wrong sizes, pictures that are in two splits, boxes that lie
    outside, are flat, tiny at the input's size or there twice, classes that a split lacks, more objects than queries.
    """
    if data is None:
        if strict or fix or images:
            raise UsageError("--strict, --fix and --images are about a data set: detr doctor DATA")
        _examine_machine(as_json=as_json)
        return
    from detr.data.doctor import examine
    from detr.runtime.progress import progress, told_if_long

    plan = _plan(model, imgsz)
    with told_if_long(f"reading {data}"):
        report = examine(data, plan, images=images, progress=progress)
    changes = None if fix is None else _fixed(report, fix, copy=copy)
    page = None if no_page else _page(new_run("doctor", **run), data, report, plan)
    if as_json:
        print_json({**report.to_json(), "page": page and str(page), "fixed": changes})
    else:
        _show(report)
    for line in changes or ():
        to_stdout(f"fixed: {line}", err=as_json)
    if fix is not None:
        click.echo(f"{fix}: the corrected copy, in COCO's format", err=as_json)
    if page is not None:
        click.echo(f"look at {page}", err=as_json)
    if strict and not report.is_healthy:
        wrong = sum(finding.level != "note" for finding in report.findings)
        raise InputError(f"{data}: {counted(wrong, 'kind')} of errors and warnings")


def _plan(model: str, imgsz: int | None) -> Plan:
    from detr.data.doctor_advice import Plan
    from detr.training.recipe import at_size, load_recipe

    recipe, small = load_recipe(model), load_recipe(model, finetune=True)
    recipe = recipe if imgsz is None else at_size(recipe, imgsz)
    return Plan(
        model=Path(model).stem,
        input=recipe.model.input,
        queries=recipe.model.num_queries,
        batch=recipe.train.batch,
        batch_finetune=small.train.batch,
        lr=recipe.train.optimizer.lr,
    )


def _fixed(report: Report, folder: Path, *, copy: bool) -> list[str]:
    from detr.data.doctor_fix import write_fixed
    from detr.runtime.progress import progress

    return write_fixed(report, folder, copy=copy, progress=progress)


def _page(folder: Path, data: Path, report: Report, plan: Plan) -> Path:
    from detr.engine.doctor_page import write_doctor_page

    write_doctor_page(folder / "index.html", str(data), report, plan)
    return folder / "index.html"


def _show(report: Report) -> None:
    for seen in report.seen:
        boxes = counted(len(seen.annotations.boxes), "box", "boxes")
        classes = counted(len(report.classes), "class", "classes")
        to_stdout(f"{seen.split}: {counted(len(seen.paths), 'image')}, {boxes}, {classes}")
    for finding in report.findings:
        to_stdout(f"{finding.level}: {finding.text}")
    for line in report.advice:
        to_stdout(f"advice: {line}")
    if report.is_healthy:
        to_stdout("nothing is wrong with it")


def _examine_machine(*, as_json: bool) -> None:
    from detr.runtime.checkup import checkup

    lines = checkup()
    if as_json:
        print_json({"lines": [vars(line) for line in lines]})
        return
    width = max(len(line.about) for line in lines)
    for line in lines:
        click.echo(f"{line.about:<{width}}  {line.value}")
        if line.advice:
            click.echo(f"{'':<{width}}  -> {line.advice}")
