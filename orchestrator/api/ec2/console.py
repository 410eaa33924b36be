"""What an instance shows: the text of its serial console, and a picture of its screen."""

from __future__ import annotations

import base64
from typing import Final

from orchestrator.api.operation import Answer, Call, operation
from orchestrator.model.errors import EC2Error
from orchestrator.model.instance import Instance
from orchestrator.model.lifecycle import State

MAX_OUTPUT_BYTES: Final = 64 * 1024  # the newest, as EC2 keeps them


@operation("GetConsoleOutput")
def get_console_output(call: Call, *, instance_id: str, latest: bool = False) -> Answer:
    """Always the newest there is, so `latest` asks for nothing more. Empty while nothing was written."""
    instance = call.find(Instance, "i", instance_id)
    text = call.host.console(instance.id)[-MAX_OUTPUT_BYTES:]
    return {"InstanceId": instance.id, "Timestamp": call.now, "Output": base64.b64encode(text).decode()}


@operation("GetConsoleScreenshot")
def get_console_screenshot(call: Call, *, instance_id: str, wake_up: bool = False) -> Answer:
    """A JPEG. Screens do not sleep here, so `wake_up` asks for nothing more."""
    instance = call.find(Instance, "i", instance_id)
    if instance.state is not State.RUNNING:
        raise EC2Error(
            "IncorrectInstanceState",
            f"The instance '{instance.id}' is in the state '{instance.state}'; it must be 'running' to have a screen.",
        )
    try:
        picture = call.host.screenshot(instance.id)
    except OSError as error:
        raise EC2Error("Unavailable", f"The screen of '{instance.id}' cannot be seen just now", 503) from error
    return {"InstanceId": instance.id, "ImageData": base64.b64encode(picture).decode()}
