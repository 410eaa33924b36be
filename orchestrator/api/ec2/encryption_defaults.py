"""Whether a region encrypts new volumes without being told to, and by which key: a choice of an account."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.api.ec2.encryption import find_key, region_settings
from orchestrator.api.operation import Answer, Call, operation
from orchestrator.model.errors import missing_parameter
from orchestrator.model.kms import EBS_ALIAS, Key


@operation("EnableEbsEncryptionByDefault", writes=True)
def enable_ebs_encryption_by_default(call: Call) -> Answer:
    return _switch(call, on=True)


@operation("DisableEbsEncryptionByDefault", writes=True)
def disable_ebs_encryption_by_default(call: Call) -> Answer:
    return _switch(call, on=False)


def _switch(call: Call, *, on: bool) -> Answer:
    call.tx.put(replace(region_settings(call), encrypt_by_default=on))
    return {"EbsEncryptionByDefault": on}


@operation("GetEbsEncryptionByDefault")
def get_ebs_encryption_by_default(call: Call) -> Answer:
    on = region_settings(call).encrypt_by_default
    return {"EbsEncryptionByDefault": on, "SseType": "sse-kms" if on else "none"}


@operation("GetEbsDefaultKmsKeyId")
def get_ebs_default_kms_key_id(call: Call) -> Answer:
    """The key's ARN, or the service's alias where nothing has been chosen."""
    chosen = call.db.get(Key, region_settings(call).default_key_id)
    return {"KmsKeyId": chosen.arn if chosen else EBS_ALIAS}


@operation("ModifyEbsDefaultKmsKeyId", writes=True)
def modify_ebs_default_kms_key_id(call: Call, *, kms_key_id: str) -> Answer:
    """The chosen key must be usable now; should it be disabled later, what needs it fails, as on EC2."""
    if not kms_key_id:
        raise missing_parameter("KmsKeyId")
    key = find_key(call, kms_key_id)
    call.tx.put(replace(region_settings(call), default_key_id=key.id))
    return {"KmsKeyId": key.arn}


@operation("ResetEbsDefaultKmsKeyId", writes=True)
def reset_ebs_default_kms_key_id(call: Call) -> Answer:
    call.tx.put(replace(region_settings(call), default_key_id=""))
    return {"KmsKeyId": EBS_ALIAS}
