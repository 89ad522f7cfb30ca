"""Tar shards (WebDataset's layout) as files that can be read at random.

A shard is read through once, header by header, which tells where each member's bytes lie; from
then on a member is a :class:`.storage.Part`, opened without the members before it. Nothing is ever
extracted, so that a member's name cannot point anywhere.
"""

from __future__ import annotations

import os
import re
import tarfile
from typing import BinaryIO, NamedTuple

from .storage import Part, open_binary, suffix

_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


class Shard(NamedTuple):
    """What one shard holds.

    Attributes:
        members: addresses of the members with one of the extensions asked for, in their order.
        ignored: addresses of the others. cut: member -> reason, for those that the end of the
        file cuts off. fault: why the shard could not be read to its end, or "".
    """

    members: list[str]
    ignored: list[str]
    cut: dict[str, str]
    fault: str = ""


def is_shard(address: str) -> bool:
    """Whether the name says that this is a tar file (compressed ones too, to be refused)."""
    return suffix(address) in (".tar", ".tgz") or ".tar." in address.rsplit("/", 1)[-1]


def expand_braces(pattern: str) -> list[str]:
    """``shard-{000..127}.tar`` as the 128 names that it stands for; any other text as it is."""
    found = _RANGE.search(pattern)
    if found is None:
        return [pattern]
    low, high = found.groups()
    numbers = [str(number).zfill(len(low)) for number in range(int(low), int(high) + 1)]
    head, tail = pattern[: found.start()], pattern[found.end() :]
    return [head + number + rest for number in numbers for rest in expand_braces(tail)]


def read_shard(address: str, extensions: tuple[str, ...]) -> Shard:
    """Find the members of the tar file at ``address``. Never raises for a damaged one: what comes
    before the damage is usable, and ``fault`` tells the rest."""
    members, ignored, cut = [], [], {}
    try:
        with open_binary(address) as file:
            length = file.seek(0, os.SEEK_END)
            file.seek(0)
            if length == 0:
                return Shard([], [], {}, "the shard is empty (0 bytes)")
            with tarfile.open(fileobj=file, mode="r:", errors="surrogateescape") as archive:
                for member in archive:
                    if not member.isreg() or member.sparse is not None:
                        continue
                    part = Part(address, member.offset_data, member.size, member.name)
                    if suffix(member.name) not in extensions:
                        ignored.append(part.address)
                    elif part.offset + part.bytes > length:
                        there = max(0, length - part.offset)
                        cut[part.address] = _CUT.format(there, part.bytes)
                    else:
                        members.append(part.address)
                fault = _end_fault(file, archive.offset)
    except FileNotFoundError:
        return Shard([], [], {}, "no such file")
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        return Shard(members, ignored, cut, _why(address, error, bool(members or cut)))
    return Shard(members, ignored, cut, fault)


def _end_fault(file: BinaryIO, offset: int) -> str:
    """What is wrong where reading stopped: a whole shard has a block of zeros there."""
    file.seek(offset)
    block = file.read(tarfile.BLOCKSIZE)
    if not block:
        return "the shard lacks its end mark: members may be missing"
    if len(block) < tarfile.BLOCKSIZE or any(block):
        return f"the shard ends early or is damaged at byte {offset}: members may be missing"
    return ""


_CUT = "the shard ends inside it: {} of {} bytes are there"


def _why(address: str, error: Exception, begun: bool) -> str:
    if begun:
        return f"the shard ends early or is damaged: {error}"
    if not address.endswith(".tar"):
        return "a compressed shard cannot be read at random: unpack it to a plain .tar"
    return f"not a tar file: {error}"
