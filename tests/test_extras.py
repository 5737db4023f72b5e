import configparser
import re
from pathlib import Path

import pytest

from detr.errors import UsageError
from detr.extras import EXTRAS, is_installed, require


def test_the_extras_are_those_of_setup():
    setup = configparser.ConfigParser()
    setup.read(Path(__file__).parents[1] / "setup.cfg")
    extras = setup["options.extras_require"]
    assert set(EXTRAS) == set(extras) - {"test", "docs"}
    for extra, packages in EXTRAS.items():
        assert list(packages) == re.findall(r"^[\w-]+", extras[extra], re.MULTILINE)


def test_what_lacks_is_said_with_the_line_to_type(monkeypatch):
    there = {"fastapi", "uvicorn"}
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name if name in there else None)
    with pytest.raises(UsageError) as refused:
        require("serve", "serving")
    assert str(refused.value) == (
        "serving needs python-multipart, prometheus-client, which are not installed; "
        "type: pip install 'detr-toolkit[serve]'"
    )
    require("serve", "a part of it", "fastapi")
    there |= {"python_multipart", "prometheus_client"}
    require("serve", "serving")
    assert is_installed("python-multipart") and not is_installed("timm")
