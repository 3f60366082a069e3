"""All checks, in the order in which a reader wants them: what everything else depends on first."""

from engine.doctor.finding import Finding
from engine.doctor.gateway import gateway
from engine.doctor.home import home_and_config, models
from engine.doctor.npu import npu
from engine.doctor.software import software


def examine(*, verify: bool) -> tuple[Finding, ...]:
    """verify: read every byte of the models and compiled graphs. Takes seconds: it starts a process."""
    settings, about_home = home_and_config()
    return (
        *software(),
        *npu(settings, verify=verify),
        *about_home,
        *models(settings, verify=verify),
        *gateway(settings),
    )
