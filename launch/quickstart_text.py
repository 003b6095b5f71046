#!/usr/bin/env python3
"""Turns what Debian packages carry, or files of the user's, into sources of text for launch/quickstart.sh.

Writes OUT/NAME.jsonl, one {"text": ...} per document, and OUT/prompt.txt, the beginning of one of them; prints a line per
source.
Documents come in an order fixed by their contents, so that two machines with the same packages get the same files.
"""
import argparse
import gzip
import hashlib
import json
import pathlib
import re
import subprocess
import sys

PIECE_BYTES = 4096  # plain text of the user's is cut into documents of about this size, between paragraphs

PROMPT_CHARS = 240
MIN_DOCUMENTS = 40  # so that one in sixteen leaves some, whichever the seed chooses


def bible():
    """Chapters; the package's data file is compressed, its program prints it."""
    printed = subprocess.run(["bible", "gen1:1-rev22:21"], stdin=subprocess.DEVNULL, capture_output=True, check=True)
    return re.split(r"\n\n(?=[1-3A-Z][A-Za-z ]* \d+\n\n)", printed.stdout.decode("utf-8", "replace"))


def perl():
    """Chapters of Perl's manual pages, as they are written (pod)."""
    for path in pathlib.Path("/usr/share/perl").glob("5*/pod/*.pod"):
        if not path.parent.parent.is_symlink():
            yield from re.split(r"\n(?==head1 )", path.read_text("utf-8", "replace"))


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
    with open(path, encoding="utf-8") as file:
        if path.suffix == ".jsonl":
            for number, line in enumerate(file, 1):
                try:
                    yield json.loads(line)["text"]
                except (ValueError, KeyError, TypeError):
                    sys.exit(f'{path}:{number}: no JSON object with a "text"')
            return
        piece = ""
        for line in file:
            piece += line
            if len(piece) >= PIECE_BYTES and (line.isspace() or len(piece) >= 4 * PIECE_BYTES):
                yield piece
                piece = ""
        yield piece


def first_of(documents, max_bytes):
    """Documents until they are enough to choose from, so that a huge file is not read whole."""
    read = 0
    for text in documents:
        if text.strip():
            read += len(text)
            yield text
        if read > 16 * max_bytes:
            return


def write(path, documents, max_bytes):
    """Keeps up to max_bytes of text, chosen and ordered by hash. Returns (texts, bytes)."""
    keyed = {hashlib.blake2b(text.encode(), digest_size=8).digest(): text for text in first_of(documents, max_bytes)}
    kept, total = [], 0
    with open(path, "w", encoding="utf-8") as file:
        for _, text in sorted(keyed.items()):
            size = len(text.encode())
            if total + size <= max_bytes:
                file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
                kept.append(text)
                total += size
    return kept, total


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
    prompt = ""
    for name, make in (sources or PACKAGED).items():
        try:
            kept, size = write(arguments.out / f"{name}.jsonl", make() if callable(make) else make,
                               int(arguments.mib * 2**20))
        except (OSError, UnicodeDecodeError, subprocess.CalledProcessError) as error:
            sys.exit(f"source {name}: {error}")
        if len(kept) < MIN_DOCUMENTS:
            sys.exit(f"source {name}: {len(kept)} documents are too few to hold some of them out; at least {MIN_DOCUMENTS} "
                     f"({MIN_DOCUMENTS * PIECE_BYTES // 1024} KiB of plain text) are needed")
        print(f"  {name:<12} {len(kept):>6} documents, {size / 2**20:5.2f} MiB")
        prompt = prompt or max(kept[:20], key=lambda text: len(text[:PROMPT_CHARS]))[:PROMPT_CHARS].rsplit(" ", 1)[0]
    (arguments.out / "prompt.txt").write_text(prompt, "utf-8")


if __name__ == "__main__":
    main()
