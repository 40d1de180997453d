"""The real model servers: how each is started, asked, and which of its processes does the work.

Owns everything that differs between them. What is done to them is in scenarios.py.
"""

import dataclasses
import json
import os
import shutil
import subprocess
import sysconfig

import environment

APPS = os.path.join(environment.HERE, "apps")
JSON = {"Content-Type": "application/json"}


def oip(x):
    return json.dumps({"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [x]}]})


def completion(tokens, stream):
    """A prompt of 50 words, and exactly so many tokens."""
    prompt = " ".join(f"w{number}" for number in range(50))
    return json.dumps(
        {"model": "tiny", "prompt": prompt, "max_tokens": tokens, "ignore_eos": True, "stream": stream}
    )


@dataclasses.dataclass
class Server:
    name: str
    preset: str
    # Posted to make it work for `seconds`; it does one at a time.
    path: str
    body: str
    # Its own health, as people point a probe at it.
    health: str
    # Given the folder of its environment, one of its own, and ports: the command, its environment, its directory.
    start: callable
    # A part of the command line of the process that does the work; None if it is the one that was started.
    worker: str = None
    model: str = None
    # Where its page is: "same" port, "metrics" port, or None. And what moves on it when work is done.
    metrics: str = None
    counter: str = None
    seconds: float = 0.5
    # The same with next to no work, and with work for many seconds, where the server has it.
    quick: str = None
    long: str = None
    # Whether it goes on with what its client gave up on, as most do. If not, `seconds` is measured first.
    goes_on: bool = True
    load_within: float = 120
    # What a stopped worker looks like to clients: "silent", or "failing" if the front answers for it.
    stopped: str = "silent"
    # Lines that its configuration needs beyond the usual.
    more: str = ""
    # Whether something of its own replaces a worker that has fallen silent.
    watched: bool = False
    # Several endpoints that say well or not, all of them watched.
    also: tuple = ()


def start_fastapi(place, folder, ports):
    return (
        [bin_of(place, "uvicorn"), "app:app", "--port", str(ports["http"]), "--log-level", "warning"],
        {},
        os.path.join(environment.HERE, "..", "hang"),
    )


def start_flask(place, folder, ports):
    address = f"127.0.0.1:{ports['http']}"
    command = [bin_of(place, "gunicorn"), "--workers", "1", "--no-control-socket", "--bind", address, "flask_app:app"]
    return command, {}, APPS


def start_mlserver(place, folder, ports):
    models = os.path.join(folder, "slow")
    shutil.copytree(os.path.join(APPS, "mlserver", "slow"), models)
    settings = {
        "host": "127.0.0.1",
        "http_port": ports["http"],
        "grpc_port": ports["grpc"],
        "metrics_port": ports["metrics"],
        "parallel_workers": 1,
    }
    with open(os.path.join(folder, "settings.json"), "w") as file:
        json.dump(settings, file)
    path = os.path.join(place, "bin") + os.pathsep + os.environ["PATH"]
    return [bin_of(place, "mlserver"), "start", folder], {"PATH": path, "PYTHONPATH": models}, models


def start_kserve(place, folder, ports):
    command = [environment.python(place), "kserve_app.py", "--http_port", str(ports["http"])]
    return [*command, "--grpc_port", str(ports["grpc"]), "--workers", "1"], {}, APPS


def start_mlflow(place, folder, ports):
    model = os.path.join(folder, "model")
    path = os.path.join(place, "bin") + os.pathsep + os.environ["PATH"]
    subprocess.run([environment.python(place), "-W", "ignore", "mlflow_model.py", model], cwd=APPS, check=True)
    command = [bin_of(place, "mlflow"), "models", "serve", "--model-uri", model, "--env-manager", "local"]
    return [*command, "--port", str(ports["http"]), "--workers", "1"], {"PATH": path}, folder


def start_triton(place, folder, ports):
    site = environment.site_packages(place)
    triton = os.path.join(site, "pytriton", "tritonserver")
    backends = os.path.join(folder, "backends")
    shutil.copytree(os.path.join(triton, "backends", "python"), os.path.join(backends, "python"))
    # A copy, for its interpreter leaves compiled files beside the model.
    models = os.path.join(folder, "models")
    shutil.copytree(os.path.join(APPS, "triton"), models)
    stub = os.path.join(backends, "python", "triton_python_backend_stub")
    shutil.copy(os.path.join(triton, "python_backend_stubs", "3.11", "triton_python_backend_stub"), stub)
    os.chmod(stub, 0o755)
    libraries = [os.path.join(site, "nvidia_pytriton.libs"), sysconfig.get_config_var("LIBDIR")]
    command = [
        os.path.join(triton, "bin", "tritonserver"),
        f"--model-repository={models}",
        f"--backend-directory={backends}",
    ]
    for kind in ("http", "grpc", "metrics"):
        command += [f"--{kind}-address=127.0.0.1", f"--{kind}-port={ports[kind]}"]
    return command, {"LD_LIBRARY_PATH": os.pathsep.join(libraries), "PYTHONPATH": site}, folder


def start_vllm(place, folder, ports):
    model = os.path.join(place, "tiny")
    if not os.path.exists(os.path.join(model, "tokenizer_config.json")):
        subprocess.run([environment.python(place), "vllm_model.py", model], cwd=APPS, check=True)
    variables = {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "2",
    }
    command = [environment.python(place), "-m", "vllm.entrypoints.openai.api_server", "--model", model]
    command += ["--served-model-name", "tiny", "--host", "127.0.0.1", "--port", str(ports["http"])]
    command += ["--dtype", "float32", "--max-model-len", "1024", "--max-num-seqs", "4", "--enforce-eager"]
    return command, variables, folder


def bin_of(place, program):
    return os.path.join(place, "bin", program)


SERVERS = [
    Server(
        name="fastapi",
        preset="fastapi",
        path="/predict",
        body="",
        health="/health",
        start=start_fastapi,
        metrics="same",
        counter="predictions_total",
    ),
    Server(
        name="flask",
        preset="flask",
        path="/predict",
        body="",
        health="/health",
        start=start_flask,
        worker="gunicorn",
        metrics="same",
        counter="predictions_total",
        watched=True,
    ),
    Server(
        name="mlserver",
        preset="mlserver",
        path="/v2/models/slow/infer",
        body=oip(500.0),
        health="/v2/health/live",
        also=("/v2/health/ready", "/v2/models/slow/ready"),
        start=start_mlserver,
        worker="multiprocessing.spawn",
        model="slow",
        metrics="metrics",
        counter="model_infer_request_success_total",
    ),
    Server(
        name="kserve",
        preset="kserve-v1",
        path="/v1/models/slow:predict",
        body='{"instances": [4]}',
        health="/",
        also=("/v1/models/slow",),
        start=start_kserve,
        model="slow",
        metrics="same",
        counter="request_predict_seconds_count",
    ),
    Server(
        name="mlflow",
        preset="mlflow",
        path="/invocations",
        body='{"inputs": [4]}',
        health="/health",
        also=("/ping",),
        start=start_mlflow,
        worker="uvicorn",
    ),
    Server(
        name="triton",
        preset="triton",
        path="/v2/models/slow/infer",
        body=oip(500.0),
        health="/v2/health/live",
        also=("/v2/health/ready", "/v2/models/slow/ready"),
        start=start_triton,
        worker="triton_python_backend_stub",
        model="slow",
        metrics="metrics",
        counter="nv_inference_exec_count",
        stopped="failing",
        quick=oip(20.0),
    ),
    Server(
        name="vllm",
        preset="vllm",
        path="/v1/completions",
        body=completion(20, False),
        long=completion(800, True),
        goes_on=False,
        health="/health",
        also=("/v1/models",),
        start=start_vllm,
        worker="VLLM::EngineCore",
        model="tiny",
        metrics="same",
        counter="vllm:iteration_tokens_total_count",
        load_within=400,
    ),
]
