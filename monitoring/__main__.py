"""`make monitoring`: write what comes of the table of alarms."""

from __future__ import annotations

from pathlib import Path

from monitoring import cloudwatch, grafana, prometheus, runbook

ROOT = Path(__file__).resolve().parent.parent
TEMPLATE, RULES, RUNBOOK = ROOT / "template.yml", ROOT / "docs/examples/alerts.yml", ROOT / cloudwatch.RUNBOOK
DASHBOARD = ROOT / "docs/examples/grafana.json"
BEGIN, END = "# Written by make monitoring from the table in monitoring/alarms.py.", "# Until here."


def written() -> dict[Path, str]:
    """Return each file that comes of the table, as it has to be."""
    template = TEMPLATE.read_text(encoding="utf-8")
    for part in (cloudwatch.thresholds(), cloudwatch.resources()):
        head = part.splitlines()[0]
        before, _, rest = template.partition(f"{BEGIN}\n{head}\n")
        _, _, after = rest.partition(f"  {END}\n")
        template = f"{before}{BEGIN}\n{part}  {END}\n{after}"
    return {
        TEMPLATE: template,
        RULES: prometheus.rules(),
        DASHBOARD: grafana.dashboard(),
        RUNBOOK: runbook.filled(RUNBOOK.read_text(encoding="utf-8")),
    }


if __name__ == "__main__":
    for path, text in written().items():
        path.write_text(text, encoding="utf-8")
