# SPDX-License-Identifier: Apache-2.0
"""What every stage needs of the machine: files, models, worker processes, versions, licences."""
