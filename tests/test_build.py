"""`make`: where it must fail it does so in a sentence, and leaves no ./p2pchat that looks finished."""

import ast
import glob
import os
import shutil
import subprocess
import sys

import pytest

from helpers import BUILT, PATIENCE, TOP, python

FETCH = os.path.join(TOP, ".ci", "fetch")
with open(os.path.join(TOP, "Makefile"), encoding="utf-8") as _file:
    MAIN = _file.read().partition("define MAIN\n")[2].partition("endef\n")[0]


@pytest.fixture
def clone(tmp_path):
    """The sources, with an old ./p2pchat and all that pip fetched for it."""
    top = tmp_path / "a clone of zoë's"
    shutil.copytree(TOP, top, ignore=lambda folder, names: {".git", "__pycache__", "tests", "stage", "testing", "bytecode"} & set(names))
    return top


def make(folder, *arguments, **env):
    done = subprocess.run(["make", *arguments], cwd=folder, env={**os.environ, **env}, capture_output=True, text=True, timeout=3 * PATIENCE)
    return done.returncode, done.stderr


def test_sources_that_do_not_compile_leave_nothing_that_looks_finished(clone):
    assert (clone / "p2pchat").exists()
    (clone / "ui.py").write_text("def broken(:\n")
    status, _ = make(clone)
    assert status == 2 and not (clone / "p2pchat").exists()


def test_packages_that_cannot_be_fetched_leave_nothing_and_pip_says_why(clone, tmp_path):
    (tmp_path / "pip.py").write_text("import sys; sys.exit('ERROR: no such version')")
    status, said = make(clone, "RUNTIME=blessed==0.0.0", "-W", "Makefile", PYTHONPATH=str(tmp_path))
    assert status == 2 and "p2pchat: pip could not fetch blessed==0.0.0; what it said is above\n" in said and "ERROR: no such version" in said
    assert not (clone / "p2pchat").exists() and not list((clone / ".build").glob("runtime*"))


def old_pythons():
    """Pythons that are too old, of those that this machine has: (3, 8) -> path."""
    found = glob.glob(os.path.expanduser("~/.pyenv/versions/[23].[0-8].*/bin/python"))
    found = found or [shutil.which(name) for name in ("python2", "python3.6", "python3.7", "python3.8")]
    asked = [(path, subprocess.run([path, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], capture_output=True, text=True))
             for path in found if path]
    return {tuple(map(int, done.stdout.split("."))): path for path, done in asked if done.returncode == 0}


def test_a_python_that_is_too_old_says_which_is_needed():
    old = old_pythons()
    if not old:
        pytest.skip("no Python older than 3.9 here to try")
    readers = [version for version in old if version >= (3, 6)]  # from there on the sources can be read at all
    runs = [(version, script) for script in (BUILT, FETCH) for version in {min(old), max(old)}]
    runs += [(version, os.path.join(TOP, "p2pchat.py")) for version in readers and {min(readers), max(readers)}]
    for version, script in runs:
        done = subprocess.run([old[version], script, "ann"], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": ""}, timeout=PATIENCE)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), (version, script, done.stderr)
        assert done.stderr.startswith("p2pchat: Python 3.9 or newer is needed, and ") and "%d.%d" % version in done.stderr


def test_parsers_of_old_pythons_can_read_what_runs_first():
    with open(FETCH, encoding="utf-8") as file:
        for code in (MAIN, file.read()):
            assert "version_info" in code
            ast.parse(code, feature_version=(3, 4))


def test_pip_is_told_where_packages_come_from_and_nothing_else(tmp_path):
    """A stand-in for pip alone, so that every variable is seen as pip would see it."""
    (tmp_path / "pip.py").write_text(
        "import os, sys; at = sys.argv.index('--target'); os.makedirs(os.path.join(sys.argv[at + 1], 'x-1.dist-info'))\n"
        "open(os.environ['SEEN'], 'w').write(repr({name: os.environ[name] for name in os.environ if name[:4] == 'PIP_'}))")
    user = {f"PIP_{name}": "1" for name in ("USER", "REQUIRE_VIRTUALENV", "DRY_RUN", "NO_DEPS", "REQUIRE_HASHES", "TARGET", "PREFIX", "EDITABLE", "PYTHON")}
    kept = {"PIP_INDEX_URL": "http://localhost/simple", "PIP_PROXY": "http://localhost:1", "PIP_CONFIG_FILE": "/x"}
    done = subprocess.run(python(FETCH, "into", "x==1"), cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE,
                          env={**os.environ, **user, **kept, "PYTHONPATH": str(tmp_path), "SEEN": str(tmp_path / "seen")})
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "into" / "x-1.dist-info").is_dir()
    seen = ast.literal_eval((tmp_path / "seen").read_text())
    assert kept.items() <= seen.items() and not {"PIP_TARGET", "PIP_PREFIX", "PIP_EDITABLE", "PIP_PYTHON"} & seen.keys()
    assert {seen[name] for name in user if name in seen} == {"0"}


def test_a_python_without_pip_is_told_how_to_get_it(tmp_path):
    (tmp_path / "pip.py").write_text("import sys; sys.exit('No module named pip')")
    done = subprocess.run(python(FETCH, "into", "x==1"), cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE,
                          env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert done.returncode == 1 and f"p2pchat: {sys.executable} has no pip; install it: " in done.stderr
    assert not (tmp_path / "into").exists()
