# SPDX-License-Identifier: Apache-2.0
"""What everything that learns shares: the loop, checkpoints, the moving average and the log."""
