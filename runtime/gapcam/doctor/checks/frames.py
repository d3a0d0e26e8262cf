"""What frames go through: NumPy and OpenCV."""

from __future__ import annotations

from collections.abc import Iterator

from gapcam.doctor.facts import Facts
from gapcam.doctor.findings import DEVICES, Finding, Level

_OPENCV = ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless")


def check_numpy(facts: Facts) -> Iterator[Finding]:
    """Whether NumPy loads, and whether what was built against another NumPy does."""
    answer = facts.answers["numpy"]
    if answer.error is not None:
        yield Finding(
            level=Level.PROBLEM,
            subject="NumPy",
            found="not installed" if answer.absent else f"does not load: {answer.error}",
            expected="NumPy 1.26 or newer",
            command="pip install --force-reinstall numpy",
            devices=DEVICES,
        )
        return
    version = str(answer.values["version"])
    old = [name for name, answer in facts.answers.items() if "NumPy 1" in (answer.error or "")]
    modules = sorted({name.partition(" ")[0] for name in old} - {"device"})
    if modules:
        yield Finding(
            level=Level.PROBLEM,
            subject="NumPy",
            found=f"{version}, and built for NumPy 1 are: {', '.join(modules)}",
            expected="NumPy 1.26 beside modules that JetPack or apt built for NumPy 1",
            command="pip install 'numpy<2'",
        )
    else:
        yield Finding(level=Level.OK, subject="NumPy", found=version)


def check_opencv(facts: Facts) -> Iterator[Finding]:
    """Whether OpenCV loads, is there once, and can open a Jetson's cameras."""
    answer = facts.answers["opencv"]
    if answer.error is not None:
        yield Finding(
            level=Level.PROBLEM,
            subject="OpenCV",
            found="not installed" if answer.absent else f"does not load: {answer.error}",
            expected="OpenCV 4.10 or newer; the headless one needs no libGL",
            command="pip install --force-reinstall opencv-python-headless",
            devices=DEVICES,
        )
        return
    folders = [facts.distributions[name].folder for name in _OPENCV if name in facts.distributions]
    both = [name for name in _OPENCV if name in facts.distributions]
    if len(both) > len(set(folders)):
        yield Finding(
            level=Level.NOTE,
            subject="OpenCV",
            found=f"{' and '.join(both)} in one folder",
            expected="one of them: they overwrite each other's files, and which one is left differs",
            command=f"pip uninstall -y {' '.join(both)} && pip install opencv-python-headless",
        )
    values = answer.values
    parts = f"{values['version']}, {'with' if values['cuda'] else 'without'} CUDA, " + (
        f"{'with' if values['gstreamer'] else 'without'} GStreamer"
    )
    if facts.jetson and not values["gstreamer"]:
        yield Finding(
            level=Level.NOTE,
            subject="OpenCV",
            found=parts,
            expected="GStreamer, for a CSI camera by cv2.VideoCapture; apt's OpenCV has it",
            command="sudo apt install python3-opencv   # and no opencv-python beside it",
        )
    else:
        yield Finding(level=Level.OK, subject="OpenCV", found=parts)
