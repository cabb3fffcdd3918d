# SPDX-License-Identifier: Apache-2.0
"""What the diffusion model learns from: a ground photo, a drawn view and the true aerial picture."""
