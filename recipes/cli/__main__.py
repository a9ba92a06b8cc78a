"""`python -m recipes.cli`: the command `synth` where it is not on the PATH."""

from __future__ import annotations

import sys

from recipes.cli import main

sys.exit(main())
