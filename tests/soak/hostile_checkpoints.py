# Copyright (c) 2026, The nemo_speechllm authors.  All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""Checkpoints that somebody made to harm whoever loads them: each is restored in a process of its own, with limits.

    python -m tests.soak hostile_checkpoints

`forgeries_of` forges them from a good one; ``tests/checkpointing/test_hostile_checkpoints.py`` tries one of
each kind in the suite.
"""

import gzip
import io
import json
import os
import pickle
import resource
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from tqdm import tqdm

from tests.soak.workers import tried

SECONDS, BYTES = 60, 4 * 2**30  # of one restore, beyond what the process takes before it
SECRET = "the-victim-s-secret"
CONFIG, WEIGHTS = "model_config.yaml", "model_weights.ckpt"
ENCODER = ("perception", "encoder")


@dataclass
class Good:
    """A whole checkpoint, in pieces.

    Attributes:
        members: name → content, config and weights first.
        marker: a file that a forgery tries to make.
        secret: a file of the victim's that a forgery tries to read.
    """

    members: dict[str, bytes]
    marker: Path
    secret: Path

    @classmethod
    def of(cls, path: Path, folder: Path) -> "Good":
        """Of a real ``.nemo``; ``folder`` is the victim's."""
        with tarfile.open(path) as archive:
            members = {Path(m.name).name: archive.extractfile(m).read() for m in archive if m.isreg()}
        (folder / "secret.txt").write_text(SECRET)
        return cls(members, folder / "marker", folder / "secret.txt")

    @property
    def config(self) -> dict:
        """Parsed anew, to be changed."""
        return yaml.safe_load(self.members[CONFIG])

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        """Loaded anew, to be changed."""
        return torch.load(io.BytesIO(self.members[WEIGHTS]), weights_only=True)


@dataclass
class Forgery:
    """One hostile checkpoint.

    Attributes:
        kind: what is wrong with it.
        name: unique.
        write: makes the file.
        inert: it may be restored, for what is hostile in it is never read.
    """

    kind: str
    name: str
    write: Callable[[Path], None]
    inert: bool = False


# writing -------------------------------------------------------------------------------------------------------------


def tar_of(members: list[tuple[tarfile.TarInfo, bytes]], **options: Any) -> bytes:
    """A tar archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", **options) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content) if info.isreg() else None)
    return buffer.getvalue()


def entry(name: str, content: bytes = b"", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    """A member; ``fields`` are a TarInfo's."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, content


def entries(members: dict[str, bytes]) -> list[tuple[tarfile.TarInfo, bytes]]:
    """Members as NeMo writes them."""
    return [entry(f"./{name}", content) for name, content in members.items()]


def changed(tree: dict, path: tuple[str, ...], value: Any) -> dict:
    """The tree with a value put at a path."""
    node = tree
    for key in path[:-1]:
        if not isinstance(node.get(key), dict):
            node[key] = {}
        node = node[key]
    node[path[-1]] = value
    return tree


def saved(state: Any, **options: Any) -> bytes:
    """What ``torch.save`` writes."""
    buffer = io.BytesIO()
    torch.save(state, buffer, **options)
    return buffer.getvalue()


class Payload:
    """Runs a call when it is unpickled in full."""

    def __init__(self, function: Callable, *arguments: Any):
        self.call = function, arguments

    def __reduce__(self) -> tuple:
        return self.call


# kinds ---------------------------------------------------------------------------------------------------------------


def forgeries_of(good: Good, kind: str) -> Iterator[Forgery]:
    """All of one of `KINDS`."""
    for name, made, *inert in KINDS[kind](good):
        write = made if callable(made) else lambda path, content=made: path.write_bytes(content)
        yield Forgery(kind, f"{kind}: {name}", write, bool(inert))


def _with(good: Good, **members: bytes) -> bytes:
    return tar_of(entries(good.members | {name.replace("__", "."): content for name, content in members.items()}))


def _of_config(good: Good, config: dict) -> bytes:
    return tar_of(entries(good.members | {CONFIG: yaml.safe_dump(config, sort_keys=False).encode()}))


def _of_config_text(good: Good, text: str | bytes) -> bytes:
    return tar_of(entries(good.members | {CONFIG: text if isinstance(text, bytes) else text.encode()}))


def _of_weights(good: Good, weights: bytes) -> bytes:
    return tar_of(entries(good.members | {WEIGHTS: weights}))


def _changes(good: Good, *changes: tuple) -> Iterator[tuple]:
    """A checkpoint for each (path, value) put into its config."""
    for path, value, *inert in changes:
        yield f"{'.'.join(path)}={str(value)[:40]!r}", _of_config(good, changed(good.config, path, value)), *inert


def _members(good: Good) -> Iterator[tuple]:
    real = entries(good.members)
    links = [
        ("symbolic link to a secret", entry("./link", type=tarfile.SYMTYPE, linkname=str(good.secret))),
        ("hard link to a secret", entry("./link", type=tarfile.LNKTYPE, linkname=str(good.secret))),
        ("link upwards", entry("./link", type=tarfile.SYMTYPE, linkname="..")),
        ("absolute name", entry(str(good.marker), b"x")),
        ("name upwards", entry("../../marker", b"x")),
        ("name in a folder", entry("folder/file", b"x")),
        ("backslashes", entry("..\\marker", b"x")),
        ("folder", entry("folder", type=tarfile.DIRTYPE)),
        ("pipe", entry("pipe", type=tarfile.FIFOTYPE)),
        ("device", entry("zero", type=tarfile.CHRTYPE, devmajor=1, devminor=5)),
        ("a second config", entry(f"./{CONFIG}", b"a: 1")),
        ("the config through a link", entry(f"./{CONFIG}", type=tarfile.SYMTYPE, linkname=str(good.secret))),
    ]
    for name, extra in links:
        yield name, tar_of([extra, *real])
    yield "over 100 members", tar_of([*(entry(f"./{n}", b"x") for n in range(150)), *real])
    yield "100 000 members", tar_of([entry(f"./{n}") for n in range(100_000)])
    for name in (CONFIG, WEIGHTS):
        yield f"no {name}", tar_of(entries({k: v for k, v in good.members.items() if k != name}))


def _bombs(good: Good) -> Iterator[tuple]:
    def zipped(*members: tuple[str, int]) -> Callable[[Path], None]:
        def write(path: Path) -> None:
            with gzip.open(path, "wb", compresslevel=9) as stream, tarfile.open(fileobj=stream, mode="w|") as archive:
                for name, size in members:
                    info, _ = entry(name)
                    info.size = size
                    archive.addfile(info, _Zeros(size))

        return write

    yield "a gzipped quarter of a gigabyte", zipped(("./zeros", 2**28))
    yield "a gzipped config of a quarter of a gigabyte", zipped((f"./{CONFIG}", 2**28))
    yield "many gzipped members", zipped(*((f"./{n}", 2**26) for n in range(20)))
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 2**28
    yield (
        "a gzipped member name of a quarter of a gigabyte",
        lambda path: _write_zeros(path, header.tobuf(tarfile.GNU_FORMAT), 2**28),
    )
    huge = entry("./sparse", type=tarfile.GNUTYPE_SPARSE)
    huge[0].size = 0
    yield "a sparse member", tar_of([huge, *entries(good.members)])


class _Zeros(io.RawIOBase):
    def __init__(self, size: int):
        self.left = size

    def read(self, size: int = -1) -> bytes:
        size = min(self.left, size if size >= 0 else self.left)
        self.left -= size
        return bytes(size)


def _write_zeros(path: Path, head: bytes, size: int) -> None:
    with gzip.open(path, "wb", compresslevel=1) as stream:
        stream.write(head)
        for _ in range(size // 2**24):
            stream.write(bytes(2**24))


def _damage(good: Good) -> Iterator[tuple]:
    plain = tar_of(entries(good.members))
    zipped = gzip.compress(plain, compresslevel=1)
    for form, content in (("plain", plain), ("gzipped", zipped)):
        end = content.rfind(good.members[WEIGHTS][-64:]) if form == "plain" else len(content)
        for part in (0.0, 0.001, 0.1, 0.5, 0.9, 0.999):
            yield f"{form}, cut at {part}", content[: int(end * part)]
    start = plain.find(good.members[WEIGHTS][:64])
    for part in (0.2, 0.4, 0.6, 0.8):
        place = start + int(len(good.members[WEIGHTS]) * part)
        yield f"a bit of the weights at {part}", plain[:place] + bytes([plain[place] ^ 16]) + plain[place + 1 :]
    for part in (0.3, 0.5, 0.7, 0.95):
        place = int(len(zipped) * part)
        yield f"a bit of the gzipped file at {part}", zipped[:place] + bytes([zipped[place] ^ 4]) + zipped[place + 1 :]
    yield "text", b"hello " * 1000
    yield "another kind of archive", _zip({CONFIG: good.members[CONFIG]})


def _zip(members: dict[str, bytes], **options: Any) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", **options) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _yaml(good: Good) -> Iterator[tuple]:
    text = good.members[CONFIG].decode()
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 30)
    )
    yield "alias bomb", _of_config_text(good, text + bomb)
    yield "one alias", _of_config_text(good, text + "one: &one {a: 1}\nother: *one\n")
    yield "merge key", _of_config_text(good, text + "one: &one {a: 1}\nother: {<<: *one}\n")
    yield "alias of itself", _of_config_text(good, text + "loop: &loop [*loop]\n")
    yield "deep lists", _of_config_text(good, text + "deep: " + "[" * 100_000 + "]" * 100_000 + "\n")
    yield "deep mappings", _of_config_text(good, text + "".join(f"{' ' * n}k:\n" for n in range(1000)))
    yield "two megabytes", _of_config_text(good, text + "note: " + "x" * 2**21 + "\n")
    yield "many entries", _of_config_text(good, text + "many: [" + "1," * 200_000 + "]\n")
    command = f"touch {good.marker}"
    yield "call of os.system", _of_config_text(good, text + f"note: !!python/object/apply:os.system ['{command}']\n")
    yield "object", _of_config_text(good, text + "note: !!python/object/new:subprocess.Popen [['touch']]\n")
    yield "no mapping", _of_config_text(good, "[1, 2]\n")
    yield "a scalar", _of_config_text(good, "hello\n")
    yield "empty", _of_config_text(good, "")
    yield "no text", _of_config_text(good, b"\xff\xfe\x00\x01" * 100)
    yield "no YAML", _of_config_text(good, "a: [1, 2\nb: }")
    yield "the same key twice", _of_config_text(good, text + text)
    yield "a long number", _of_config_text(good, text + "n: " + "9" * 10_000 + "\n")
    yield "a number in base 60", _of_config_text(good, text + "n: 1" + ":59" * 200_000 + "\n")


def _resolvers(good: Good) -> Iterator[tuple]:
    values = [
        "${oc.env:HOME}",
        "${oc.env:VICTIM_TOKEN,none}",
        "prefix ${oc.env:PATH} suffix",
        "${oc.decode:${oc.env:HOME}}",
        "${oc.create:{a: 1}}",
        "${multiply:1,2}",
        "${prompt.instructions}",
        "${note}${note}",
        "${llm.pretrained}",
        "${unknown:1}",
    ]
    for value in values:
        yield value, _of_config(good, changed(good.config, ("note",), value))
    yield (
        "in the prompt",
        _of_config(good, changed(good.config, ("prompt", "system_prompt"), "${oc.env:VICTIM_TOKEN}")),
    )
    yield "in a list", _of_config(good, changed(good.config, ("freeze_params",), ["${oc.env:VICTIM_TOKEN}"]))


def _code(good: Good) -> Iterator[tuple]:
    os_system = {"_target_": "os.system", "command": f"touch {good.marker}"}
    nemo_model = {
        "_target_": "nemo.collections.asr.models.EncDecCTCModel",
        "cfg": {"train_ds": {"manifest_filepath": f"pipe:touch {good.marker}"}},
    }
    encoder = (*ENCODER, "config", "encoder")
    yield from _changes(
        good,
        (("target",), "os.system"),
        (("target",), "nemo_speechllm.assets.resolve"),
        (("target",), "nemo_speechllm.models.salm"),
        (("target",), "nemo_speechllm.no_such.Model"),
        (("target",), "nemo.collections.asr.models.EncDecCTCModel"),
        (("target",), None),
        (("target",), ["nemo_speechllm.models.salm.SALM"]),
        (("_target_",), "os.system"),
        (("params",), {"cfg": {}}),
        (("model",), {"target": "nemo_speechllm.models.salm.SALM"}),
        ((*ENCODER, "config"), {"preprocessor": os_system, "encoder": os_system}),
        ((*ENCODER, "config"), {"preprocessor": nemo_model, "encoder": nemo_model}),
        ((*encoder, "_target_"), "nemo.collections.asr.modules.conformer_encoder.torch"),
        ((*encoder, "cls"), "os.system"),
        ((*encoder, "inner"), os_system),
        (("lora", "_target_"), "os.system"),
        (("optim",), os_system),
        (("optim",), {"_target_": "torch.optim.lr_scheduler.os.system", "command": f"touch {good.marker}"}),
        (("optim",), {"_target_": ["torch.optim.AdamW"]}),
        (("prompt", "_target_"), "builtins.eval"),
    )


def _artifacts(good: Good) -> Iterator[tuple]:
    for value in (
        str(good.secret),
        f"nemo:{good.secret}",
        f"nemo:../{good.secret.name}",
        "nemo:../../../../../../etc/passwd",
        "nemo:",
        "nemo:.",
        "nemo:no_such_file",
        f"nemo:{CONFIG}/../{CONFIG}",
        "tokenizer.json",
    ):
        yield f"tokenizer.json={value}", _of_config(good, changed(good.config, ("artifacts", "tokenizer_json"), value))
    yield from _changes(
        good, (("tokenizer", "model_file"), str(good.secret)), (("ctc_head", "tokenizer"), "nemo:../x")
    )
    yield from _changes(good, (("artifacts",), ["a"]), (("artifacts",), str(good.secret)))
    names = {key: value.removeprefix("nemo:") for key, value in good.config["artifacts"].items()}
    for key, content in (
        ("tokenizer_json", b"{}"),
        ("tokenizer_json", b"\xff" * 100),
        ("tokenizer_config_json", b"[1]"),
    ):
        yield f"{key} is {content[:4]!r}", tar_of(entries(good.members | {names[key]: content}))
    settings = json.loads(good.members[names["tokenizer_config_json"]])
    remote = settings | {"auto_map": {"AutoTokenizer": ["evil.Tokenizer", None]}, "tokenizer_file": str(good.secret)}
    yield (
        "a tokenizer that names code and files",
        tar_of(entries(good.members | {names["tokenizer_config_json"]: json.dumps(remote).encode()})),
        "inert",
    )


def _references(good: Good) -> Iterator[tuple]:
    yield from _changes(
        good,
        (("llm", "pretrained"), "http://127.0.0.1:9/llm"),
        (("llm", "pretrained"), "file:///etc"),
        (("llm", "pretrained"), "\\\\127.0.0.1\\share"),
        (("llm", "pretrained"), "//127.0.0.1/share"),
        (("llm", "pretrained"), "pipe:true"),
        (("llm", "pretrained"), "a\nb"),
        (("llm", "pretrained"), ["a"]),
        (("llm", "pretrained"), 7),
        (("llm", "pretrained"), str(good.secret)),
        (("llm", "pretrained"), "/etc"),
        (("llm", "pretrained"), "../no/such/llm"),
        (("llm", "fingerprint"), None),
        (("llm", "fingerprint"), "0" * 32),
        (("llm", "fingerprint"), "sha256:" + "0" * 64),
        (("llm", "dtype"), "system"),
        ((*ENCODER, "config", "encoder", "attn_implementation"), "evil/kernel"),
    )


def _sizes(good: Good) -> Iterator[tuple]:
    yield from _changes(
        good,
        (("lora", "r"), 10**9),
        (("lora", "r"), 10**6),
        (("lora", "alpha"), float("inf")),
        (("lora", "r"), -1),
        (("perception", "stack"), 10**9),
        (("perception", "stack"), 10**5),
        (("perception", "stack"), 0),
        (("perception", "adapter"), {"n_layers": 10**6, "d_model": 64, "n_heads": 4, "subsampling_factor": 1}),
        (("perception", "adapter"), {"n_layers": 2, "d_model": 10**5, "n_heads": 4, "subsampling_factor": 1}),
        (("perception", "adapter"), {"type": "qformer", "n_layers": 1, "n_queries": 10**6, "n_heads": 4}),
        (("lora",), {"r": "many", "target_modules": ["q_proj"]}),
        ((*ENCODER, "config", "feature_extractor", "n_fft"), 2**20),
        ((*ENCODER, "config", "feature_extractor", "feature_size"), 2**19),
        ((*ENCODER, "config", "feature_extractor", "chunk_length"), 10**5),
        ((*ENCODER, "config", "model", "max_source_positions"), 2**20),
        ((*ENCODER, "config", "model", "encoder_layers"), 10**5),
        (("loss",), None),
        (("generation",), []),
    )


def _endless(good: Good) -> Iterator[tuple]:
    patterns = ("(l+)+$", "(.*.*)*X", "([a-z.]+)*\\d$", "(a|a|l|l|.|.)*Z", "(", "x" * 10**5)
    for pattern in patterns:
        yield f"freeze_params {pattern[:20]}", _of_config(good, changed(good.config, ("freeze_params",), [pattern]))
    nothing = "{% endfor %}"
    templates = [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}" + nothing * 3,
        "{{ 'a' * 10 ** 11 }}",
        "{{ 9 ** (9 ** 9) }}",
        "{% set ns = namespace(s='aa') %}{% for i in range(99) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
        "{% set ns = namespace(s=[1]) %}{% for i in range(99) %}{% set ns.s = [ns.s, ns.s] %}{% endfor %}{{ ns.s }}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(99) }}",
        "{{ 'a'.center(10 ** 11) }}",
        "{{ '%99999999999d' % 1 }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.system('touch x') }}",
        "{% include '/etc/passwd' %}",
        "{% for message in messages %}",
        "{% for i in range(99999) %}{{ range(99999) | sum }}{% endfor %}",
        "{% for i in range(99999) %}{% if 0.5 in range(99999) %}{% endif %}{% endfor %}",
        "{% set s = 'a' * 9999999 %}{% for i in range(99999) %}{% set t = s[1:] %}{% endfor %}",
        "{{ '{0:{1}}'.format(1, '9' * 9) }}",
        "{{ (1).to_bytes(10 ** 10) }}",
        "x" * 10**6,
    ]
    for template in templates:
        yield (
            f"template {template[:40]}",
            _of_config(good, changed(good.config, ("prompt", "chat_template"), template)),
        )


def _pickles(good: Good) -> Iterator[tuple]:
    calls = {
        "os.system": Payload(os.system, f"touch {good.marker}"),
        "exec": Payload(exec, f"open({str(good.marker)!r}, 'w')"),
        "open": Payload(open, str(good.marker), "w"),
        "torch.load": Payload(torch.load, str(good.secret)),
        "getattr": Payload(getattr, "text", "join"),
    }
    for name, payload in calls.items():
        yield name, _of_weights(good, saved(good.weights | {"x": payload}))
        yield f"{name}, the old format", _of_weights(good, saved({"x": payload}, _use_new_zipfile_serialization=False))
    yield "a bare pickle", _of_weights(good, pickle.dumps(calls["os.system"]))
    yield "a module", _of_weights(good, saved(torch.nn.Linear(2, 2)))


def _weights(good: Good) -> Iterator[tuple]:
    state = good.weights
    first = next(name for name, tensor in state.items() if tensor.is_floating_point() and tensor.numel() > 8)
    ones = torch.ones(1)
    others = {
        "NaN": state[first].float().index_fill(0, torch.tensor([0]), float("nan")),
        "infinite": state[first].float().index_fill(0, torch.tensor([0]), float("inf")),
        "another shape": torch.zeros(3, 3, 3),
        "a terabyte of one value": ones.expand(10**6, 10**6),
        "sparse": torch.sparse_coo_tensor(torch.tensor([[0], [0]]), ones, (10**9, 10**9)),
        "no storage": torch.empty(5, 5, device="meta"),
        "a text": "hello",
        "a list": [1, 2],
        "complex": torch.complex(torch.ones(state[first].shape), torch.ones(state[first].shape)),
        "integers": torch.ones(state[first].shape, dtype=torch.int64),
    }
    for name, value in others.items():
        yield name, _of_weights(good, saved(state | {first: value}))
    yield "one missing", _of_weights(good, saved({name: tensor for name, tensor in state.items() if name != first}))
    yield "one too many", _of_weights(good, saved(state | {"extra.weight": ones}))
    yield "no mapping", _of_weights(good, saved([1, 2]))
    yield "none", _of_weights(good, saved({}))
    yield "numbers as names", _of_weights(good, saved({1: ones}))
    yield "empty file", _of_weights(good, b"")
    pieces = zipfile.ZipFile(io.BytesIO(good.members[WEIGHTS]))
    content = {name: pieces.read(name) for name in pieces.namelist()}
    yield "compressed", _of_weights(good, _zip(content, compression=zipfile.ZIP_DEFLATED))
    zeros = {name: bytes(2**28) if name.endswith("/data/0") else value for name, value in content.items()}
    yield "a zip bomb", _of_weights(good, _zip(zeros, compression=zipfile.ZIP_DEFLATED))


def _data(good: Good) -> Iterator[tuple]:
    """What the data sections name is never read, so these are restored."""
    pipe = f"pipe:touch {good.marker}"
    nemo = {"manifest_filepath": pipe, "batch_size": 1, "sample_rate": 16000}
    yield from _changes(
        good,
        (("train_ds",), nemo, "inert"),
        (("validation_ds",), nemo, "inert"),
        (("validation_ds",), {"manifest_filepath": [pipe, pipe]}, "inert"),
        (("test_ds",), nemo, "inert"),
        (("train_ds",), {"cuts_path": pipe}, "inert"),
        (("validation_ds",), {"input_cfg": str(good.secret)}, "inert"),
        (("validation_ds",), {"input_cfg": [{"type": "nemo", "manifest_filepath": pipe}]}, "inert"),
        (("perception", "state_cache"), str(good.marker), "inert"),
        (("memory_profile",), {"enabled": True, "start_step": 0, "end_step": 1, "output_path": "/no"}, "inert"),
        (("chakra_profile",), {"enabled": True, "trace_dir": "/no"}, "inert"),
        (("keyword_context",), {"vocabulary": str(good.secret)}, "inert"),
        (("init_from_nemo_model",), str(good.secret)),
    )


KINDS: dict[str, Callable[[Good], Iterator[tuple]]] = {
    "members": _members,
    "bombs": _bombs,
    "damage": _damage,
    "YAML": _yaml,
    "resolvers": _resolvers,
    "code": _code,
    "artifacts": _artifacts,
    "references": _references,
    "sizes": _sizes,
    "endless": _endless,
    "pickles": _pickles,
    "weights": _weights,
    "data": _data,
}


# trying --------------------------------------------------------------------------------------------------------------


def outcome(forgery: Forgery, path: Path, good: Good) -> str:
    """ "" where the file did no harm and, unless it is inert, was refused with its name; else what went wrong."""
    from nemo_speechllm.checkpointing.errors import CheckpointError
    from nemo_speechllm.models import load_model

    os.environ["VICTIM_TOKEN"] = SECRET
    try:
        model = load_model(path)
    except CheckpointError as error:
        problem = "" if str(path) in str(error) else f"the file is not named: {error}"
        problem = f"refused: {error}" if forgery.inert else problem
        problem = f"the secret is in the message: {error}" if SECRET in str(error) else problem
    except BaseException as error:
        problem = f"a foreign {type(error).__name__}: {error}"
    else:
        problem = inert_model(model) if forgery.inert else "it was restored"
    return "it ran a command or wrote a file" if good.marker.exists() else problem


def inert_model(model: Any) -> str:
    """ "" where a restored model has no data to validate on and takes nothing of the victim's along; else what went
    wrong."""
    from lightning.pytorch import Trainer

    quiet = dict(logger=False, enable_checkpointing=False, enable_progress_bar=False)
    trainer = Trainer(accelerator="cpu", max_steps=1, **quiet)
    for method in (trainer.fit, trainer.validate):
        try:
            method(model)
        except Exception as error:  # that there is no data, and nothing else
            if "data: those of a checkpoint are not read" not in str(error):
                return f"{method.__name__}: {type(error).__name__}: {error}"
        else:
            return f"{method.__name__} ran"
    with tempfile.TemporaryDirectory() as folder:
        model.save_to(Path(folder) / "again.nemo")
        leaked = SECRET.encode() in (Path(folder) / "again.nemo").read_bytes()
    return "the next save holds the secret" if leaked else ""


def in_process_of_its_own(forgery: Forgery, path: Path, good: Good) -> str:
    """`outcome` in a fork with limits of time and memory; ``hung`` or ``killed`` where it did not come back."""
    receiver, sender = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            _limit_this_process()
            os.write(sender, (outcome(forgery, path, good) or "fine").encode(errors="replace")[:4000])
        finally:  # the parent's clean-up is not the child's
            os._exit(0)
    os.close(sender)
    deadline = time.monotonic() + SECONDS
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(child, 9)
            os.waitpid(child, 0)
            os.close(receiver)
            return "hung"
        time.sleep(0.02)
    with os.fdopen(receiver, "rb") as stream:
        said = stream.read().decode()
    return "" if said == "fine" else said or "killed"


def _limit_this_process() -> None:
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 1)
    os.dup2(devnull, 2)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + BYTES, taken + BYTES))


def run() -> dict[str, Any]:
    """Try every hostile checkpoint.

    Returns:
        ``name``, how many were ``tried``, ``lost`` (never), ``wrong`` and ``hung``; ``failures`` tell what happened.
    """
    import nemo_speechllm.models  # noqa: F401  once, before the forks

    problems: dict[str, str] = {}
    for kind, found in tried(_try_kind, list(KINDS), "kinds of checkpoints"):
        problems |= found
        failed = sum(map(bool, found.values()))
        tqdm.write(f"{kind}: {len(found)} tried, {failed} did harm or were not refused by name", file=sys.stderr)
    failures = {name: problem for name, problem in problems.items() if problem}
    hung = sum(problem == "hung" for problem in failures.values())
    counts = {"tried": len(problems), "lost": 0, "wrong": len(failures) - hung, "hung": hung}
    return {"name": "hostile checkpoints", **counts, "failures": failures}


def _try_kind(kind: str) -> dict[str, str]:
    """What went wrong with each forgery of a kind, by name; "" where nothing did."""
    from nemo_speechllm.models.shipped import shipped_models

    problems = {}
    with tempfile.TemporaryDirectory() as folder:
        good, path = Good.of(shipped_models()["ctc_prompted_smollm2"], Path(folder)), Path(folder) / "forgery.nemo"
        for forgery in forgeries_of(good, kind):
            forgery.write(path)
            problems[forgery.name] = in_process_of_its_own(forgery, path, good)
            path.unlink()
            good.marker.unlink(missing_ok=True)
    return problems
