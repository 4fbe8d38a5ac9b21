"""Writers of the same images as tables, NumPy's archives, tar files and Parquet."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

NAMES = ("ant", "bee")


def pixels(files: list[tuple[Path, int]]) -> np.ndarray:
    return np.stack([np.asarray(Image.open(path)) for path, _ in files])


def labels(files: list[tuple[Path, int]]) -> np.ndarray:
    return np.array([label for _, label in files])


def as_csv(files: list[tuple[Path, int]], out: Path) -> str:
    rows = [f'"{path}";{NAMES[label]}' for path, label in files]
    (out / "t.csv").write_text("\ufefffile;Label\n" + "\n".join(rows) + "\n\n")
    return f"csv:{out / 't.csv'}"


def as_npz(files: list[tuple[Path, int]], out: Path) -> str:
    np.savez(out / "a.npz", x=pixels(files), y=labels(files)[:, None], class_names=list(NAMES))
    return f"npz:{out / 'a.npz'}"


def as_small_npz(files: list[tuple[Path, int]], out: Path) -> str:
    texts = np.array([NAMES[label] for label in labels(files)])
    np.savez_compressed(out / "b.npz", images=pixels(files).transpose(0, 3, 1, 2), labels=texts)
    return f"npz:{out / 'b.npz'}"


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def as_tars(files: list[tuple[Path, int]], out: Path) -> str:
    for shard in range(3):
        with tarfile.open(out / f"s-{shard:02}.tar", "w") as archive:
            for path, label in files[shard::3]:
                add(archive, f"./{path.name}", path.read_bytes())
                add(archive, f"./{path.stem}.cls", NAMES[label].encode())
                add(archive, f"./{path.stem}.json", b"{}")
    return f"tar:{out}/s-{{00..02}}.tar"


def as_parquet(files: list[tuple[Path, int]], out: Path) -> str:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = [{"bytes": path.read_bytes(), "path": path.name} for path, _ in files]
    table = pa.table({"image": pa.array(images, kind), "label": pa.array(labels(files))})
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": list(NAMES)}}
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, out / "p.parquet", row_group_size=5)
    return f"parquet:{out}/*.parquet"


WRITERS: list[Callable[[list[tuple[Path, int]], Path], str]] = [
    as_csv, as_npz, as_small_npz, as_tars, as_parquet,
]  # fmt: skip
