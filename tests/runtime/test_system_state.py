"""What the C runtime finds out about a machine, from folders that hold the files of one.

Every test runs the probe and one built by gcc with AddressSanitizer and UBSan.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from bnn_deploy.codegen.linker import COMPILE_OPTIONS, PROBE_SOURCES, RUNTIME_SOURCES, link_probe
from bnn_deploy.devices.system_state import SystemState

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "schemas" / "runner_profile.schema.json").read_text())
STATE_SCHEMA = {"$defs": SCHEMA["$defs"], "$ref": "#/$defs/system_state"}
CPU = "sys/devices/system/cpu"


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return link_probe(tmp_path_factory.mktemp("probe"), "x86_64")


@pytest.fixture(scope="module", params=["released", "sanitized"])
def probe(request: pytest.FixtureRequest, released: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "released":
        return released
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed, which has the sanitizers")
    program = tmp_path_factory.mktemp("sanitized") / "probe"
    options = [option for option in COMPILE_OPTIONS if option.startswith(("-std", "-W", "-D"))]
    options += [
        "-Wpedantic",
        "-O1",
        "-g",
        "-fsanitize=address,undefined",
        "-fno-sanitize-recover=all",
        "-I",
        str(RUNTIME_SOURCES),
    ]
    sources = [str(RUNTIME_SOURCES / name) for name in PROBE_SOURCES]
    result = subprocess.run(["gcc", *options, *sources, "-o", str(program)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return program


def state(probe: Path, root: Path) -> dict[str, Any]:
    """What the probe tells of the files below a folder, checked against the schema and the Python reader."""
    result = subprocess.run([probe, "--root", root], env={}, capture_output=True, timeout=30)
    assert (result.returncode, result.stderr) == (0, b"")
    value = json.loads(result.stdout)
    jsonschema.validate(value, STATE_SCHEMA)
    SystemState.from_json(result.stdout)
    return dict(value)


def write(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode("latin-1"))
        if "bin/" in name:
            path.chmod(0o755)
    return root


def cpu_information(parts: list[int]) -> str:
    return "\n".join(
        f"processor\t: {number}\nFeatures\t: fp asimd crc32\nCPU implementer\t: 0x41\nCPU part\t: {part:#x}\n"
        for number, part in enumerate(parts)
    )


def raspberry_pi(root: Path) -> Path:
    """Two of its cores are online, 0 and 3."""
    clocks = {"scaling_cur_freq": 1500000, "cpuinfo_min_freq": 600000, "cpuinfo_max_freq": 1800000}
    frequencies = {f"{CPU}/cpu{cpu}/cpufreq/{name}": f"{khz + cpu}\n" for cpu in (0, 3) for name, khz in clocks.items()}
    return write(
        root,
        {
            **frequencies,
            f"{CPU}/online": "0,3\n",
            f"{CPU}/cpu0/cpufreq/scaling_governor": "ondemand\n",
            f"{CPU}/cpu3/regs/identification/midr_el1": "0x00000000410fd083\n",
            "proc/cpuinfo": cpu_information([0xD03, 0xD03, 0xD03, 0xD03]),
            "proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.4\0",
            "proc/loadavg": "0.25 0.30 0.35 1/200 1234\n",
            "proc/meminfo": "MemTotal:        3884360 kB\nMemFree:  1 kB\nMemAvailable:    3500000 kB\n",
            "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
            "sys/class/thermal/thermal_zone0/temp": "48686\n",
            "sys/class/thermal/thermal_zone1/type": "cpu-thermal\n",
            "sys/class/thermal/thermal_zone1/temp": "-1500\n",
            "sys/class/thermal/thermal_zone2/temp": "-256000\n",
            "sys/class/thermal/thermal_zone3/temp": "50000\n",
            "usr/bin/vcgencmd": '#!/bin/sh\n[ "$*" = get_throttled ] && echo throttled=0x50005\n',
            "bin/sh": "\x7fELF\1\1\1" + "\0" * 9 + "\2\0\3\0" + "\0" * 40,
        },
    )


def test_raspberry_pi(probe: Path, tmp_path: Path) -> None:
    """A clock, a core, a temperature or the throttling of a Raspberry Pi is not found, or is another one's."""
    value = state(probe, raspberry_pi(tmp_path))
    assert value["cpus"] == [
        {
            "cpu": 0,
            "implementer": 0x41,
            "part": 0xD03,  # from /proc/cpuinfo, since only processor 3 has the register's file
            "khz": 1500000,
            "minimum_khz": 600000,
            "maximum_khz": 1800000,
            "governor": "ondemand",
        },
        {
            "cpu": 3,
            "implementer": 0x41,
            "part": 0xD08,
            "khz": 1500003,
            "minimum_khz": 600003,
            "maximum_khz": 1800003,
            "governor": None,
        },
    ]
    assert value["board"] == "Raspberry Pi 4 Model B Rev 1.4"
    assert value["cpu_flags"] == "fp asimd crc32"
    assert value["temperatures"] == {"cpu-thermal": 48.686, "cpu-thermal 1": -1.5, "thermal_zone3": 50.0}
    assert value["throttled"] == 0x50005
    assert value["load_average"] == 0.25
    assert value["memory_total_bytes"] == 3884360 * 1024 and value["memory_available_bytes"] == 3500000 * 1024
    assert value["userland_bits"] == 32
    assert value["emulated"] is False
    assert [value[name] for name in ("power_mode", "jetson_linux", "cuda_version", "glibc")] == [None] * 4


H200 = (
    "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.54.15  Release Build  (dvs-builder@U16)  Tue Mar 5\n"
)
ORIN = "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  540.4.0  Release Build  (buildbrain@mobile)\n"
OLDER = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  470.256.02  Thu May  2 14:37:44 UTC 2024\nGCC version:  gcc 12.2.0\n"
SMI = """#!/bin/sh
[ "$*" = "--query-gpu=name,compute_cap,memory.total --format=csv,noheader" ] || exit 1
"""
GPU_FIELDS = ("gpu_driver", "gpu_name", "gpu_compute_capability", "gpu_memory_bytes")


@pytest.mark.parametrize(
    ("version", "answer", "expected"),
    [
        (H200, "echo 'NVIDIA H200, 9.0, 143771 MiB'; echo other", ["550.54.15", "NVIDIA H200", "9.0", 143771 << 20]),
        (ORIN, "echo 'Orin (nvgpu), [N/A], [N/A]'", ["540.4.0", "Orin (nvgpu)", None, None]),
        (OLDER, "exit 6", ["470.256.02", None, None, None]),
        (OLDER, "echo 'Tesla T4, 7.5, much'", ["470.256.02", "Tesla T4", "7.5", None]),
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module", "echo 'NVIDIA H200, 9.0, 1 MiB'", [None] * 4),
        (None, "echo 'NVIDIA H200, 9.0, 1 MiB'", [None] * 4),
    ],
)
def test_gpu(probe: Path, tmp_path: Path, version: str | None, answer: str, expected: list[object]) -> None:
    """The driver or the GPU is not found, or nvidia-smi is started on machines without NVIDIA's driver."""
    files = {"usr/bin/nvidia-smi": SMI + answer + "\n"}
    value = state(probe, write(tmp_path, files | ({} if version is None else {"proc/driver/nvidia/version": version})))
    assert [value[name] for name in GPU_FIELDS] == expected


def test_jetson(probe: Path, tmp_path: Path) -> None:
    """The power mode, the release or CUDA of a Jetson is not found."""
    library = "\x7fELF\2\1\1" + "\0" * 9 + "\3\0\x3e\0" + "\0" * 16500
    library += "GNU C Library (Ubuntu GLIBC 2.35-0ubuntu3.8) stable release version 2.35.\nCopyright"
    files = {
        "proc/cpuinfo": cpu_information([0xD42] * 6),
        "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic\n",
        "usr/local/cuda/version.json": '{\n "cuda" : {\n  "name" : "CUDA SDK",\n  "version" : "12.6.68"\n }\n}\n',
        "usr/sbin/nvpmodel": "#!/bin/sh\necho 'NV Power Mode: MAXN_SUPER'; echo 2\n",
        "lib/x86_64-linux-gnu/libc.so.6": library,
    }
    value = state(probe, write(tmp_path, files))
    assert [value[name] for name in ("power_mode", "jetson_linux", "cuda_version", "glibc")] == [
        *("MAXN_SUPER", "R36.4.3", "12.6.68", "2.35")
    ]
    assert [(cpu["cpu"], cpu["implementer"], cpu["part"]) for cpu in value["cpus"]] == [
        (number, 0x41, 0xD42) for number in range(6)
    ]
    # The name of the library may lie across two reads.
    for shift in range(16384 - 90, 16384 + 10, 13):
        write(tmp_path, {"lib/x86_64-linux-gnu/libc.so.6": library[:20] + "\0" * (shift - 20) + library[-85:]})
        assert state(probe, tmp_path)["glibc"] == "2.35"
    (tmp_path / "usr/local/cuda/version.json").unlink()
    write(tmp_path, {"usr/local/cuda/version.txt": "CUDA Version 10.2.300\n"})
    assert state(probe, tmp_path)["cuda_version"] == "10.2.300"


def test_old_kernels_describe_the_core_once(probe: Path, tmp_path: Path) -> None:
    """On a 32-bit kernel, where /proc/cpuinfo ends with the core of all processors, the cores stay unknown."""
    text = "processor\t: 0\nBogoMIPS\t: 38.40\n\nprocessor\t: 1\nBogoMIPS\t: 38.40\n\n"
    text += "Features\t: half thumb neon\nCPU implementer\t: 0x41\nCPU part\t: 0xd03\n"
    cpus = state(probe, write(tmp_path, {"proc/cpuinfo": text}))["cpus"]
    assert [(cpu["cpu"], cpu["implementer"], cpu["part"]) for cpu in cpus] == [(0, 0x41, 0xD03), (1, 0x41, 0xD03)]


def test_nothing_there(probe: Path, tmp_path: Path) -> None:
    """On a system without /proc and /sys the probe fails, or makes something up."""
    value = state(probe, tmp_path)
    assert (value["cpus"], value["temperatures"]) == ([], {})
    known = {name for name, found in value.items() if found not in (None, [], {})}
    assert known == {"host", "machine", "kernel", "disk_available_bytes", "emulated"}


@pytest.mark.parametrize(
    "script",
    [
        "exec sleep 60",
        "echo throttled=0x50005; exec sleep 60",
        "sleep 5 & echo throttled=0x5",
        "exec yes throttled=",
        "echo throttled=0x50005; exit 1",
        "echo VCHI initialization failed",
        "kill -9 $$",
        "echo throttled=0x5 >&2",
    ],
)
def test_a_program_that_misbehaves(released: Path, tmp_path: Path, script: str) -> None:
    """vcgencmd without rights, or with a firmware that hangs, blocks a profile or is believed."""
    root = write(tmp_path, {"usr/bin/vcgencmd": f"#!/bin/sh\n{script}\n"})
    before = time.monotonic()
    throttled = state(released, root)["throttled"]
    assert throttled == (5 if "& echo" in script else None)
    assert time.monotonic() - before < 10


def test_unusable_files(probe: Path, tmp_path: Path) -> None:
    """Files of another kind, without end, or of another format block or crash the probe."""
    root = raspberry_pi(tmp_path)
    for name in ("proc/meminfo", "bin/sh", f"{CPU}/cpu0/cpufreq/scaling_governor"):
        (root / name).unlink()
    (root / "proc/meminfo").mkdir()
    (root / "bin/sh").symlink_to("/dev/zero")
    subprocess.run(["mkfifo", root / CPU / "cpu0/cpufreq/scaling_governor"], check=True)
    (root / "lib").mkdir()
    (root / "lib/libc.so.6").symlink_to("/dev/zero")
    write(root, {"proc/device-tree/model": '\x1b]0;title\x07 \xff "quoted" \\ text', f"{CPU}/online": "0-99999999\n"})
    value = state(probe, root)
    assert value["memory_total_bytes"] is None and value["userland_bits"] is None and value["glibc"] is None
    assert value["cpus"][0]["governor"] is None and len(value["cpus"]) == 512
    assert value["board"] == '?]0;title? ? "quoted" \\ text'


def test_damaged_files(probe: Path, tmp_path: Path) -> None:
    """Some file that nobody thought of makes the probe crash, or write what is no JSON or out of range."""
    generator = np.random.default_rng(5)
    root = raspberry_pi(tmp_path)
    (root / "usr/bin/vcgencmd").unlink()
    originals = {path: path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}
    for _ in range(30):
        for path, original in originals.items():
            content = bytearray(original)
            for place in generator.integers(0, len(content), generator.integers(0, 4)):
                content[place] = generator.choice(list(b'\0\n\t:-.,0x9e\xff\x1b"\\'))
            path.write_bytes(bytes(content[: generator.integers(1, len(content) + 1)]))
        state(probe, root)


def test_options_and_broken_output(probe: Path) -> None:
    """A mistyped option, or an output that cannot be written, passes for success."""
    for words in (["--fast"], ["--root"], ["--root", "/", "more"], ["/"]):
        result = subprocess.run([probe, *words], capture_output=True, text=True)
        assert result.returncode == 2 and result.stderr.count("\n") == 1 and result.stdout == ""
    with open("/dev/full", "w") as full:
        result = subprocess.run([probe], stdout=full, stderr=subprocess.PIPE, text=True)
    assert result.returncode == 2 and result.stderr == "probe: cannot write to standard output.\n"
