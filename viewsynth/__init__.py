# SPDX-License-Identifier: Apache-2.0
"""viewsynth: ground photos of people in, aerial views of the same people out."""

from __future__ import annotations

from viewsynth.runtime.lazy import lazy

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "generate.synthesizer": ["Synthesizer"],
        "records": ["Dataset", "Person", "Protocol", "Reject", "Sample", "Verdict", "View"],
    },
)
