"""The cutover's table, drawn for the documentation: ``python -m shards.fleet.diagram`` prints it."""

from __future__ import annotations

from shards.fleet.cutover import TABLE, Event, Step


def diagram() -> str:
    """Draw the table in Mermaid's language.

    An arrow without a word is a step that went well. Where an event leaves a cutover at its step, to be done again,
    there is no arrow.
    """
    lines = ["stateDiagram-v2", f"  [*] --> {Step.DEPLOY}"]
    for step, row in TABLE.items():
        words: dict[Step, list[str]] = {}
        for event in Event:
            following = row.on(event)
            if following not in (None, step):
                words.setdefault(following, []).append("" if event is Event.OK else str(event))
        for following, why in words.items():
            label = ", ".join(word for word in why if word) if "" not in why else ""
            lines.append(f"  {step} --> {following}" + (f": {label}" if label else ""))
    lines += [f"  {end} --> [*]" for end in (Step.DONE, Step.UNDONE)]
    return "\n".join(lines)


def actions() -> str:
    """Write what each step does as rows of a Markdown table."""
    rows = ["| step | does | where that fails |", "|---|---|---|"]
    for step, row in TABLE.items():
        does = ", ".join(str(action).replace("_", " ") for action in row.does) or "waits for a word"
        rows.append(f"| {step} | {does} | {row.failed or 'stays'} |")
    return "\n".join(rows)


if __name__ == "__main__":
    print(f"```mermaid\n{diagram()}\n```\n\n{actions()}")
