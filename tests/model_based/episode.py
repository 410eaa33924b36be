"""One episode: a seed, a deployment, some accounts, and everything that can happen to them, in one order.

Each step begins something (a call, a guest that does what it likes, time, the end of the process) and lets those who
are at work take some turns. Now and then all comes to rest, and the host, the store and the reference must agree.
"""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from random import Random

from orchestrator.host import Power
from orchestrator.model.layer import Layer
from orchestrator.model.owned import owned
from orchestrator.model.resource import Resource
from orchestrator.model.snapshot import Snapshot as SnapshotRow
from orchestrator.model.volume import Volume as VolumeRow
from tests.conftest import Clock
from tests.model_based.clients import UNAVAILABLE, Clients, Request
from tests.model_based.deployment import Deployment
from tests.model_based.draws import DRAWS, WITH_TOKEN, Draw, Nothing
from tests.model_based.laws import LAWS
from tests.model_based.reference import (
    READERS,
    Actor,
    Broken,
    Image,
    Instance,
    Interface,
    Nat,
    Params,
    Reference,
    Snapshot,
    Volume,
    seen,
)
from tests.model_based.scheduler import Killed, Task
from tests.model_based.shows import SHOWS

ACCOUNTS = ["111111111111", "222222222222", "333333333333"]
CLIENTS = 5  # calls at once
REST_EACH = 80  # steps
REST_WITHIN_S = 3600.0
TURNS = (0, 0, 1, 1, 2, 3, 5, 8, 13)


class Failed(AssertionError):
    """What was wrong, with all that had happened until then."""


class Episode:
    """With `traced`, the journal has every effect and every commit too. `chance` decides in the place of the seed."""

    def __init__(self, seed: str, state_dir: Path, *, traced: bool = False, chance: Random | None = None) -> None:
        self.seed = seed
        self.chance = chance or Random(seed)
        self.clock = Clock()
        self.journal: list[str] = []
        self.counts: Counter[str] = Counter()
        self.reference = Reference(LAWS)
        self.deployment = Deployment(state_dir, self.chance, self.clock)
        self.clients = Clients(self.deployment, self.reference, ACCOUNTS)
        self.deployment.committed = self.clients.committed
        self.deployment.fault = self._note_fault
        if traced:
            self.deployment.trace = self.journal.append
        self.weather = self.chance.choice(("calm", "windy", "windy", "stormy", "stormy"))
        self._calls: list[Task] = []
        self._busy_account = ACCOUNTS[0]
        self._recent: dict[str, deque[str]] = {}
        self._again: list[Request] = []  # whose answer was lost

    def run(self, steps: int) -> None:
        with self.deployment.predictable(Random(f"{self.seed} ids")):
            try:
                self._run(steps)
            except Exception as error:
                history = "\n".join(self.journal)
                raise Failed(f"{history}\n\nseed {self.seed}, {self.weather}: {error}") from error
            finally:
                self.deployment.end()

    def _run(self, steps: int) -> None:
        self.deployment.begin()
        self.deployment.furnish()
        self.clients.enrol()
        for row in self._rows():
            self.reference.put(seen(row))
        for step in range(steps):
            self._set_weather()
            self._step()
            for _ in range(self.chance.choice(TURNS)):
                self._turn()
            if step % REST_EACH == REST_EACH - 1 or step == steps - 1:
                self._rest()

    def _set_weather(self) -> None:
        rates = {"calm": (0.0, 0.0, 0.0), "windy": (0.08, 0.01, 0.01), "stormy": (0.2, 0.03, 0.03)}
        d = self.deployment
        d.fault_rate, d.fatal_commits, d.full_disk_rate = rates[self.weather]
        d.permanent = self.weather == "stormy"

    def _calm_down(self) -> None:
        d = self.deployment
        d.fault_rate = d.fatal_commits = d.full_disk_rate = 0.0

    def _note_fault(self, point: str, how: str) -> None:
        self.reference.faults += 1
        self.counts["faults"] += 1
        self.journal.append(f"        {point} {how}")

    # --- steps ---

    def _step(self) -> None:
        kind = self.chance.choices(
            [self._begin_call, self._begin_look, self._let_time_pass, self._let_a_guest, self._crash, self._lose_host],
            [60, 22, 8, 6, 0.0 if self.weather == "calm" else 1.5, 0.2],
        )[0]
        kind()

    def _turn(self) -> bool:
        try:
            went = self.deployment.turn()
        finally:
            self._collect()
        if self.deployment.is_dying:
            self._restart("after a commit")
        return went

    def _collect(self) -> None:
        """Answers that have come."""
        for task in [each for each in self._calls if each.is_done]:
            self._calls.remove(task)
            request: Request = task.notes["request"]
            self.journal.append(f"     {task.name} <- {request.outcome}")
            if self.deployment.is_dying or request.outcome == UNAVAILABLE:
                self._again.append(request)
            if task.error is not None and not isinstance(task.error, Killed):
                raise Broken(f"{task.name} {request}: {task.error}") from task.error

    def _begin(self, request: Request, work: Callable[[Request], None], *, writes: bool) -> None:
        while len(self._calls) >= CLIENTS:
            self._turn()
        self.counts["calls"] += 1
        name = f"call {self.counts['calls']}"
        self.journal.append(f"{name}: {request}")
        task = self.deployment.scheduler.spawn(name, lambda: work(request))
        task.notes["request"] = request
        if writes:
            task.notes["call"] = request
        self._calls.append(task)

    def _begin_call(self) -> None:
        if self._again and self.chance.random() < 0.5:
            lost = self._again.pop()
            if lost.action in DRAWS:  # a client whose answer never came asks again
                self._begin(Request(lost.who, lost.action, lost.params), self.clients.write, writes=True)
                return
        try:
            if self.chance.random() < 0.3:  # else the same one goes on
                self._busy_account = self.chance.choice(ACCOUNTS)
            self._begin_new_call(self._draw(self._busy_account))
        except Nothing:
            self._begin_call()

    def _draw(self, account: str) -> Draw:
        return Draw(self.chance, self.reference, account, self._recent.setdefault(account, deque(maxlen=4)))

    def _begin_new_call(self, draw: Draw) -> None:
        if self.reference.tokens and self.chance.random() < 0.04:
            self._repeat(draw)
            return
        actions, weights = list(DRAWS), [weight for weight, _ in DRAWS.values()]
        action = self.chance.choices(actions, weights)[0]
        params = DRAWS[action][1](draw)
        if action in WITH_TOKEN and self.chance.random() < 0.5:
            params["ClientToken"] = f"token-{self.chance.getrandbits(40):x}"
        elif self.chance.random() < 0.03:
            params["DryRun"] = True
        who = Actor(draw.account, user=self.chance.random() < 0.08)
        self._begin(Request(who, action, params), self.clients.write, writes=True)
        if "ClientToken" in params and self.chance.random() < 0.2:  # impatient: both race
            self._begin(Request(who, action, params), self.clients.write, writes=True)

    def _repeat(self, draw: Draw) -> None:
        """A token that was spent, with the same parameters or with others."""
        account, action, token = self.chance.choice(list(self.reference.tokens))
        params: Params = json.loads(self.reference.tokens[account, action, token][0])
        if self.chance.random() < 0.3:
            params = DRAWS[action][1](self._draw(account))
        params["ClientToken"] = token
        self._begin(Request(Actor(account), action, params), self.clients.write, writes=True)

    def _begin_look(self) -> None:
        who = Actor(self.chance.choice(ACCOUNTS), user=self.chance.random() < 0.2)
        if self.chance.random() < 0.07:
            self._begin(Request(who, "DescribeTags", {}), self.clients.read_tags, writes=False)
            return
        action = self.chance.choice(list(SHOWS))
        show = SHOWS[action]
        way = self.chance.random()
        draw = self._draw(who.account)
        if way < 0.3 and show.pages:
            self._begin(Request(who, action, {}), self.clients.read_pages, writes=False)
        elif way < 0.5:
            try:
                wanted = {show.ids: sorted(set(draw.ids(show.kind)))}
            except Nothing:
                return
            self._begin(Request(who, action, wanted), self.clients.read_ids, writes=False)
        elif way < 0.75 and show.filters:
            name = self.chance.choice(list(show.filters))
            values = [value for each in self.reference.of(show.kind) for value in _list(show.filters[name](each))]
            chosen = self.chance.sample(values, min(len(values), 2)) or ["none"]
            filters = {"Filters": [{"Name": name, "Values": chosen}]}
            self._begin(Request(who, action, filters), self.clients.read, writes=False)
        else:
            self._begin(Request(who, action, {}), self.clients.read, writes=False)

    def _let_time_pass(self) -> None:
        seconds = self.chance.choice((0.2, 1.0, 1.0, 5.0, 5.0, 30.0, 120.0, 1800.0))
        due = self.deployment.next_due_s()
        if due is not None and due < seconds and self.chance.random() < 0.7:
            seconds = due
        self.journal.append(f"{seconds} s pass")
        self.deployment.pass_time(seconds)

    def _let_a_guest(self) -> None:
        compute = self.deployment.host.compute
        running = sorted(name for name in compute.names() if compute._machines[name].power is Power.RUNNING)
        if not running:
            return
        name = self.chance.choice(running)
        events: dict[str, Callable[[str], None]] = {
            "powers itself off": self._power_off,
            "crashes": compute.crash,
            "reboots": compute.guest_reboots,
            "ignores the power button": compute.ignore_power_button,
            "holds on to its devices": compute.hold_on,
            "has an agent": compute.give_agent,
            "is flattened slowly": compute.flatten_slowly,
        }
        what = self.chance.choice(list(events))
        self.journal.append(f"the guest of {name} {what}")
        self.counts["guests"] += 1
        events[what](name)

    def _power_off(self, name: str) -> None:
        self.reference.powered_off.add(name)
        self.deployment.host.compute.guest_powers_off(name)

    def _lose_host(self) -> None:
        """Its power fails: the process ends too."""
        self.journal.append("the host boots anew")
        self.deployment.host.lose_host()
        self._restart("with the host")

    def _crash(self) -> None:
        self._restart("where it stands")

    def _restart(self, where: str) -> None:
        self.journal.append(
            f"--- the process ends {where}: {', '.join(t.name for t in self.deployment.scheduler.tasks)}"
        )
        self.counts["restarts"] += 1
        cut = [task for task in self._calls if not task.is_done]
        self.deployment.end()
        self._again += [task.notes["request"] for task in cut]
        self._calls.clear()
        self.deployment.begin()
        self._agree()

    # --- at rest ---

    def _rest(self) -> None:
        """Nothing fails and nobody asks, until nothing is to be done."""
        self._calm_down()
        until = self.clock().timestamp() + REST_WITHIN_S
        while True:
            self._let_go()
            while self._turn():
                pass
            self._calm_down()
            left = [*self._unsettled(), *self._host_differs()] if not self._calls else ["calls"]
            if not left:
                break
            due = self.deployment.next_due_s()
            if due is None or self.clock().timestamp() + due > until:
                raise Broken("this does not come to rest:\n  " + "\n  ".join(map(str, left)))
            self.deployment.pass_time(max(due, 0.01))
        self.counts["rests"] += 1
        self.journal.append("at rest")
        self._agree()
        for account in ACCOUNTS:
            for action in SHOWS:
                self.clients.read(Request(Actor(account), action, {}))
            self.clients.read_tags(Request(Actor(account), "DescribeTags", {}))

    def _let_go(self) -> None:
        """Guests do what they are asked to."""
        compute = self.deployment.host.compute
        for group in (compute._deaf, compute._grasping, compute._slow):
            group.clear()
        for name, machine in list(compute._machines.items()):
            for device in sorted(machine.leaving):
                with suppress(LookupError):
                    compute.guest_lets_go(name, device)
            for serial in sorted(machine.flattening):
                with suppress(LookupError):
                    compute.finish_flattening(name, serial)

    def _unsettled(self) -> Iterator[object]:
        """What is still under way, or has not become what was asked for last."""
        m = self.reference
        yield from (each for each in m.of(Instance) if each.state != each.wanted)
        for volume in m.of(Volume):
            at = volume.attachment.state if volume.attachment else "attached"
            if (
                volume.state in ("creating", "deleting")
                or volume.change in ("modifying", "optimizing")
                or at != "attached"
            ):
                yield volume
        yield from (each for each in m.of(Snapshot) if each.state == "pending")
        yield from (each for each in m.of(Image) if each.state == "pending")
        yield from (each for each in m.of(Nat) if each.state in ("pending", "deleting"))
        yield from (each for each in m.of(Interface) if each.attachment and each.attachment.state != "attached")

    def _host_differs(self) -> Iterator[str]:
        """What is on the host and should not be, and the other way round."""
        store, host = self.deployment.store, self.deployment.host
        by_right = owned(store)
        machines = set(host.compute.names())
        for name in machines ^ by_right.machines:
            yield f"machine {name} is {'there' if name in machines else 'not there'}"
        for name in set(host.storage.layers()) - by_right.layers:
            yield f"layer {name} is a leak"
        for name in sorted(self._needed_layers() - set(host.storage.layers())):
            yield f"layer {name} is lost"
        routers = set(host.network.applied)
        for name in routers ^ by_right.routers:
            yield f"router {name} is {'there' if name in routers else 'not there'}"
        ports = {port.name for router in host.network.applied.values() for port in router.ports}
        for name in ports ^ by_right.ports:
            yield f"port {name} is {'there' if name in ports else 'not there'}"
        for name in machines & by_right.machines:
            if host.compute._machines[name].power is not Power.RUNNING:
                yield f"machine {name} is off"
                continue
            disks = {disk.serial: disk.layer for disk in host.compute.disks(name)}
            rows = {each.id.replace("-", ""): each.layer_id for each in store.all(VolumeRow, instance_id=name)}
            if disks != rows:
                yield f"machine {name} has the disks {disks}, and its volumes are {rows}"
            nics = {nic.port for nic in host.compute.nics(name)}
            if nics != {each.id for each in self.reference.interfaces_of(name)}:
                yield f"machine {name} has the interfaces {nics}"

    def _needed_layers(self) -> set[str]:
        """Those that volumes and snapshots which can be used stand on."""
        store = self.deployment.store
        tops = [each.layer_id for each in store.all(VolumeRow) if each.state in ("available", "in-use")]
        tops += [each.layer_id for each in store.all(SnapshotRow) if each.state == "completed"]
        found: set[str] = set()
        for layer_id in tops:
            while layer_id and layer_id not in found:
                found.add(layer_id)
                layer = store.get(Layer, layer_id)
                layer_id = layer.parent_id if layer else ""
        return found

    def _rows(self) -> list[Resource]:
        tables = self.deployment.store._tables
        return [row for kind in READERS for row in tables[kind].rows.values()]

    def _agree(self) -> None:
        """The store has what the reference has."""
        rows = {row.id: seen(row) for row in self._rows()}
        known = {each.id: each for each in self.reference.things.values()}
        odd = [
            f"{rows.get(each)}\n  is in the store, and should be\n  {known.get(each)}"
            for each in sorted(rows.keys() | known.keys())
            if rows.get(each) != known.get(each)
        ]
        if odd:
            raise Broken("\n".join(odd))


def _list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value
