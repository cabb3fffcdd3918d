# SPDX-License-Identifier: Apache-2.0
"""From files to files: the input pictures of a chunk of people, their aerial views and rows."""
