"""The conda recipe, rendered by rattler-build, and held against pyproject.toml."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest

from epicsx import __version__

rattler_build = pytest.importorskip("rattler_build")

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
# what conda-forge sets for every recipe
VARIANTS = {
    "python": ["3.10.*", "3.13.*"],
    "c_compiler": ["gcc"],
    "c_stdlib": ["sysroot"],
    "c_stdlib_version": ["2.17"],
}


def rendered(platform: str) -> list[Any]:
    recipe = rattler_build.Stage0Recipe.from_file(ROOT / "packaging" / "conda" / "recipe.yaml")
    where = rattler_build.PlatformConfig(
        target_platform=platform, build_platform=platform, host_platform=platform
    )
    variants = rattler_build.VariantConfig(VARIANTS)
    made = recipe.render(variants, rattler_build.RenderConfig(platform=where))
    return [variant.recipe.to_dict() for variant in made]


def requirements(texts: list[str]) -> set[tuple[str, str]]:
    """Names and bounds, without what is asked for only for the bundled libraries."""
    found = (re.match(r"([\w-]+) *(>=[\d.]+)?", t.partition(";")[0]) for t in texts)
    return {(m[1].lower(), m[2] or "") for m in found if m and m[1] != "epicscorelibs"}


@pytest.mark.parametrize("platform", ["linux-64", "linux-aarch64", "osx-arm64"])
def test_it_renders_for_each_python(platform: str) -> None:
    made = rendered(platform)
    assert len(made) == len(VARIANTS["python"])
    for recipe in made:
        assert recipe["package"] == {"name": "epicsx", "version": __version__}
        assert recipe["source"][0]["url"].endswith(f"/epicsx-{__version__}.tar.gz")
        assert "pip install . -vv --no-deps --no-build-isolation" in recipe["build"]["script"][-1]


def test_it_asks_for_what_pyproject_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (recipe, _) = rendered("linux-64")
    host = requirements(recipe["requirements"]["host"])
    assert host - {("python", ""), ("pip", ""), ("epics-base", "")} == requirements(
        project["build-system"]["requires"]
    )
    run = requirements(recipe["requirements"]["run"])
    assert run - {("python", "")} == requirements(project["project"]["dependencies"])
    assert recipe["about"]["summary"] == project["project"]["description"]
