"""What doctor found, as it is printed."""

from __future__ import annotations

from bnn_deploy.doctor.check import Check, Status
from bnn_deploy.doctor.report import BoardChecks, DoctorReport
from bnn_deploy.report.doctor_text import doctor_text

FINE = Check("disk", Status.OK, "9 GB free")
WARNING = Check("qemu", Status.WARNING, "not found", "Install it.")
ERROR = Check("system", Status.ERROR, "32-bit", "Install a 64-bit one.")


def test_this_machine() -> None:
    """Breaks if the table names this machine as if it were a board, or the advice does not say to which check it belongs."""
    assert doctor_text(DoctorReport(None, (BoardChecks("laptop", (FINE, WARNING)),))).splitlines() == [
        "status   check  found",
        "ok       disk   9 GB free",
        "warning  qemu   not found",
        "qemu: Install it.",
        "bnn-deploy can work here.",
    ]


def test_a_fleet() -> None:
    """Breaks if nobody can tell whose row is whose, or one bad board is not one too many."""
    report = DoctorReport("tracker://t", (BoardChecks("a", (FINE,)), BoardChecks("b", (ERROR,))))
    assert doctor_text(report).splitlines() == [
        *("a:", "status  check  found", "ok      disk   9 GB free", ""),
        *("b:", "status  check   found", "error   system  32-bit", "system: Install a 64-bit one.", ""),
        "bnn-deploy cannot work on tracker://t until the errors above are gone.",
    ]
    assert not report.works and [row["board"] for row in report.to_dict()["checks"]] == ["a", "b"]
