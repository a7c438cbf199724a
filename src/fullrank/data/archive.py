"""Archives read where they are: .zip and plain .tar at random, compressed tars in one pass into memory."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import stat
import tarfile
import weakref
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, BinaryIO

from fullrank.data.annotations import KINDS
from fullrank.data.captions import CAPTION_SUFFIXES
from fullrank.data.layout import is_image, suffix
from fullrank.data.memory import available_memory
from fullrank.errors import InputError

SUFFIXES = (".zip", ".tar", ".tar.xz", ".txz", ".tar.gz", ".tgz")
SAID = {*CAPTION_SUFFIXES, *KINDS, ".xml"}
"""Endings of files that say something about the pictures."""
MAX_FILE_BYTES = 1 << 30
"""No single picture is larger; what declares more is a decompression bomb."""
MAX_RATIO = 200
"""Pictures are compressed already: an archive that grows by more than this, and past 1 GiB, is a bomb."""

_in_use: weakref.WeakValueDictionary[tuple[Path, int, int], CompressedTar] = weakref.WeakValueDictionary()
"""Unpacked archives by path, time and size: another split of one needs no second pass."""

DAMAGE = (tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, EOFError, gzip.BadGzipFile)


def open_archive(path: Path) -> Zip | Tar | CompressedTar:
    """The archive at `path`, its names checked.  Raises `InputError` for damage, links and unsafe names."""
    try:
        if path.suffix in (".zip", ".tar"):
            return Zip(path) if path.suffix == ".zip" else Tar(path)
        key = (path, path.stat().st_mtime_ns, path.stat().st_size)
        found = _in_use.get(key)
        if found is None:
            found = _in_use[key] = CompressedTar(path)
        return found
    except DAMAGE as error:
        raise InputError(f"{path.name} is damaged or not a {''.join(path.suffixes[-2:])} archive: {error}") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error


class Zip:
    """A .zip; every process opens it for itself, because an open file's position is shared by forks."""

    def __init__(self, path: Path) -> None:
        self.label = path.name
        self._path = path
        self._reader: tuple[int, zipfile.ZipFile] | None = None
        self._members: dict[str, str] = {}
        for info in self._zip().infolist():
            if info.flag_bits & 1:
                raise InputError(f"{self.label} is encrypted; unpack it with its password first")
            if not info.is_dir():
                linked = stat.S_ISLNK(info.external_attr >> 16)
                self._members[_checked_path(self.label, info.filename, info.file_size, linked)] = info.filename
        self.paths: Sequence[str] = sorted(self._members)

    def open(self, path: str) -> BinaryIO:
        """A file's content."""
        info = self._zip().getinfo(self._members[path])
        with self._zip().open(info) as member:
            return io.BytesIO(member.read(info.file_size))  # bounded: it may hold more

    def _zip(self) -> zipfile.ZipFile:
        if self._reader is None or self._reader[0] != os.getpid():
            self._reader = (os.getpid(), zipfile.ZipFile(self._path))
        return self._reader[1]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_reader": None}


class Tar:
    """A plain .tar: the place of every file is noted once, then read directly."""

    def __init__(self, path: Path) -> None:
        self.label = path.name
        self._path = path
        self._descriptor: int | None = None
        with tarfile.open(path, "r:") as archive:
            self._places = {p: (m.offset_data, m.size) for p, m in _files(self.label, archive)}
        self.paths: Sequence[str] = sorted(self._places)

    def open(self, path: str) -> BinaryIO:
        """A file's content."""
        start, size = self._places[path]
        return io.BytesIO(os.pread(self._file(), size, start))  # needs no position: safe in threads and forks

    def _file(self) -> int:
        if self._descriptor is None:
            self._descriptor = os.open(self._path, os.O_RDONLY)
            weakref.finalize(self, os.close, self._descriptor)
        return self._descriptor

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_descriptor": None}


class CompressedTar:
    """A .tar.gz or .tar.xz, which has no random access: its pictures and what is said of them are kept in memory."""

    def __init__(self, path: Path) -> None:
        self.label = path.name
        self._content = bytearray()
        self._places: dict[str, tuple[int, int]] = {}
        limit = available_memory() // 2
        unpack: Any = lzma.open if path.suffix in (".xz", ".txz") else gzip.open
        with unpack(path) as stream, tarfile.open(fileobj=Metered(stream, path), mode="r|") as archive:  # type: ignore[call-overload]
            for path_inside, member in _files(self.label, archive):
                self._keep(archive, path_inside, member, limit)
        self.paths: Sequence[str] = sorted(self._places)

    def _keep(self, archive: tarfile.TarFile, path: str, member: tarfile.TarInfo, limit: int) -> None:
        start = len(self._content)
        if is_image(path) or suffix(path) in SAID:
            if start + member.size > limit:
                raise InputError(
                    f"the pictures of {self.label} take more than {limit >> 20:,} MiB, half of the free memory;"
                    f" unpack it, or repack it as .zip or plain .tar, which are read in place"
                )
            file = archive.extractfile(member)
            self._content += file.read() if file else b""
        self._places[path] = (start, len(self._content))

    def open(self, path: str) -> BinaryIO:
        """A file's content."""
        start, stop = self._places[path]
        return io.BytesIO(memoryview(self._content)[start:stop])


class Metered(io.RawIOBase):
    """An unpacked stream that stops a decompression bomb."""

    def __init__(self, stream: IO[bytes], path: Path) -> None:
        self._stream = stream
        self._name = path.name
        self._left = MAX_RATIO * path.stat().st_size + MAX_FILE_BYTES

    def read(self, size: int = -1) -> bytes:
        """As the stream's own; raises `InputError` once it has given too much."""
        data = self._stream.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise InputError(f"{self._name} grows more than {MAX_RATIO} times when unpacked: a decompression bomb?")
        return data


def _files(label: str, archive: Iterable[tarfile.TarInfo]) -> Iterator[tuple[str, tarfile.TarInfo]]:
    for member in archive:
        if not member.isdir():
            odd = not member.isreg() or member.issparse()
            yield _checked_path(label, member.name, member.size, odd), member


def _checked_path(label: str, name: str, size: int, linked: bool) -> str:
    """The path with forward slashes.  Refuses what no data set needs and what attacks are made of."""
    path = name.replace("\\", "/")
    parts = path.split("/")
    advice = "; repack the archive from plain files with relative names"
    if ".." in parts or parts[0] == "" or parts[0].endswith(":"):
        raise InputError(f"{label} holds the unsafe name '{name}'{advice}")
    if linked:
        raise InputError(f"{label} holds '{name}', which is a link or a device{advice}")
    if size > MAX_FILE_BYTES and is_image(path):
        raise InputError(f"{label} holds '{name}' of {size >> 30} GiB: a decompression bomb?{advice}")
    return path.removeprefix("./")
