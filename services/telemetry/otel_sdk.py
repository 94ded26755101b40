"""Sets an exporter where the operator asked for one by OpenTelemetry's own environment; else nothing happens.

Rules: the only place that touches the SDK, which is no dependency of ours: without it, a wish for an exporter
is one clear log line and no spans.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

from opentelemetry import trace as api
from opentelemetry.trace import ProxyTracerProvider

log = logging.getLogger(__name__)
ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


def setup(environment: Mapping[str, str] = os.environ, *, service: str = "expertmesh-gateway") -> bool:
    """Export spans by OTLP if an endpoint is named and nobody set a provider before. True if spans are
    recorded from now on."""
    if not isinstance(api.get_tracer_provider(), ProxyTracerProvider):
        return True
    if not any(environment.get(name) for name in ENDPOINTS) or environment.get("OTEL_SDK_DISABLED") == "true":
        return False
    try:
        provider = _provider(environment.get("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"), service)
    except ImportError as error:
        log.warning("no spans: an OTLP endpoint is set, but the package %s is not installed", error.name)
        return False
    api.set_tracer_provider(provider)
    return True


def _provider(protocol: str, service: str) -> Any:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    else:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider
