"""Virtual environments for the real model servers, one each, below target/.

Made once and kept; made again when the list of packages changes or an installation broke off: its stamp is
written last.
"""

import os
import re
import shutil
import subprocess
import sys
import zipfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.abspath(os.path.join(HERE, "../../.."))
HOME = os.path.join(ROOT, "target", "real-servers")


def ensure(name):
    """The folder of the environment of `name`, made if it is missing or old."""
    place = os.path.join(HOME, name)
    with open(os.path.join(HERE, "requirements", f"{name}.txt")) as file:
        wanted = file.read()
    stamp = os.path.join(place, "requirements.txt")
    if os.path.exists(stamp) and read(stamp) == wanted:
        return place
    print(f"installing {name} into {os.path.relpath(place, ROOT)}", file=sys.stderr, flush=True)
    shutil.rmtree(place, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", place], check=True)
    install = install_vllm if name == "vllm" else install_plain
    install(place, wanted)
    # Last, so that an environment with a stamp is whole.
    with open(stamp, "w") as file:
        file.write(wanted)
    return place


def python(place):
    return os.path.join(place, "bin", "python")


def site_packages(place):
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return os.path.join(place, "lib", version, "site-packages")


def install_plain(place, wanted):
    pip(place, "install", *packages(wanted))


def install_vllm(place, wanted):
    ours = packages(wanted)
    wheel_name = ours[0]
    folder = os.path.join(place, "wheel")
    pip(place, "download", "--no-deps", "--dest", folder, wheel_name)
    wheel = os.path.join(folder, os.listdir(folder)[0])
    others = [need for need in requirements_of(wheel) if not re.match(r"(torch|torchvision|torchaudio)\b", need)]
    # Together, so that what the others ask of torch is met by the one that is there.
    pip(place, "install", *ours[1:], *others)
    pip(place, "install", "--no-deps", wheel)
    shutil.rmtree(folder)


def requirements_of(wheel):
    """What a wheel needs, extras left out."""
    with zipfile.ZipFile(wheel) as archive:
        metadata = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        lines = archive.read(metadata).decode().splitlines()
    needs = [line.removeprefix("Requires-Dist: ") for line in lines if line.startswith("Requires-Dist: ")]
    return [need for need in needs if "extra ==" not in need]


def packages(wanted):
    return [line.strip() for line in wanted.splitlines() if line.strip() and not line.startswith("#")]


def pip(place, *arguments):
    subprocess.run([python(place), "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments], check=True)


def read(path):
    with open(path) as file:
        return file.read()
