"""Compile the Triton kernels for a GPU without having one: registers, spills and how wide memory is read.

    python tools/compile_kernels.py                 # from a T4 (compute capability 7.5) to a consumer Blackwell (12.0)
    python tools/compile_kernels.py --capability 90 # an H100 or H200

A kernel that spills registers, or reads the value in less than 16 bytes at a time, is slower than it need be.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from itertools import product
from pathlib import Path

import click
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from detr.ops.kernels_triton import backward_kernel, forward_kernel

TYPES = {"fp32": "*fp32", "bf16": "*bf16", "fp16": "*fp16"}


@click.command()
@click.option(
    "--capability",
    multiple=True,
    default=(75, 80, 86, 89, 90, 100, 120),
    show_default=True,
    help="Of the GPU: 80 is an A100, 90 an H100 or H200.",
)
@click.option("--channels", default=32, show_default=True, help="Of a head.")
@click.option("--points", default=16, show_default=True, help="Of a query and head, on all levels.")
@click.option("--warps", default=4, show_default=True)
@click.option("--queries", default=16, show_default=True, help="Of a program.")
def main(capability: tuple[int, ...], channels: int, points: int, warps: int, queries: int) -> None:
    kernels = ((forward_kernel, None), (backward_kernel, False), (backward_kernel, True))
    for target, (name, type_of_value), (kernel, exact) in product(capability, TYPES.items(), kernels):
        settings = settings_for(channels=channels, points=points, queries=queries, exact=exact)
        binary = compiled(kernel, type_of_value, settings, capability=target, warps=warps)
        words = {None: "forward", False: "backward", True: "backward, exact"}[exact]
        click.echo(f"{target} {name} {words}: {report(binary)}")


def settings_for(*, channels: int, points: int, queries: int, exact: bool | None) -> dict:
    """The constants of a kernel: boxes as references, four levels, no padding. `exact` is of the backward pass."""
    settings = {
        "HEADS": 8, "POINTS": points, "CHANNELS": channels, "LEVELS": 1, "SIDES": 4, "BILINEAR": True, "PADDED": False,
        "WIDE": False,
        "NUMBER": tl.float32, "BLOCK_Q": queries, "BLOCK_P": triton.next_power_of_2(points),
        "BLOCK_D": triton.next_power_of_2(channels),
    }  # fmt: skip
    return settings if exact is None else settings | {"EXACT": exact, "OF_REFERENCES": False, "BLOCK_L": 1}


def compiled(kernel, type_of_value: str, settings: dict, *, capability: int, warps: int):
    """`kernel` built for a value, references, offsets and logits of one type."""
    types = {"padding": "*u8", "table": "*i32", "scale": "*fp32", "grad_references": "*fp32"}
    types |= {"num_queries": "i32", "num_positions": "i32"}
    types["grad_value"] = "*i64" if settings.get("EXACT") else "*fp32"
    names = [name for name in kernel.arg_names if name not in settings]
    signature = {name: types.get(name, type_of_value) for name in names} | dict.fromkeys(settings, "constexpr")
    aligned = {(kernel.arg_names.index(name),): [["tt.divisibility", 16]] for name in names if name != "num_queries"}
    source = ASTSource(kernel, signature, constexprs=settings, attrs=aligned)
    return triton.compile(
        source, target=GPUTarget("cuda", capability, 32), options={"num_warps": warps, "enable_fp_fusion": True}
    )


def report(binary) -> str:
    """Registers and spills as the machine code has them, and the accesses to memory by their width."""
    tools = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary.asm["cubin"])
        file.flush()
        command = [tools / "cuobjdump", "--dump-resource-usage", file.name]
        usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        code = subprocess.run([tools / "nvdisasm", file.name], capture_output=True, text=True, check=True).stdout
    found = dict(re.findall(r"\b(REG|STACK|LOCAL):(\d+)", usage))
    widths = Counter(re.findall(r"\b((?:LDG|STG|RED|REDG|ATOMG)\.[A-Z0-9._]+)", code))
    accesses = ", ".join(f"{count} {name}" for name, count in widths.most_common())
    return f"{found['REG']} registers, {int(found['STACK']) + int(found['LOCAL'])} bytes of stack; {accesses}"


if __name__ == "__main__":
    main()
