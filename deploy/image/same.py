#!/usr/bin/env python3
"""Whether the Dockerfile and deploy/image/build make the same images, without building anything.

The archives are packed from stand-ins for the programs, twice: they must be the same bytes, and say what the Dockerfile's
stages say: user, ports, entrypoint, command, labels, files. What the Dockerfile copies must be there, and what it starts
from must be pinned.
"""
import io
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tarfile
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Labels that tell one build from another.
VARY = {"org.opencontainers.image.created", "org.opencontainers.image.revision"}
# The Dockerfile's stages that become images, named as the archives are.
STAGES = ("probegate", "demo-model-v1", "demo-model-v2")
# The head of an ELF file for amd64: as much of a program as the packing looks at.
STAND_IN = b"\x7fELF" + bytes(14) + b"\x3e\x00"


def instructions(text):
    """(word, rest) of each instruction, lines that go on joined and comments left out."""
    text = re.sub(r"^\s*#.*\n", "", text, flags=re.M)
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        if line.strip():
            word, _, rest = line.strip().partition(" ")
            yield word.upper(), rest.strip()


def stages(text, arguments):
    """Each stage's configuration as the image will have it, and what is wrong with the file."""
    made, wrong, at = {}, [], None
    for word, rest in instructions(text):
        rest = re.sub(r"\$\{(\w+)\}", lambda found: arguments.get(found[1], ""), rest)
        if word == "ARG":
            name, _, default = rest.partition("=")
            arguments.setdefault(name, default)
        elif word == "FROM":
            base, _, name = rest.partition(" AS ")
            pinned = base in made or base == "scratch" or re.search(r":\d+\.\d+[-.\w]*$|@sha256:", base)
            if not pinned:
                wrong.append(f"FROM {base}: not pinned")
            at = json.loads(json.dumps(made.get(base, {"Labels": {}, "ExposedPorts": [], "files": []})))
            made[name] = at
        elif word == "COPY":
            *sources, target = [part for part in shlex.split(rest) if not part.startswith("--")]
            if "--from=" not in rest:
                wrong += [f"COPY {source}: not there" for source in sources if not (ROOT / source).exists()]
            single = len(sources) == 1 and not target.endswith("/")
            at["files"] += [target if single else target + os.path.basename(source) for source in sources]
        elif word == "LABEL":
            at["Labels"].update(part.split("=", 1) for part in shlex.split(rest))
        elif word == "USER":
            at["User"] = rest
        elif word == "EXPOSE":
            at["ExposedPorts"] += [f"{port}/tcp" for port in rest.split()]
        elif word in ("ENTRYPOINT", "CMD"):
            at[word.capitalize()] = json.loads(rest)
    return made, wrong


def packed(archive):
    """The same of an archive."""
    with tarfile.open(archive) as tar:
        blob = lambda digest: tar.extractfile("blobs/" + digest.replace(":", "/")).read()
        index = json.loads(tar.extractfile("index.json").read())
        manifest = json.loads(blob(index["manifests"][0]["digest"]))
        config = json.loads(blob(manifest["config"]["digest"]))["config"]
        with tarfile.open(fileobj=io.BytesIO(blob(manifest["layers"][0]["digest"]))) as layer:
            files = ["/" + member.name for member in layer if member.isfile()]
            for member in layer:
                if (member.uid, member.gid, member.mtime) != (0, 0, 0):
                    sys.exit(f"{archive}: {member.name} has an owner or a time")
    return {"User": config["User"], "Entrypoint": config["Entrypoint"], "Cmd": config["Cmd"], "Labels": config["Labels"],
            "ExposedPorts": list(config["ExposedPorts"]), "files": files}


def comparable(image):
    return {**image, "Labels": {key: value for key, value in image["Labels"].items() if key not in VARY},
            "ExposedPorts": sorted(image["ExposedPorts"]), "files": sorted(image["files"])}


def archives(folder):
    """Packs the stand-ins; the archives by name."""
    for program in ("probegate", "model_server"):
        path = pathlib.Path(folder, program)
        path.write_bytes(STAND_IN + program.encode())
        path.chmod(0o755)
    subprocess.run([ROOT / "deploy/image/build", "--compiled"], env={**os.environ, "CARGO_TARGET_DIR": folder}, check=True,
                   stdout=subprocess.DEVNULL)
    return {name: pathlib.Path(folder, name + ".tar") for name in STAGES}


def main():
    version = re.search(r'^version = "(.*)"$', (ROOT / "Cargo.toml").read_text(), flags=re.M)[1]
    made, wrong = stages((ROOT / "deploy/Dockerfile").read_text(), {})
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        first, second = archives(one), archives(other)
        for name, archive in first.items():
            if archive.read_bytes() != second[name].read_bytes():
                wrong.append(f"{name}: packed twice, two archives")
            built, by_docker = comparable(packed(archive)), comparable(made[name])
            wrong += [f"{name}: {key}: {built[key]} by deploy/image/build, {by_docker.get(key)} by the Dockerfile"
                      for key in built if built[key] != by_docker.get(key)]
    if list(made)[-1] != "probegate":
        wrong.append("the last stage, which a build without --target makes, is not probegate")
    if made["probegate"]["Labels"].get("org.opencontainers.image.version") != version:
        wrong.append(f"the Dockerfile's VERSION is not {version}")
    print("\n".join(wrong) or "the same")
    sys.exit(bool(wrong))


main()
