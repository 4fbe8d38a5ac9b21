"""The generated sections of docs/lockstep.md and docs/reliability.md, from the results of their scripts."""

from __future__ import annotations

from results import Result, table, where

BACKENDS = ("numpy", "cpp", "cuda", "control")
READERS = {
    "IDX": "IDX, gzipped or not", "image": "image: PNG, JPEG, GIF, BMP, TIFF, PPM, WebP",
    "image folder": "folder of images", "weights": "`--init-from`: safetensors, torch's two formats",
    "CIFAR": "CIFAR, behind its checksum", "SVHN": "SVHN, behind its checksum",
    "predict": "`predict`", "evaluate": "`evaluate`", "resume": "`train --resume`",
    "archive": "`--init-from`: a member of torch's archive", "IDX pair": "IDX: images and labels",
    "special file": "FIFO, device, folder, loop of links, sparse file",
}  # fmt: skip
"""The names of readers in the results and on the page, where the two differ."""


def lockstep_bounds(result: Result) -> str:
    """The greatest distance of the weights from the reference, over all steps in float64."""
    rows = [["", "steps", *BACKENDS, "bound"]]
    for name, net in result["nets"].items():
        sides = net["float64"]["sides"]
        steps, emulated = sides["cpp"]["steps"], sides["cuda"]["steps"]
        rows.append([
            name, str(steps) if emulated == steps else f"{steps} (cuda: {emulated})",
            *(f"{sides[side]['worst weights']:.1e}" for side in BACKENDS), f"{net['bound']:.0e}",
        ])  # fmt: skip
    return f"{table(rows)}\n\n`scripts/lockstep.py` on {where(result)}."


def lockstep_choices(result: Result) -> str:
    """How many choices of ReLUs and max-pools differ between float32 and float64 in PyTorch."""
    nets = {name: net["float32"] for name, net in result["nets"].items()}
    steps = [s for s in next(iter(nets.values()))["sides"]["torch"]["choices that differ"] if int(s) <= 50]
    rows = [["step", *steps, "of"]]
    for name, net in nets.items():
        differing = net["sides"]["torch"]["choices that differ"]
        total = net["choices a step: ReLUs, max-pools"]
        rows.append([name, *(f"{differing[step]:,}" for step in steps), f"{total:,}"])
    return table(rows)


def lockstep_bfloat16(result: Result) -> str:
    """How far bfloat16 is from the reference after a few steps, and autocast beside it."""
    if any("bfloat16" not in net for net in result["nets"].values()):
        return "Not measured yet."
    sides = ("numpy", "cpp", "cuda", "torch", "control")
    rows = [["", "step", "numpy", "cpp", "cuda", "PyTorch's autocast", "control"]]
    for name, net in result["nets"].items():
        weights = [net["bfloat16"]["sides"][side]["weights"] for side in sides]
        for step in weights[0]:
            rows.append([name, step, *(f"{w[step]:.1e}" if step in w else "" for w in weights)])
    return table(rows, left=2)


def kill_resume(result: Result) -> str:
    """When runs were killed, and how they ended."""
    killed = result["killed"]

    def kills(moment: str) -> int:
        """How many kills the results describe with these words."""
        return sum(count for description, count in killed.items() if moment in description)

    return (
        f"**{result['trials']} runs, {result['kills']} kills: {kills('in training')} in training, "
        f"{kills('in the report')} in the report, {kills('before the first checkpoint')} before the first "
        f"checkpoint; {kills('while a file was written')} of them while a file was being written. "
        f"{result['same end, bit for bit']} ended as the undisturbed run did, bit for bit** "
        f"(`scripts/kill_resume.py`, on {where(result)})."
    )


def kill_workers(result: Result) -> str:
    """How many runs of several processes were killed, and how they ended."""
    return (
        f"**{result['trials']} runs, {result['kills']} kills: {result['same end, bit for bit']} ended as "
        "an undisturbed single process did, bit for bit** "
        f"(`scripts/kill_workers.py`, on {where(result)})."
    )


def fail_resume(result: Result) -> str:
    """Which calls failed, how the runs with them ended, and whether the resumed ones ended alike."""
    ended = ", ".join(f"{how}: {count}" for how, count in result["ended"].items())
    return (
        f"**In {result['trials']} runs a call failed. Once resumed, {result['same end, bit for bit']} "
        f"ended as the undisturbed run did, bit for bit.** How the processes with the failure ended: "
        f"{ended} (`scripts/fail_resume.py`, on {where(result)})."
    )


def fuzz(result: Result) -> str:
    """What each reader did with damaged files."""
    columns = ["inputs", "read", "refused", "failures"]
    rows = [["reader", *columns]]
    for name, reader in result["readers"].items():
        rows.append([READERS.get(name, name), *(f"{reader[column]:,}" for column in columns)])
    return (
        f"{table(rows)}\n\n{result['inputs']:,} inputs in all, {result['failures']} failures "
        f"(`scripts/fuzz_readers.py`, on {where(result)})."
    )


def two_hosts(result: Result) -> str:
    """How the runs over a lossy link and over a broken one ended."""
    lossy, broken = result["lossy"], result["broken"]
    same = not lossy["differences"] and not lossy["errors"]
    end = "ended as a single process did, bit for bit" if same else "went wrong"
    return (
        f"**{lossy['packets']:,} packets, each {1e3 * lossy['delay']:g} ms on its way, and "
        f"{lossy['lost']:,} of them lost: the run {end}.** With `--peer-timeout {result['peer_timeout']}`, "
        f"{broken['seconds']:.0f} s after nothing passed any more, rank 0 ended with "
        f"`{' '.join(broken['errors'])}` (`scripts/two_hosts.py`, on {where(result)})."
    )
