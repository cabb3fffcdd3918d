# SPDX-License-Identifier: Apache-2.0
"""One thread for every test: sums depend on the number of threads, and cores are shared."""

import torch

torch.set_num_threads(1)
