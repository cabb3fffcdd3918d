# SPDX-License-Identifier: Apache-2.0
"""viewsynth: ground photos of people in, aerial views of the same people out."""

__version__ = "0.1.0"
