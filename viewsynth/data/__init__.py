# SPDX-License-Identifier: Apache-2.0
"""Data: the files of a data set in, a `Dataset` out.

- `load(name, root)`: one of the data sets of `names()`, each of which is one file of this folder;
  the data set `folder` (with `listing`, `forms`, `table`, `cells` and `columns`) is for images of
  your own.
- `layout`: what the released data sets share.
- `images` and `frames`: decoding the pixels.
- `Source` and `Reading`: the options of the commands.
"""

from __future__ import annotations

from viewsynth.runtime.lazy import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "loading": [
            *("count_by", "counts", "describe_difference", "differences"),
            *("load", "names", "passport"),
        ],
        "reading": ["Reading", "Source"],
    },
)
