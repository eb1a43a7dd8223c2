"""Every metric that the dashboard, the alerts and the autoscalers query exists on a running Triton."""

from __future__ import annotations

import re
import urllib.request

from client import Inverter
from server.triton import LocalTriton
from tests.project.test_docker import every_metric


def test_triton_has_every_metric_that_is_asked_for(triton: LocalTriton) -> None:
    with Inverter(triton.url) as inverter:
        inverter.generate(seed=1, psi=0.7)
    assert triton.metrics_url is not None
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(triton.metrics_url, timeout=30) as page:
        served = set(re.findall(r"^(\w+)\{[^}]*model=\"ffhq_fine\"", page.read().decode(), flags=re.MULTILINE))
    asked = {name for name in every_metric() if name.startswith("nv_")}
    assert len(asked) > 6
    assert asked <= served
