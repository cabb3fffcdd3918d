# SPDX-License-Identifier: Apache-2.0
"""Pictures and pages to look at: contact sheets, the page of a run, GLB files."""
