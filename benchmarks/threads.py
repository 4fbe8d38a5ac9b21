"""How much faster 2 threads are than 1, for steps and inference of the cpp backend; they take turns.

python benchmarks/threads.py        writes benchmarks/results/threads.json
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from nets import NETS
from paired import machine, save, time_in_turn
from rows import inference, training_step


def with_threads(count: int, call: Callable[[], Any]) -> Callable[[], Any]:
    def run() -> Any:
        torch.set_num_threads(count)  # cpp uses torch's threads; this call takes hardly any time
        return call()

    return run


def main() -> None:
    result: dict[str, Any] = {"machine": machine(2), "1 thread / 2 threads": {}}
    for name, net in NETS.items():
        for phase, make in (("training", training_step), ("inference", inference)):
            call = make("minicnn cpp", name, net.batches[0])
            times = time_in_turn({"one": with_threads(1, call), "two": with_threads(2, call)})
            key = f"{name}, batch {net.batches[0]}, {phase}"
            result["1 thread / 2 threads"][key] = round(times["one"] / times["two"], 2)
            print(key, result["1 thread / 2 threads"][key], flush=True)
    save("threads", result)


if __name__ == "__main__":
    main()
