"""When a gradient counts, and how gradients that count together become one.

`policy.py` is what a spec may say, `members.py` who takes part, `rounds.py` which pushes make the next step,
`merge.py` how they become one gradient, by the arithmetic in `aggregate.py`. All of it is folded from
entries: a time-out is an entry like any other.
"""
