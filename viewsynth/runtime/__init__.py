# SPDX-License-Identifier: Apache-2.0
"""Runtime: files, images, model weights, worker processes, versions and licences."""
