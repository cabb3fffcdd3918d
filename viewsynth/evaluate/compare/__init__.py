# SPDX-License-Identifier: Apache-2.0
"""Experiment: what arms of training are worth against each other, with intervals.

`runs` reads what `evaluate` left of every arm and seed, `resampling` draws seeds and people again,
`summary` makes figures of the draws, `table` and `plots` show them. `viewsynth compare` calls them.

An arm is a way of training, e.g. "a" (ground pictures only); three of them have a part: the *floor*
and the *ceiling*, between which there is something to gain, and the *treated* arm, which is asked
about.
"""
