"""Prints docstrings and comments drawn at random, to be read without the code.

    python -m tests.sampled_prose --seed 1 --docstrings 20 --comments 10

Who reads them notes how many are understood at once; 27 of 30 is the aim.
"""

import argparse
import ast
import io
import pathlib
import random
import tokenize

PACKAGE = pathlib.Path(__file__).parents[1] / "tlkit"


def docstrings(path):
    """Yields (name, docstring) of a module, its classes and its functions."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    for node in ast.walk(ast.parse(path.read_text())):
        text = ast.get_docstring(node) if isinstance(node, kinds) else None
        if text:
            yield getattr(node, "name", "module"), text


def comments(path):
    """Yields (line, text) of the comments of a file, adjacent lines as one."""
    found, last = [], -1
    for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline):
        if token.type == tokenize.COMMENT and "===" not in token.string:
            line, text = token.start[0], token.string.lstrip("# ")
            if found and line == last + 1:
                found[-1] = (found[-1][0], f"{found[-1][1]} {text}")
            else:
                found.append((line, text))
            last = line
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--docstrings", type=int, default=20)
    parser.add_argument("--comments", type=int, default=10)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    for collect, count in (
        (docstrings, options.docstrings),
        (comments, options.comments),
    ):
        every = [
            (p, *rest) for p in sorted(PACKAGE.rglob("*.py")) for rest in collect(p)
        ]
        for path, where, text in draw.sample(every, count):
            print(f"--- {path.relative_to(PACKAGE.parent)}: {where}\n{text}\n")


if __name__ == "__main__":
    main()
