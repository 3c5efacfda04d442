"""The whole bench: mock, systems and cells, started, measured and ended."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from loadtests.overhead import own
from loadtests.overhead.bench import CLoad, Load, Results, take_turns
from loadtests.overhead.cells import BESIDE, CELLS, Cell
from loadtests.overhead.processes import CannotBench, Cores, free_port
from loadtests.overhead.systems import CONTROL, DIRECT, System, has_nginx, hotswap, nginx
from loadtests.overhead.yardstick import MODEL, Yardstick


def overhead(
    folder: Path,
    *,
    tools: Path | None,
    rounds: int,
    cells: Sequence[str] = (),
    against: Sequence[System] = (),
    control: bool = True,
    engine_port: int | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> Results:
    """Direct, Hotswap, nginx as a control where it is installed, and `against`, by turns.

    With `tools` the load and the engine are the yardstick's in C, else our own. `cells` names some of them
    (none: all). An `against` must stand before the engine on `engine_port`. Raises `CannotBench`.
    """
    cores = Cores.choose()
    load, known = _load(tools, folder, cores)
    unknown = set(cells) - {cell.name for cell in known}
    if unknown:
        raise CannotBench(f"no cell {sorted(unknown)[0]!r}; there are {', '.join(c.name for c in known)}")
    chosen = [cell for cell in known if not cells or cell.name in cells]
    with ExitStack() as stack:
        engine = engine_port or free_port()
        stack.enter_context(load.mock(engine))
        systems = [System(DIRECT, engine, MODEL), stack.enter_context(hotswap(engine, MODEL, folder, cores))]
        if control and has_nginx():
            systems.append(stack.enter_context(nginx(engine, MODEL, folder, cores)))
        elif control:
            tell(f"{CONTROL} is not installed: no control for the speed of this machine")
        return take_turns(load, engine, [*systems, *against], chosen, rounds, tell)


def two_workers(folder: Path, *, tools: Path, rounds: int, tell: Callable[[str], None]) -> list[float] | None:
    """In every round: two workers' requests/s over one worker's. None on a machine that cannot tell.

    Three cores are needed: one for the load and one for each worker.
    """
    if len(os.sched_getaffinity(0)) < 3:
        return None
    results = []
    for workers in (1, 2):
        place = folder / f"workers-{workers}"
        place.mkdir(parents=True, exist_ok=True)
        cores = Cores.choose(workers)
        load = CLoad(Yardstick(tools, place, cores))
        with ExitStack() as stack:
            engine = free_port()
            stack.enter_context(load.mock(engine))
            ours = stack.enter_context(hotswap(engine, MODEL, place, cores, workers))
            saturation = [cell for cell in CELLS if cell.name == "saturation"]
            results.append(take_turns(load, engine, [ours], saturation, rounds, tell))
    one, two = (each.values("hotswap", "saturation", "per_s") for each in results)
    return [more / less for less, more in zip(one, two, strict=True)]


def _load(tools: Path | None, folder: Path, cores: Cores) -> tuple[Load, Sequence[Cell]]:
    if tools is None:
        return own.OwnLoad(MODEL, folder, cores), own.CELLS
    return CLoad(Yardstick(tools, folder, cores)), (*CELLS, BESIDE)
