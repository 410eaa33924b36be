"""Every module that declares operations: importing them is what registers them."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

import orchestrator.api.ec2
import orchestrator.api.orc
from orchestrator.api import sts


def load() -> list[ModuleType]:
    """Import them all."""
    modules = [sts]
    for package in (orchestrator.api.ec2, orchestrator.api.orc):
        for found in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
            modules.append(importlib.import_module(found.name))
    return modules
