"""Run the benchmarks and print their numbers."""

import argparse
import importlib
import json
import pkgutil
import subprocess
import sys

import benchmarks

# They take minutes, or write pictures into the documentation.
ONLY_WHEN_NAMED = {
    "collisions",
    "compact",
    "curves",
    "curves_export",
    "lake_rivals",
    "memory_export",
    "servers",
    "soak",
}


def main() -> None:
    """Run those that are named, or all."""
    names = sorted(
        module.name for module in pkgutil.iter_modules(benchmarks.__path__) if module.name[0] != "_"
    )
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=benchmarks.__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"one of {', '.join(names)}; default all but {', '.join(sorted(ONLY_WHEN_NAMED))}",
    )
    parser.add_argument("--json", action="store_true", help="print one line of JSON per benchmark")
    parser.add_argument("--minutes", type=float, help="how long soak lasts; default 10")
    parser.add_argument("--seed", type=int, help="where soak's chance begins; default 0")
    parser.add_argument("--store", help="the store that soak writes to; default timestream")
    arguments = parser.parse_args()
    for unknown in set(arguments.names) - set(names):
        parser.error(f"there is no benchmark {unknown!r}, only {', '.join(names)}")
    given = {"minutes": arguments.minutes, "seed": arguments.seed, "store": arguments.store}
    given = {name: value for name, value in given.items() if value is not None}
    if given and arguments.names != ["soak"]:
        parser.error("only soak takes --minutes, --seed and --store: python -m benchmarks soak --minutes 10")
    chosen = arguments.names or [name for name in names if name not in ONLY_WHEN_NAMED]
    if len(chosen) > 1:  # a process for each: what one imports or warms up does not change another
        for name in chosen:
            options = ["--json"] if arguments.json else []
            subprocess.run([sys.executable, "-m", "benchmarks", name, *options], check=True)
        return
    numbers: dict[str, float] = importlib.import_module(f"benchmarks.{chosen[0]}").run(**given)
    if arguments.json:
        print(json.dumps(numbers))
    else:
        print(chosen[0])
        for label, number in numbers.items():
            print(f"  {label:<32}{number:>16,.3f}")
    if numbers.get("wrong"):
        sys.exit(1)


if __name__ == "__main__":
    main()
