# SPDX-License-Identifier: Apache-2.0
"""World: people and places that we draw ourselves, with exact truth.

The demo, the tests and the README's picture come from here; nothing in reconstruct may look at it.
`garments` dresses a body, `capture` photographs it, `people` decides who, where and when.
"""
