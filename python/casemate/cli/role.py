"""`casemate role`: lists what the policy's roles allow, and who holds them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from casemate.cli import console
from casemate.cli.console import HomeOption, JsonOption

if TYPE_CHECKING:
    from casemate.home import Home
    from casemate.policy import Rule

app: typer.Typer = typer.Typer(
    name="role",
    help="Roles of policy.toml, and who holds them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("list", short_help="List the roles and who holds them.")
def list_roles(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List the roles of the policy, how many rules each has, and who holds it."""
    opened = console.open_home(home)
    policy, holders = opened.policy(), _holders(opened)
    rows: list[dict[str, object]] = [
        {"name": name, "rules": len(rules), "held by": holders.get(name, [])}
        for name, rules in policy.roles.items()
    ]
    console.answer_table(("name", "rules", "held by"), rows, as_json=as_json)


@app.command(short_help="Show what a role allows and where that stands.")
def show(
    name: Annotated[str, typer.Argument(help="A role of policy.toml.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a role allows, where each rule stands, and who holds it; the rest is denied."""
    opened = console.open_home(home)
    policy = opened.policy()
    policy.require_roles([name], "the command line")
    rules, held = policy.roles[name], _holders(opened).get(name, [])
    console.answer(
        {
            "name": name,
            "rules": [
                {
                    "operation": rule.operation,
                    "filter": rule.filter,
                    "qos_max": rule.qos_max,
                    "retain": rule.retain,
                    "where": rule.where,
                }
                for rule in rules
            ],
            "held_by": held,
        },
        [
            *(_line(rule) for rule in rules),
            *([] if rules else ["allows nothing"]),
            f"held by    {', '.join(held) or 'nobody'}",
        ],
        as_json=as_json,
    )


def _line(rule: Rule) -> str:
    retain = ", may retain" if rule.retain else ""
    return f"{rule.operation:9}  {rule.filter}  (QoS up to {rule.qos_max}{retain}; {rule.where})"


def _holders(home: Home) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    with home.accounts() as store:
        for account in store.list():
            for role in account.roles:
                found.setdefault(role, []).append(account.name)
    return found
