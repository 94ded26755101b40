"""The second way to notices: EventBridge's events from SQS, read on the head."""

from __future__ import annotations

from typing import Any

import boto3

from services.capacity.ec2_nodes import BOTO_CONFIG, guarded
from services.capacity.nodes import Received
from services.capacity.notices import BadNotice, Notice, parse_event


class SqsNoticeQueue:
    """The `NoticeQueue` port over one SQS queue. A message that nobody understands is handed out with notice
    None, to be acknowledged: kept, it would come again until it lies in the dead-letter queue as noise."""

    def __init__(self, queue_url: str, region: str, endpoint_url: str | None = None) -> None:
        self._queue_url = queue_url
        self._sqs: Any = boto3.client(
            "sqs", region_name=region, endpoint_url=endpoint_url, config=BOTO_CONFIG
        )

    def receive(self, wait_s: float) -> tuple[Received, ...]:
        answer = guarded(
            lambda: self._sqs.receive_message(
                QueueUrl=self._queue_url,
                MaxNumberOfMessages=10,
                WaitTimeSeconds=int(max(0.0, min(20.0, wait_s))),
            )
        )
        return tuple(Received(_read(m["Body"]), m["ReceiptHandle"]) for m in answer.get("Messages", []))

    def acknowledge(self, receipt: str) -> None:
        guarded(lambda: self._sqs.delete_message(QueueUrl=self._queue_url, ReceiptHandle=receipt))


def _read(body: str) -> Notice | None:
    try:
        return parse_event(body)
    except BadNotice:
        return None
