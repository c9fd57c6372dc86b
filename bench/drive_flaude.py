"""Drives an installed flaude for the benchmark: a command a line on standard input, what came of it a line on standard output.

flaude is used by its documented functions. Two things are not as it has them: its addresses are those of the local Fly, and
the volume of a session is named with an underscore, since Fly refuses a volume's name with a hyphen in it.
"""

import asyncio
import importlib.metadata
import json
import sys
import time

import flaude.fly_client
import flaude.session
from flaude import MachineConfig, create_session, destroy_session, ensure_app, fetch_machine_logs, run_session_turn

TOKEN = "fly-local"  # as the Machines API takes it
LOGS_TOKEN = "FlyV1 fly-local"  # flaude sends the log API its token as it is


def point_at(fly):
    flaude.fly_client.FLY_API_BASE = fly + "/v1"
    flaude.fly_client.FLY_PLATFORM_API_BASE = fly
    create_volume = flaude.session.create_volume

    def named_as_fly_takes_it(app_name, *, name, **rest):
        return create_volume(app_name, name=name.replace("-", "_"), **rest)

    flaude.session.create_volume = named_as_fly_takes_it


class Driver:
    def __init__(self, app, env, repo):
        self.app, self.env, self.repo, self.session = app, env, repo, None

    def config(self, prompt, **session):
        return MachineConfig(
            image="registry.fly.io/bench-app:latest", claude_code_oauth_token="sk-ant-local", prompt=prompt, repos=[self.repo], env=self.env, **session
        )

    async def first(self, prompt):
        self.session, result = await create_session(self.app, self.config(prompt), token=TOKEN)
        return result

    async def follow_up(self, prompt):
        s = self.session
        config = self.config(prompt, auto_destroy=False, session_id=s.session_id, volume_id=s.volume_id)
        return await run_session_turn(self.app, s.machine_id, config, token=TOKEN)

    async def answer(self):
        """The turn's answer, which is in the log alone."""
        while True:
            lines = await fetch_machine_logs(self.app, self.session.machine_id, token=LOGS_TOKEN)
            starts = [i for i, line in enumerate(lines) if line.startswith("[flaude:session:")]
            turn = lines[starts[-1] + 1 :] if starts else []
            if any(line.startswith("[flaude:exit:") for line in turn):
                return "\n".join(line for line in turn if not line.startswith("[flaude:"))
            await asyncio.sleep(0.05)

    async def turn(self, command):
        began, start = time.time(), time.perf_counter()
        run = self.first if command["do"] == "first" else self.follow_up
        result = await run(command["prompt"])
        answer = await self.answer()
        return {
            "began": began,
            "answer_ms": 1000 * (time.perf_counter() - start),
            "exit_code": result.exit_code,
            "answer": answer,
            "machine": self.session.machine_id,
        }

    async def do(self, command):
        if command["do"] == "ensure":
            await ensure_app(self.app, token=TOKEN)
            return {"version": importlib.metadata.version("flaude")}
        if command["do"] == "end":
            await destroy_session(self.app, self.session, token=TOKEN)
            return {}
        return await self.turn(command)


async def main():
    setup = json.loads(sys.argv[1])
    point_at(setup["fly"])
    driver = Driver(setup["app"], setup["env"], setup["repo"])
    for line in sys.stdin:
        print(json.dumps(await driver.do(json.loads(line))), flush=True)


asyncio.run(main())
