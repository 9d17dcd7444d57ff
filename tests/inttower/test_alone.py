"""The library in an environment that holds what its wheel asks for and nothing else."""

import ast
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]

RANK = """
import json
from importlib.util import find_spec

import inttower
import numpy as np
from inttower import FeatureSpec, Field, IntTower, score, top_k

user, item = (Field(side, side, "sparse", is_id=True) for side in ("user", "item"))
model = IntTower(FeatureSpec((user, item)))
users, items = ["u1", "u2"] * 100, [f"i{n % 7}" for n in range(200)]
batch = model.encode({"user": users, "item": items}, admit=True)
model.fit(batch, np.isin(items, ["i1", "i3"]))
base, known = model.serving_encoder(), model.known_ids("item")
vectors = base.item_vectors({"item": known}, model.item_id_rows(known))
query = base.user_vector({"user": ["u1"]}, model.user_id_rows(["u1"])[0], model.item_id_rows)
best, _ = top_k(score(query, vectors), 2)
print(json.dumps({
    "from": inttower.__file__,
    "there": [m for m in ("kafka", "pyflink", "feast", "pydantic", "streaming", "settings")
              if find_spec(m)],
    "best": sorted(known[k] for k in best),
}))
"""


def run(*command: str, **environment: str) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_installs_and_ranks_without_kafka_flink_and_feast(tmp_path: Path) -> None:
    python = tmp_path / "venv" / "bin" / "python"
    run("uv", "build", "--quiet", "--wheel", str(ROOT / "inttower"), "-o", str(tmp_path))
    [wheel] = tmp_path.glob("*.whl")
    run("uv", "venv", "--quiet", "--python", sys.executable, str(tmp_path / "venv"))
    # links into uv's cache, where every one of these packages lies already
    install = ("uv", "pip", "install", "--quiet", "--link-mode=symlink", "--python", str(python))
    run(*install, "--constraints", str(ROOT / "requirements.lock"), str(wheel))
    found = json.loads(run(str(python), "-I", "-c", RANK))
    assert found == {
        "from": str(next((tmp_path / "venv").rglob("inttower/__init__.py"))),
        "there": [],
        "best": ["i1", "i3"],
    }


def test_the_wheel_asks_for_every_package_that_the_library_imports() -> None:
    asked = tomllib.loads((ROOT / "inttower" / "pyproject.toml").read_text())["project"]
    names = {name.split(">")[0] for name in asked["dependencies"]}
    imported = {
        module.split(".")[0]
        for path in (ROOT / "inttower").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        for module in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    for_type_checkers = {"_typeshed", "typing_extensions"}
    own = {"inttower", *sys.stdlib_module_names, *for_type_checkers}
    assert imported - own == names
