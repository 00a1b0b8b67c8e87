"""What the documents tell a reader to open or to type exists: links, make targets, and every command's options."""

import itertools
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

import bundle
import compare
import stream
from tests.configs import ROOT, compose_config

DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)|<img[^>]*\bsrc=\"([^\"]+)\"")
FENCED = re.compile(r"^```[a-z]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`((?:python3? [a-z_]+\.py|make [a-z-]+)[^`]*)`")
PLACEHOLDER = re.compile(r"<[^<>]+>")


def anchors_of(document: Path) -> set[str]:
    """Anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", document.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands_of(document: Path) -> Iterator[list[str]]:
    """Commands of a document without comments and placeholders, split as a shell would."""
    text = document.read_text()
    blocks = [block.replace("\\\n", " ") for block in FENCED.findall(text)]
    for line in (*itertools.chain(*(block.splitlines() for block in blocks)), *INLINE.findall(text)):
        if not re.search(r"\bpython3? \w+\.py|\bmake ", line):
            continue
        words = shlex.split(PLACEHOLDER.sub("0123", line), comments=True)
        for connected, command in itertools.groupby(words, lambda word: word == "&&"):
            found = list(command)
            if not connected and re.match(r"python3? \w+\.py|make ", " ".join(found)):
                yield found


COMMANDS = sorted({tuple(words) for document in DOCUMENTS for words in commands_of(document)})


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    for link in itertools.chain(*LINK.findall(document.read_text())):
        if not link or re.match(r"https?://", link):
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), f"{document.name}: {link} leads nowhere"
        assert not anchor or anchor in anchors_of(target), f"{document.name}: {link}: no such heading"


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_commands_can_be_typed(words: tuple[str, ...]) -> None:
    if words[0] == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert {word for word in words[1:] if "=" not in word} <= set(targets)
        return
    script, arguments = words[1], list(words[2:])
    assert (ROOT / script).is_file() or script == "run_on_device.py"
    if script in READERS:
        READERS[script](arguments)


def read_training(arguments: list[str]) -> None:
    """Compose jobs of a command, so many that each value of a sweep has its turn."""
    if any(argument in ("--help", "--info") for argument in arguments):
        return
    parsed = OverridesParser.create().parse_overrides([word for word in arguments if word != "-m"])
    choices = []
    for override in parsed:
        if override.is_sweep_override():
            assert "-m" in arguments, f"{override.input_line} needs -m"
            choices.append([f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()])
        else:
            choices.append([str(override.input_line)])
    for turn in range(max(map(len, choices), default=0)):
        OmegaConf.resolve(compose_config(*(values[turn % len(values)] for values in choices)))


def read_bundle(arguments: list[str]) -> None:
    assert arguments[0] in bundle.COMMANDS


READERS: dict[str, Callable[[list[str]], object]] = {
    "train.py": read_training,
    "stream.py": stream.parse_options,
    "bundle.py": read_bundle,
    "compare.py": compare.parse_arguments,
}


def test_documents_name_commands() -> None:
    assert {words[1] for words in COMMANDS if words[0] != "make"} >= set(READERS)


@pytest.mark.parametrize("paper", sorted((ROOT / "papers").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_table_of_a_paper_stands_in_its_page(paper: Path) -> None:
    commands = [" ".join(words) for words in commands_of(ROOT / "docs" / "papers" / f"{paper.stem}.md")]
    for table in OmegaConf.load(paper).tables:
        assert f"python train.py table={table}" in commands
