"""Push and pull through a live service on the GPU, in turns with one on the CPU."""

from __future__ import annotations

from benchmarks.measure import Plan, Report, take_turns, timed

TITLE = "Push and pull on the GPU"
DEVICES = ("gpu", "cpu")


def run(plan: Plan) -> Report:
    """64 MiB of Adam, durability memory. Raises ImportError where the service is not installed."""
    from benchmarks.subject import Pusher, require_steps, serving

    report = Report("gpu-service", TITLE)
    nbytes = plan.pick(64 << 20, 1 << 20)
    gpu, cpu = (serving(plan, "memory", nbytes // 4, device) for device in DEVICES)
    with gpu as on_gpu, cpu as on_cpu:
        services = dict(zip(DEVICES, (on_gpu, on_cpu), strict=True))
        pushers = {name: Pusher(service, nbytes // 4) for name, service in services.items()}
        cases = {name: timed(pusher.push) for name, pusher in pushers.items()}
        samples = take_turns(cases, plan.pick(30, 3), warmups=3)
        for name, pusher in pushers.items():
            require_steps(services[name], pusher.sequence)
            pusher.close()
    report.samples["push"] = dict(samples.seconds)
    report.figures.append(samples.figure(f"{nbytes >> 20} MiB Adam on the GPU", "gpu", ("cpu",)))
    return report
