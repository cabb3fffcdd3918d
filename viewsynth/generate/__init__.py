# SPDX-License-Identifier: Apache-2.0
"""Generate: the source images of people in, their rendered aerial views and rows out."""
