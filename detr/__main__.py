"""`python -m detr`, and so `torchrun ... -m detr`, is the command `detr`."""

from detr.cli import main

main()
