import os
import resource
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from stapes._files import atomic_write


def leftovers(folder):
    return [p.name for p in folder.iterdir() if p.name.endswith(".tmp")]


def test_new_and_replaced(tmp_path):
    path = tmp_path / "a [1]*.bin"
    for text in (b"one", b"three"):
        with atomic_write(path) as file:
            file.write(text)
        assert path.read_bytes() == text
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask


def test_an_error_in_the_block_leaves_the_old_file(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with pytest.raises(KeyError), atomic_write(path) as file:
        file.write(b"new")
        raise KeyError("x")
    assert path.read_bytes() == b"old"
    assert leftovers(tmp_path) == []


def test_a_link_is_followed(tmp_path):
    (tmp_path / "sub").mkdir()
    real, link = tmp_path / "sub" / "real", tmp_path / "link"
    real.write_bytes(b"old")
    link.symlink_to(real)
    with atomic_write(link) as file:
        file.write(b"new")
    assert link.is_symlink()
    assert real.read_bytes() == b"new"


def test_errors_name_the_path(tmp_path):
    with (
        pytest.raises(FileNotFoundError, match=r"no_folder/a"),
        atomic_write(tmp_path / "no_folder" / "a"),
    ):
        pass
    with pytest.raises(IsADirectoryError, match=r"is a folder.*sub"):
        (tmp_path / "sub").mkdir()
        with atomic_write(tmp_path / "sub"):
            pass


def test_a_device_is_written_to_as_it_is():
    with (
        pytest.raises(OSError, match=r"No space left on device.*/dev/full"),
        atomic_write("/dev/full") as file,
    ):
        file.write(b"x")
    assert Path("/dev/full").is_char_device()


def test_a_full_disk_leaves_the_old_file(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    code = """
        import resource, sys
        from stapes._files import atomic_write
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
        with atomic_write(sys.argv[1]) as file:
            file.write(bytes(1_000_000))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(path)], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "File too large (what was there before is unchanged)" in done.stderr
    assert path.read_bytes() == b"old"
    assert leftovers(tmp_path) == []
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 100_000


def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    code = """
        import os, signal, sys
        from stapes._files import atomic_write
        with atomic_write(sys.argv[1]) as file:
            file.write(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code), str(path)])
    assert path.read_bytes() == b"old"
    assert len(leftovers(tmp_path)) == 1
    with atomic_write(path) as outer:
        outer.write(b"outer")
        with atomic_write(path) as inner:  # a living writer's file stays
            inner.write(b"inner")
    assert path.read_bytes() == b"outer"
    assert leftovers(tmp_path) == []
