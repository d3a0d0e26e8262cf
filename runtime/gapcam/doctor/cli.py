"""`gapcam doctor`: what is installed, what fits together, what is missing and the command that mends it."""

from __future__ import annotations

import click

from gapcam.errors import ExitCode


@click.command(name="doctor", short_help="Say which devices work here, and what mends those that do not.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: devices, findings and all facts.")
def doctor_command(as_json: bool) -> int:
    """Say which devices work here, what is installed, what fits together, and what mends what does not.

    A small model is tried on each device, each in a process of its own; nothing is changed. The exit code is 0 where at
    least one device works (the CPU counts), else 6.

    \b
    Examples:
      gapcam doctor
      gapcam doctor --json | jq '.devices[] | select(.works) | .name'
    """  # noqa: D301 - the backspace is click's mark for a paragraph that it must not wrap
    import msgspec

    from gapcam.cli.console import progress_bar, write_line
    from gapcam.doctor.gather import gather
    from gapcam.doctor.judge import devices, judge
    from gapcam.doctor.machine import ThisMachine
    from gapcam.doctor.native import QUESTIONS
    from gapcam.doctor.report import report

    with progress_bar() as bar:
        task = bar.add_task("asking libraries", total=len(QUESTIONS))
        facts = gather(ThisMachine(), after_question=lambda: bar.advance(task))
    findings = judge(facts)
    found = devices(facts, findings)
    if as_json:
        write_line(msgspec.json.encode({"devices": found, "findings": findings, "facts": facts}).decode())
    else:
        for line in report(facts, found, findings):
            write_line(line)
    return ExitCode.DONE if any(device.works for device in found) else ExitCode.MISSING
