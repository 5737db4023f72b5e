"""The four positions around each bilinear sample of maps that lie one after the other in memory, and their shares."""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
from torch import Tensor


class Grid(NamedTuple):
    """What the samples need to know of the maps, point by point; rows are those of a value [S * M, Dh]."""

    last: Tensor  # [2, 1, 1, P] int32: the last cell xy that has a neighbour; 0 in a map of one row or column
    several: Tensor | None  # [2, 1, 1, P] False where a map has one row or column; None if no map has
    starts: Tensor  # [M, P] int32: the row of the first position of the level
    heads: int  # how many rows it is to the right
    lines: Tensor  # [P] int32: how many rows it is down
    steps: Tensor  # [4, P] int32: how many rows it is from the first corner to each


@functools.lru_cache(maxsize=64)
@torch.inference_mode(False)
def grid_of(sizes: tuple[int, ...], points: tuple[int, ...], heads: int, device: torch.device) -> Grid:
    """sizes h, w, h, w, ... of the levels; kept, as a copy to a device waits for it"""
    levels = torch.tensor([level for level, count in enumerate(points) for _ in range(count)], dtype=torch.int64)
    height, width = torch.tensor(sizes).view(-1, 2).T
    starts = (torch.cumsum(height * width, 0) - height * width)[levels]
    size = torch.stack([width, height])[:, levels]
    several = size > 1
    right, down = several[0] * heads, several[1] * size[0] * heads
    steps = torch.stack([torch.zeros_like(right), right, down, right + down])
    rows = starts * heads + torch.arange(heads)[:, None]
    return Grid(
        last=(size - 2).clamp(min=0)[:, None, None].int().to(device),
        several=None if bool(several.all()) else several[:, None, None].to(device),
        starts=rows.int().to(device),
        heads=heads,
        lines=(size[0] * heads).int().to(device),
        steps=steps.int().to(device),
    )


class Corners:
    """Around positions [2, Q, M, P], x and then y, (0, 0) the middle of a level's first position.

    The first corner is a cell that has a right and a lower neighbour, whatever the position: no row is ever outside the
    map. A share along an axis is how much nearer than 1 the cell is, and 0 from there on, so that what lies outside, or
    beyond the two cells, has none.
    """

    def __init__(self, positions: Tensor, grid: Grid) -> None:
        self.grid = grid
        # Towards zero is as good as down, as both ends are limited; limits of integers hold for NaN as well.
        self.cell = torch.clamp(positions.to(torch.int32), torch.zeros_like(grid.last), grid.last)
        self.beyond = positions.sub_(self.cell.to(positions.dtype))
        self.low = self.beyond.abs().neg_().add_(1).clamp_(min=0)
        self.high = (self.beyond - 1).abs_().neg_().add_(1).clamp_(min=0)
        if grid.several is not None:
            self.high.mul_(grid.several)

    def rows(self) -> Tensor:
        """[Q, M, 4, P] int32, of the value [S * M, Dh]: here, right, below, across"""
        x, y = self.cell
        first = torch.mul(y, self.grid.lines).add_(x, alpha=self.grid.heads).add_(self.grid.starts)
        rows = first.new_empty(*first.shape[:2], 4, first.shape[2])
        for corner, step in enumerate(self.grid.steps):
            torch.add(first, step, out=rows[:, :, corner])
        return rows

    def shares(self, weights: Tensor) -> Tensor:
        """weights [Q, M, P] -> what each corner gets of them [Q, M, 4, P]"""
        shares = weights.new_empty(*weights.shape[:2], 4, weights.shape[2])
        for line, along_y in enumerate((self.low[1], self.high[1])):
            of_line = weights * along_y
            for column, along_x in enumerate((self.low[0], self.high[0])):
                torch.mul(of_line, along_x, out=shares[:, :, 2 * line + column])
        return shares

    def gradients(self, weights: Tensor, products: Tensor) -> tuple[Tensor, Tensor]:
        """Of the weights [Q, M, P] and of the positions [2, Q, M, P].

        products [Q, M, 4, P]: of the gradient of the sum with the value in each corner.
        """
        here, right, below, across = products.unbind(2)
        (low_x, low_y), (high_x, high_y) = self.low, self.high
        slopes_low, slopes_high = self._slopes()
        upper = torch.addcmul(low_x * here, high_x, right)
        lower = torch.addcmul(low_x * below, high_x, across)
        left_of = torch.addcmul(low_y * here, high_y, below)
        right_of = torch.addcmul(low_y * right, high_y, across)
        of_weights = torch.addcmul(low_y * upper, high_y, lower)
        of_positions = torch.empty_like(self.low)
        torch.addcmul(slopes_low[0] * left_of, slopes_high[0], right_of, out=of_positions[0])
        torch.addcmul(slopes_low[1] * upper, slopes_high[1], lower, out=of_positions[1])
        return of_weights, of_positions.mul_(weights)

    def _slopes(self) -> tuple[Tensor, Tensor]:
        """The derivatives of `low` and `high` to the right of each position: 1, -1 or 0."""
        step = self.beyond.floor()
        before, inside, after = (_is(step, number) for number in (-1, 0, 1))
        low, high = before.sub_(inside), inside.sub_(after)
        return low, high if self.grid.several is None else high.mul_(self.grid.several)


def _is(whole: Tensor, number: int) -> Tensor:
    """1 where a whole number is this one, else 0: faster than to compare and convert."""
    return (whole - number).abs_().neg_().add_(1).clamp_(min=0)
