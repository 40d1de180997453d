#!/usr/bin/env python3
"""Makes container images from static programs, without a daemon: an OCI archive that every loader takes.

    archive.py --out FILE.tar --name NAME:TAG --program FILE --entrypoint JSON --cmd JSON [--file SRC=DEST]... [--label K=V]...

One layer on nothing. The same inputs give the same bytes: times are zero, owners are root, order is fixed. (Another zlib may
compress the layer otherwise; its digest before compression stays.) `manifest.json` beside the OCI layout is for
`docker load` before version 25.
"""
import argparse
import gzip
import hashlib
import io
import json
import os
import tarfile
import time

# Nobody in particular, as distroless images have it. A number: `runAsNonRoot` cannot judge a name.
USER = "65532:65532"
INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def add(tar, name, data=b"", mode=0o644):
    """A plain file, or a folder if the name ends with a slash."""
    info = tarfile.TarInfo(name.rstrip("/"))
    info.mode = mode
    if name.endswith("/"):
        info.type = tarfile.DIRTYPE
        tar.addfile(info)
    else:
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))


def layer(files):
    """The files, sorted, with the folders that they need."""
    folders = set()
    for path in files:
        parts = path.split("/")[:-1]
        folders.update("/".join(parts[: end + 1]) + "/" for end in range(len(parts)))
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path in sorted(folders | set(files)):
            if path.endswith("/"):
                add(tar, path, mode=0o755)
            else:
                data, mode = files[path]
                add(tar, path, data, mode)
    return raw.getvalue()


def encode(value):
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def described(media_type, data, **more):
    return {"mediaType": media_type, "digest": digest(data), "size": len(data), **more}


def image(blob, config, created, architecture):
    """The blobs of one image, the manifest last."""
    packed = gzip.compress(blob, 9, mtime=0)
    layers = {"type": "layers", "diff_ids": [digest(blob)]}
    history = [{"created": created, "created_by": "deploy/image/build"}]
    about = {"architecture": architecture, "os": "linux", "created": created, "config": config, "rootfs": layers, "history": history}
    about = encode(about)
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": described(CONFIG, about), "layers": [described(LAYER, packed)]}
    manifest["annotations"] = config["Labels"]
    return [packed, about, encode(manifest)]


def reference(name):
    """As Docker and containerd spell a short name."""
    first, slash, _ = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return name
    return "docker.io/" + (name if slash else "library/" + name)


def archive(name, blobs):
    blob, about, manifest = blobs
    path = lambda data: "blobs/sha256/" + digest(data).partition(":")[2]
    names = {"io.containerd.image.name": reference(name), "org.opencontainers.image.ref.name": name.rpartition(":")[2]}
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [described(MANIFEST, manifest, annotations=names)]}
    docker = [{"Config": path(about), "RepoTags": [name], "Layers": [path(blob)]}]
    files = {path(data): (data, 0o644) for data in blobs}
    files |= {"oci-layout": (b'{"imageLayoutVersion":"1.0.0"}', 0o644), "index.json": (encode(index), 0o644), "manifest.json": (encode(docker), 0o644)}
    return layer(files)


def machine(program):
    """The architecture that an ELF file says it is for."""
    word = int.from_bytes(program[18:20], "little")
    names = {0x3E: "amd64", 0xB7: "arm64"}
    if program[:4] != b"\x7fELF" or word not in names:
        raise SystemExit("archive: the program is no ELF file for amd64 or arm64")
    return names[word]


def main():
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--out", required=True)
    ask.add_argument("--name", required=True, help="NAME:TAG")
    ask.add_argument("--program", required=True)
    ask.add_argument("--entrypoint", required=True, type=json.loads)
    ask.add_argument("--cmd", type=json.loads, default=[])
    ask.add_argument("--file", action="append", default=[], metavar="SRC=DEST")
    ask.add_argument("--label", action="append", default=[], metavar="K=V")
    ask.add_argument("--port", action="append", default=[])
    a = ask.parse_args()
    if ":" not in a.name:
        ask.error("name the image as NAME:TAG")

    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH", "0"))))
    program = open(a.program, "rb").read()
    files = {a.entrypoint[0].lstrip("/"): (program, 0o755)}
    for pair in a.file:
        source, _, target = pair.partition("=")
        mode = 0o755 if os.access(source, os.X_OK) else 0o644
        files[target.lstrip("/")] = (open(source, "rb").read(), mode)
    labels = dict(pair.split("=", 1) for pair in a.label)
    labels["org.opencontainers.image.created"] = created
    config = {"Entrypoint": a.entrypoint, "Cmd": a.cmd, "User": USER, "WorkingDir": "/", "Labels": labels}
    config["ExposedPorts"] = {f"{port}/tcp": {} for port in a.port}
    content = layer(files)
    data = archive(a.name, image(content, config, created, machine(program)))
    with open(a.out, "wb") as out:
        out.write(data)
    print(f"{a.name}: {len(content) / 1e6:.2f} MB, {len(data) / 1e6:.2f} MB packed, {a.out}")


if __name__ == "__main__":
    main()
