"""Every module that declares operations: importing them is what registers them."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

import orchestrator.api.ec2
import orchestrator.api.iam
import orchestrator.api.kms
import orchestrator.api.orc
from orchestrator.api import cloudtrail, organizations, sts


def load() -> list[ModuleType]:
    """Import them all."""
    modules = [cloudtrail, organizations, sts]
    for package in (orchestrator.api.ec2, orchestrator.api.iam, orchestrator.api.kms, orchestrator.api.orc):
        for found in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
            modules.append(importlib.import_module(found.name))
    return modules
