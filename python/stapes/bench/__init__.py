"""What ``stapes bench`` measures: operators, training steps, features, beside the machine's limits.

``shapes`` and ``networks`` are the named work, ``kernels`` and ``peers`` the same operator by
Stapes and by others, ``steps`` whole training steps in processes of their own, ``timing`` and
``machine`` the clock and the limits, ``report``, ``compare`` and ``roofline`` what becomes of it.
"""
