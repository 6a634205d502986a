"""The file system of a board for tests: an arm64 userland with what a Raspberry Pi or a Jetson tells of itself.

    board = EmulatedBoard(tmp_path / "board", "raspberry_pi_4")
    with BoardServer(board, tmp_path / "server") as server:                # board_server.py: an OpenSSH server
        client = SshClient(tmp_path / "client", {"raspberrypi.local": server})
        # with client.environment(), `ssh pi@raspberrypi.local` is a shell on the board

The board's programs are Debian's arm64 busybox; proot makes ``board.root`` their root folder, and qemu runs them. The flavour
"pc" is no emulation: this machine's own sh and tools (GNU's, on Debian), with a home of their own.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

BUSYBOX = Path(__file__).parent.parent.parent / ".boards" / "busybox" / "bin" / "busybox"
EMULATOR = "qemu-aarch64"


@dataclass(frozen=True)
class Flavour:
    """What tells one kind of board from another.

    Attributes:
        user: name of its only account.
        core: qemu's name of the processor.
        kernel: release of its kernel.
        part: of Arm's MIDR register.
        cpus: how many.
        features: of /proc/cpuinfo.
        khz: minimum, present and maximum clock.
        files: further files and their content, by path.
        programs: further shell scripts, by path.
    """

    user: str
    core: str
    kernel: str
    part: int
    cpus: int
    features: str
    khz: tuple[int, int, int]
    files: dict[str, str] = field(default_factory=dict)
    programs: dict[str, str] = field(default_factory=dict)


FLAVOURS = {
    "raspberry_pi_4": Flavour(
        "pi",
        "cortex-a72",
        "6.6.31+rpt-rpi-v8",
        0xD08,
        4,
        "fp asimd evtstrm crc32 cpuid",
        (600_000, 1_500_000, 1_800_000),
        {"proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.4\0"},
        {"usr/bin/vcgencmd": '[ "$1" = get_throttled ] && echo throttled=0x0'},
    ),
    "raspberry_pi_3": Flavour(
        "pi",
        "cortex-a53",
        "6.6.31+rpt-rpi-v8",
        0xD03,
        4,
        "fp asimd evtstrm crc32 cpuid",
        (600_000, 600_000, 1_400_000),
        {"proc/device-tree/model": "Raspberry Pi 3 Model B Plus Rev 1.3\0"},
        # Under-voltage now and before: a weak power supply.
        {"usr/bin/vcgencmd": '[ "$1" = get_throttled ] && echo throttled=0x50005'},
    ),
    "jetson_orin": Flavour(
        "nvidia",
        "max",
        "5.15.148-tegra",
        0xD42,
        6,
        "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp uscat ilrcpc flagm",
        (115_200, 1_510_400, 1_510_400),
        {
            "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
            "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n",
            "usr/local/cuda/version.json": '{"cuda": {"name": "CUDA SDK", "version": "12.6.68"}}\n',
        },
        {"usr/sbin/nvpmodel": "echo 'NV Power Mode: 15W'; echo 0"},
    ),
}


class EmulatedBoard:
    """A board's files in a folder.

    Attributes:
        root: the board's root folder.
        user: name of its account.
        home: the account's home folder, seen from here.
    """

    def __init__(self, root: Path, flavour: str = "raspberry_pi_4") -> None:
        self.root = root
        self.flavour = FLAVOURS.get(flavour)
        assert self.flavour is not None or flavour == "pc", f"no flavour {flavour}"
        self.user = self.flavour.user if self.flavour else "user"
        self.home = root / "home" / self.user
        for folder in (self.home, root / "tmp", root / "bin"):
            folder.mkdir(parents=True)
        if self.flavour:
            self._fill(self.flavour)

    def write(self, path: str, content: str, mode: int = 0o644) -> None:
        """A file of the board; ``path`` without the leading slash."""
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(content)
        place.chmod(mode)

    def write_program(self, path: str, script: str) -> None:
        """A shell script of the board. On emulated boards it cannot replace a program of busybox, whose shell prefers its own."""
        self.write(path, f"#!/bin/sh\n{script}\n", 0o755)

    def command(self, script: str, *, environment: dict[str, str] | None = None) -> list[str]:
        """Words that run a shell script on the board, as the account's login shell would, from its home folder.

        Args:
            script: what ``sh -c`` gets.
            environment: added to, or with an empty value taken from, HOME, USER and PATH.
        """
        inside = f"/home/{self.user}"
        home = inside if self.flavour else str(self.home)
        path = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin" if self.flavour else f"{self.root}/bin:/usr/bin:/bin"
        variables = {"HOME": home, "USER": self.user, "PATH": path, **(environment or {})}
        if not self.flavour:
            variables["TMPDIR"] = str(self.root / "tmp")
        clean = ["env", "-i", "-C", str(self.home), *(f"{name}={value}" for name, value in variables.items() if value)]
        if not self.flavour:
            return [*clean, "sh", "-c", script]
        emulator = f"{shutil.which(EMULATOR)} -cpu {self.flavour.core} -r {self.flavour.kernel}"
        devices = [word for name in ("null", "zero", "full", "urandom") for word in ("-b", f"/dev/{name}")]
        proot = [str(shutil.which("proot")), "-q", emulator, "-r", str(self.root), *devices, "-w", inside]
        return [*clean, *proot, "/bin/sh", "-c", script]

    def run(self, script: str) -> str:
        """What a shell script prints on the board, without ssh."""
        return subprocess.run(self.command(script), stdout=subprocess.PIPE, text=True, check=True, timeout=60).stdout

    def session_script(self, environment: dict[str, str] | None = None, prelude: str = "") -> str:
        """A shell script of this machine that is one session of the board's ssh server, which sets SSH_ORIGINAL_COMMAND.

        Args:
            environment: see ``command``.
            prelude: shell commands of this machine that come first, such as ``ulimit``.
        """
        *words, _ = self.command("", environment=environment)
        transfer = "exec /usr/lib/openssh/sftp-server"
        if self.flavour:
            # scp's server is a program of this machine; it sees the board's files and this machine's libraries.
            libraries = " ".join(f"-b {name}" for name in ("/lib", "/lib64", "/usr/lib") if Path(name).exists())
            transfer = f"exec proot -r {shlex.quote(str(self.root))} {libraries} -b /dev -w /home/{self.user} "
            transfer += "/usr/lib/openssh/sftp-server"
        return f"""#!/bin/sh
{prelude}
case $SSH_ORIGINAL_COMMAND in
*sftp-server) {transfer} ;;
'') SSH_ORIGINAL_COMMAND='exec sh' ;;
esac
exec {shlex.join(words)} "$SSH_ORIGINAL_COMMAND"
"""

    def find(self, pattern: str) -> list[Path]:
        """Files of the board whose names match, sorted."""
        # proot makes /host-rootfs, and takes it away, while something runs.
        tops = [folder for folder in self.root.iterdir() if folder.name != "host-rootfs"]
        return sorted(path for folder in tops for path in folder.rglob(pattern))

    def leftovers(self) -> list[str]:
        """Paths of everything that a program put on the board, but for the caches of bnn-deploy, which may stay."""
        found = []
        for folder in (self.home, self.root / "tmp"):
            for path in sorted(folder.rglob("*")):
                parts = path.relative_to(self.root).parts
                cached = any(part == "bnn-deploy" or part.startswith("bnn-deploy-") for part in parts)
                passing = path.name == "runner.part" or path.name.startswith(("work.", "try."))
                if passing or not (cached or path.name == ".cache"):
                    found.append(str(path.relative_to(self.root)))
        return found

    def _fill(self, flavour: Flavour) -> None:
        busybox = self.root / "bin" / "busybox"
        shutil.copy(BUSYBOX, busybox)
        listed = subprocess.run([EMULATOR, str(busybox), "--list"], capture_output=True, text=True, check=True)
        for name in listed.stdout.split():
            if name != "busybox":
                (self.root / "bin" / name).symlink_to("busybox")
        account = f"{self.user}:x:{os.getuid()}:{os.getgid()}::/home/{self.user}:/bin/sh\n"
        self.write("etc/passwd", account)
        self.write("etc/group", f"{self.user}:x:{os.getgid()}:\n")
        core = (
            f"Features\t: {flavour.features}\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x0\n"
            f"CPU part\t: {flavour.part:#05x}\nCPU revision\t: 3\n"
        )
        self.write(
            "proc/cpuinfo", "\n".join(f"processor\t: {cpu}\nBogoMIPS\t: 108.00\n{core}" for cpu in range(flavour.cpus))
        )
        self.write(
            "proc/meminfo", "MemTotal:        3885396 kB\nMemFree:         3013120 kB\nMemAvailable:    3391268 kB\n"
        )
        self.write("proc/loadavg", "0.08 0.03 0.01 1/161 1234\n")
        self.write("proc/uptime", "1234.56 4900.12\n")
        self.write("proc/mounts", "/dev/root / ext4 rw,noatime 0 0\n")
        minimum, now, maximum = flavour.khz
        for cpu in range(flavour.cpus):
            folder = f"sys/devices/system/cpu/cpu{cpu}"
            for name, khz in (("min", minimum), ("cur", now), ("max", maximum)):
                self.write(f"{folder}/cpufreq/scaling_{name}_freq", f"{khz}\n")
                self.write(f"{folder}/cpufreq/cpuinfo_{name}_freq", f"{khz}\n")
            self.write(f"{folder}/cpufreq/scaling_governor", "ondemand\n")
            midr = 0x41 << 24 | 0xF << 16 | flavour.part << 4 | 3
            self.write(f"{folder}/regs/identification/midr_el1", f"{midr:#018x}\n")
        for name in ("online", "possible", "present"):
            self.write(f"sys/devices/system/cpu/{name}", f"0-{flavour.cpus - 1}\n")
        self.write("sys/class/thermal/thermal_zone0/type", "cpu-thermal\n")
        self.write("sys/class/thermal/thermal_zone0/temp", "48686\n")
        for path, content in flavour.files.items():
            self.write(path, content)
        for path, script in flavour.programs.items():
            self.write_program(path, script)


def needs_board(*, emulated: bool = True) -> None:
    """Skip the test where the tools of boards are missing; in continuous integration (CI is set) that is a failure.

    Args:
        emulated: the board is not a "pc".
    """
    tools = ["ssh", "ssh-keygen", "proot", EMULATOR] if emulated else ["ssh", "ssh-keygen"]
    missing = [tool for tool in tools if shutil.which(tool) is None]
    missing += [str(path) for path in (Path("/usr/sbin/sshd"), *([BUSYBOX] if emulated else [])) if not path.exists()]
    if missing:
        sentence = f"missing: {', '.join(missing)} (Debian packages openssh-server, proot, qemu-user; .ci/boards)"
        if os.environ.get("CI"):
            pytest.fail(sentence)
        pytest.skip(sentence)
