"""Bundles for GPUs from Python and from TVM, on a fake driver: same bits, and one sentence where there is no such GPU."""

from __future__ import annotations

import re
from pathlib import Path

from bnn_deploy.bundle.bundle import Bundle
from tests.cuda.driver import driver_environment, run_python

LOCAL = """
import sys
import numpy as np
import bnn_deploy
from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.devices.local import LocalDevice
from bnn_deploy.errors import DeviceError
from bnn_deploy.profiling.measuring import profile_bundle
from bnn_deploy.profiling.reading import profile_from_json
from tests.runtime.toy_network import reference, toy_input
bundle = Bundle.open(sys.argv[1])
"""


def test_python_and_the_local_device(bundle: Bundle, driver: Path, kernels: Path) -> None:
    """Python gives other bits, or the report of a profile does not name the GPU, or cannot be read back."""
    script = LOCAL + (
        "array = toy_input(rows=4)\n"
        "assert np.array_equal(bnn_deploy.load(bundle.path)(array), reference(array))\n"
        "assert np.array_equal(LocalDevice().run(bundle, array), reference(array))\n"
        "report = profile_bundle(bundle, LocalDevice(), repeat=3)\n"
        "assert report.boards[0].gpu.compute_capability == 87 and report.boards[0].gpu.memory_bus_bits is None\n"
        "import json, jsonschema\n"
        "value = json.loads(json.dumps(report.to_dict()))\n"
        "assert profile_from_json(value, 'report') == report\n"
        "jsonschema.validate(value, json.load(open('docs/schemas/profile.schema.json')))\n"
    )
    result = run_python(script, bundle.path, environment=driver_environment(driver, kernels))
    assert (result.returncode, result.stderr) == (0, "")


def test_python_explains_a_missing_gpu(bundle: Bundle, driver: Path, kernels: Path) -> None:
    """A machine without this GPU gets a traceback, or several sentences, from Python or the command line's device."""
    script = LOCAL + (
        "for start in (lambda: bnn_deploy.load(bundle.path), lambda: LocalDevice().open(bundle)):\n"
        "    try:\n"
        "        start()\n"
        "    except DeviceError as error:\n"
        "        print(error)\n"
    )
    for environment, reason in (
        (driver_environment(None, None), r"libcuda\.so\.1 was not found; install NVIDIA's driver[^.]*"),
        (
            driver_environment(driver, kernels, devices=0),
            "cuInit failed with CUDA_ERROR_NO_DEVICE; see that a GPU is there.*",
        ),
        (driver_environment(driver, kernels, capability=75), ".* compute capability 7.5.* sm_75|.* has 7.5; .* sm_75"),
    ):
        result = run_python(script, bundle.path, environment=environment)
        assert (result.returncode, result.stderr) == (0, "")
        start = rf"The bundle {re.escape(str(bundle.path))} needs an NVIDIA GPU of compute capability 8\.7 or newer: "
        lines = result.stdout.splitlines()
        assert len(lines) == 2 and all(re.fullmatch(rf"{start}({reason})\.", line) for line in lines), result.stdout


def test_tvm_is_told_what_is_wrong(bundle: Bundle, driver: Path) -> None:
    """A board behind TVM's RPC says that its GPU cannot be used, and not why."""
    script = (
        "import sys, tvm\n"
        "library = tvm.runtime.load_module(sys.argv[1])\n"
        "assert library['bnn_create'](1) == -6\n"
        "text = tvm.runtime.empty((4096,), 'uint8')\n"
        "length = library['bnn_device_error'](text)\n"
        "print(text.numpy()[:length].tobytes().decode())\n"
    )
    result = run_python(script, bundle.library, environment=driver_environment(driver, None, devices=0))
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("cuInit failed with CUDA_ERROR_NO_DEVICE; see that a GPU is there")
