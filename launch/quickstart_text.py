#!/usr/bin/env python3
"""Turns what Debian packages carry, or files of the user's, into sources of text for launch/quickstart.sh.

Writes OUT/NAME.train.jsonl and OUT/NAME.held-out.jsonl, one {"text": ...} per document, and prints a line per source.
Documents come in an order fixed by their contents, so that two machines with the same packages get the same files.
"""
import argparse
import hashlib
import gzip
import json
import pathlib
import re
import subprocess
import sys

HELD_OUT_SHARE = 16  # one document in this many is held out
PIECE_BYTES = 8192   # user's plain text is cut into documents of about this size, between paragraphs


def bible():
    """Chapters; the package's data file is compressed, its program prints it."""
    printed = subprocess.run(["bible", "gen1:1-rev22:21"], stdin=subprocess.DEVNULL, capture_output=True, check=True)
    return re.split(r"\n\n(?=[1-3A-Z][A-Za-z ]* \d+\n\n)", printed.stdout.decode("utf-8", "replace"))


def perl():
    """Manual pages of Perl as they are written (pod)."""
    for path in pathlib.Path("/usr/share/perl").glob("5*/pod/*.pod"):
        if not path.parent.parent.is_symlink():
            yield path.read_text("utf-8", "replace")


def foldoc():
    """Entries of the Free On-line Dictionary of Computing: headwords at the margin, text indented."""
    with gzip.open("/usr/share/dictd/foldoc.dict.dz", "rt", encoding="utf-8", errors="replace") as file:
        return re.split(r"\n\n(?=\S)", file.read())


def wordnet():
    """Entries of WordNet: "words: gloss"."""
    for part in ("noun", "verb", "adj", "adv"):
        for line in open(f"/usr/share/wordnet/data.{part}", encoding="utf-8"):
            if line.startswith(" ") or " | " not in line:
                continue  # the licence at the head of the file
            fields, gloss = line.split(" | ", 1)
            fields = fields.split(" ")
            words = [fields[4 + 2 * i].replace("_", " ") for i in range(int(fields[3], 16))]
            yield f"{', '.join(words)} ({part}): {gloss.strip()}"


def headers():
    """Headers of the Linux kernel's interface."""
    for folder in ("linux", "asm-generic", "drm", "rdma", "sound", "mtd", "scsi"):
        for path in pathlib.Path("/usr/include", folder).rglob("*.h"):
            yield path.read_text("utf-8", "replace")


PACKAGED = {"bible": bible, "perl": perl, "foldoc": foldoc, "wordnet": wordnet, "headers": headers}


def own_file(path):
    """A file of the user's: the texts of a .jsonl, else paragraphs put together into documents."""
    text = path.read_text("utf-8", "strict")
    if path.suffix == ".jsonl":
        for number, line in enumerate(text.splitlines(), 1):
            try:
                yield json.loads(line)["text"]
            except (ValueError, KeyError, TypeError):
                sys.exit(f'{path}:{number}: no JSON object with a "text"')
        return
    piece = ""
    for paragraph in re.split(r"(?<=\n\n)", text):
        piece += paragraph
        if len(piece) >= PIECE_BYTES:
            yield piece
            piece = ""
    if piece:
        yield piece


def write(out, name, documents, max_bytes):
    """Keeps documents up to max_bytes of text. Returns (documents, bytes) of the training part and of the held-out one."""
    keyed = {hashlib.blake2b(text.encode(), digest_size=8).digest(): text for text in documents if text.strip()}
    counts = {"train": [0, 0], "held-out": [0, 0]}
    files = {part: open(out / f"{name}.{part}.jsonl", "w", encoding="utf-8") for part in counts}
    total = 0
    for index, (_, text) in enumerate(sorted(keyed.items())):
        size = len(text.encode())
        if total + size > max_bytes:
            continue
        part = "held-out" if index % HELD_OUT_SHARE == 0 else "train"
        files[part].write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
        counts[part][0] += 1
        counts[part][1] += size
        total += size
    for file in files.values():
        file.close()
    return counts


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder to write to")
    parser.add_argument("--mib", type=float, default=2.0, help="most text per source (default: 2)")
    parser.add_argument("files", nargs="*", type=pathlib.Path, help="own .txt or .jsonl files instead of the packages'")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)

    sources = {re.sub(r"[^a-z0-9_]+", "_", path.stem.lower()): own_file(path) for path in arguments.files}
    if len(sources) != len(arguments.files):
        sys.exit("two files have the same name: each is a source by its name")
    for name, make in (sources or PACKAGED).items():
        try:
            documents = list(make() if callable(make) else make)
        except (OSError, UnicodeDecodeError, subprocess.CalledProcessError) as error:
            sys.exit(f"source {name}: {error}")
        counts = write(arguments.out, name, documents, int(arguments.mib * 2**20))
        for part, (number, _) in counts.items():
            if number == 0:
                sys.exit(f"source {name}: {len(documents)} documents leave none for the {part} part; more text is needed")
        (train, train_bytes), (held, held_bytes) = counts.values()
        print(f"{name:<10} {train:>6} documents {train_bytes / 2**20:6.2f} MiB to learn from, "
              f"{held:>5} documents {held_bytes / 2**20:5.2f} MiB held out")


if __name__ == "__main__":
    main()
