"""THE SCHEDULES: learning rates as closed forms of `s`, the updates already applied (0 before the first).

Plain float64 on the host, the same bits on every machine: exp, cos and powers are `optim.elementary`'s and
`kernels.operations`'. A schedule takes `s` by position, then by keyword `lr` (the optimizer's) and its own
settings, declared like a rule's; its docstring is `Summary. Source.` and, set apart, its formula.

    steps, decay, cosine, warmup    one family each
    composed, plateau               made of other schedules; driven by what clients measure
    catalog                         the way in: expand a spec's schedule, evaluate it
    aliases, requirements           other names for the same forms; what settings must be to one another
    libraries, guide                for people: whose behaviour each setting reproduces
"""
