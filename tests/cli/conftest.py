"""A recipe small enough to be trained within a test."""

import pytest


@pytest.fixture(scope="session")
def small_recipe_text():
    return """
model:
  version: 2
  num_queries: 8
  num_denoising: 0
  backbone: {depth: 10, width: 8}
  encoder: {channels: 16, heads: 2, hidden: 16, expansion: 0.5, depth: 0.34}
  decoder: {channels: 16, heads: 2, hidden: 16, num_layers: 1}
  input: {height: 64, width: 64}
train: {epochs: 1, batch: 2, scales: [64, 96]}
"""
