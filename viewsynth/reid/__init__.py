# SPDX-License-Identifier: Apache-2.0
"""ReID: pictures in, features out, and how well they find people again.

encoders (a model of `transformers`) -> features (a file of them, or another program's) -> protocols
(which can be computed) -> evaluation.
"""
