"""Behaviour cloning on frozen features: CortexBench's protocol on simulators that install today.

`simulators.py` holds the table of robot tasks, `rendering.py` the camera, `demonstrations.py` what is imitated,
`policy.py` who imitates, `rollouts.py` the trial; `cloning.py` puts them together for the task modules `success.py`
(MetaWorld, Adroit), `returns.py` (DMControl) and `offline_actions.py` (TriFinger).
"""
