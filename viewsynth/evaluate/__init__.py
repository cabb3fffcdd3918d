# SPDX-License-Identifier: Apache-2.0
"""Is it any good? Features, protocols and results; `fidelity` compares views, `compare` whole trainings."""
