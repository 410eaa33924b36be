"""The server over loopback: who is answered, IMDSv1 and v2, what is answered, events, opening and shutting."""

from __future__ import annotations

import errno
import http.client
import json
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.metadata.server import TOKEN_HEADER, TTL_HEADER
from orchestrator.metadata.tree import Folder, Leaf, build, gather
from orchestrator.model.elastic_ip import ElasticIp
from orchestrator.model.instance import MetadataOptions
from orchestrator.model.lifecycle import State
from orchestrator.model.vpc import NetworkInterface
from tests.metadata.conftest import World, read_all

VPC = "vpc-00000000000000001"
OTHER_VPC = "vpc-00000000000000002"
ID_PATH = "/latest/meta-data/instance-id"
TOKEN_PATH = "/latest/api/token"


# --- who asks ---


def test_guests_are_told_apart_by_address(world: World) -> None:
    first, second = world.launch(2), world.launch(3)
    assert world.ask(2, ID_PATH).text == first.id
    assert world.ask(3, ID_PATH).text == second.id


def test_guests_are_told_apart_by_vpc(world: World) -> None:
    here, there = world.launch(2), world.launch(3, vpc_id=OTHER_VPC, interface={"private_ip": "127.0.0.2"})
    world.open(OTHER_VPC)
    assert world.ask(2, ID_PATH).text == here.id
    assert world.ask(2, ID_PATH, vpc_id=OTHER_VPC).text == there.id


def test_no_header_says_who_asks(world: World) -> None:
    first, second = world.launch(2), world.launch(3)
    lies = {
        "Host": "127.0.0.3",
        "X-Forwarded-For": "127.0.0.3",
        "Forwarded": "for=127.0.0.3",
        "X-Instance-ID": second.id,
        "X-Real-IP": "127.0.0.3",
    }
    assert world.ask(2, ID_PATH, headers=lies).text == first.id


def test_nobody_is_told_nothing(world: World) -> None:
    world.launch(2)
    for path in (ID_PATH, "/", "/latest/user-data"):
        assert world.ask(9, path).status == 404
    assert world.ask(9, TOKEN_PATH, "PUT", {TTL_HEADER: "60"}).status == 404


def test_a_terminated_instance_is_nobody(world: World) -> None:
    instance = world.launch(2)
    assert world.ask(2, ID_PATH).status == 200
    world.change(instance, state=State.TERMINATED)
    assert world.ask(2, ID_PATH).status == 404


@pytest.mark.parametrize("state", [State.PENDING, State.STOPPING, State.SHUTTING_DOWN])
def test_an_instance_on_its_way_is_answered(world: World, state: State) -> None:
    instance = world.launch(2, state=state)
    assert world.ask(2, ID_PATH).text == instance.id


def test_an_address_that_moved_belongs_to_its_new_instance(world: World) -> None:
    first, second = world.launch(2), world.launch(3)
    assert world.ask(2, ID_PATH).text == first.id
    with world.store.write() as tx:
        old, new = (tx.all(NetworkInterface, instance_id=instance.id)[0] for instance in (first, second))
        tx.put(replace(old, private_ip="127.0.0.4"))
        tx.put(replace(new, private_ip="127.0.0.2"))
    assert world.ask(2, ID_PATH).text == second.id


# --- tokens ---


def test_version_one_needs_no_token_while_they_are_optional(world: World) -> None:
    instance = world.launch(2)
    assert world.ask(2, ID_PATH).text == instance.id
    assert world.ask(2, ID_PATH, headers=world.with_token(2)).text == instance.id
    assert world.ask(2, ID_PATH, headers={TOKEN_HEADER: "nonsense"}).status == 401
    assert world.ask(2, ID_PATH, headers={TOKEN_HEADER: ""}).status == 401


def test_version_two_needs_one(world: World) -> None:
    instance = world.launch(2, metadata=MetadataOptions(http_tokens="required"))
    assert world.ask(2, ID_PATH).status == 401
    assert world.ask(2, "/latest/meta-data/nothing").status == 401
    assert world.ask(2, ID_PATH, headers=world.with_token(2)).text == instance.id


def test_a_token_is_for_its_instance(world: World) -> None:
    world.launch(2)
    world.launch(3)
    assert world.ask(3, ID_PATH, headers=world.with_token(2)).status == 401


def test_a_token_ends(world: World, clock: Any) -> None:
    world.launch(2)
    headers = {TOKEN_HEADER: world.token(2, ttl_s=1)}
    assert world.ask(2, ID_PATH, headers=headers).status == 200
    clock.pass_(seconds=1)
    assert world.ask(2, ID_PATH, headers=headers).status == 401


def test_tokens_outlive_the_controller(start_world: Callable[[], World]) -> None:
    world = start_world()
    world.open()
    world.launch(2)
    headers = world.with_token(2)
    again = start_world()
    again.open()
    assert again.ask(2, ID_PATH, headers=headers).status == 200


def test_the_answer_to_a_token_request(world: World) -> None:
    world.launch(2)
    answer = world.ask(2, TOKEN_PATH, "PUT", {TTL_HEADER: "21600"})
    assert answer.status == 200
    assert answer.headers[TTL_HEADER] == "21600"
    assert answer.headers["Content-Type"] == "text/plain"
    assert len(answer.body) == 56


@pytest.mark.parametrize("ttl", [None, "", "0", "21601", "-1", "+5", " ", "5.0", "1e3", "999999999999", "0x10"])
def test_a_ttl_out_of_range_is_refused(world: World, ttl: str | None) -> None:
    world.launch(2)
    assert world.ask(2, TOKEN_PATH, "PUT", {} if ttl is None else {TTL_HEADER: ttl}).status == 400


def test_a_token_request_that_came_by_a_proxy_is_refused(world: World) -> None:
    world.launch(2)
    assert world.ask(2, TOKEN_PATH, "PUT", {TTL_HEADER: "60", "X-Forwarded-For": "10.0.0.1"}).status == 403


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE", "OPTIONS"])
def test_a_token_is_asked_for_with_put_alone(world: World, method: str) -> None:
    world.launch(2)
    answer = world.ask(2, TOKEN_PATH, method, {TTL_HEADER: "60"})
    assert (answer.status, answer.headers["Allow"]) == (405, "PUT")


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_the_tree_is_only_read(world: World, method: str) -> None:
    world.launch(2)
    answer = world.ask(2, ID_PATH, method)
    assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")


def test_options_act_at_once(world: World) -> None:
    instance = world.launch(2)
    with world.connect(2) as connection:  # on a connection that was there before, too

        def status() -> int:
            connection.sendall(f"GET {ID_PATH} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            head, _, body = connection.recv(65536).partition(b"\r\n\r\n")
            assert body
            return int(head.split()[1])

        assert status() == 200
        world.options(instance, http_tokens="required")
        assert status() == 401
        world.options(instance, http_endpoint="disabled")
        assert status() == 403
        assert world.ask(2, TOKEN_PATH, "PUT", {TTL_HEADER: "60"}).status == 403
        world.options(instance, http_endpoint="enabled", http_tokens="optional")
        assert status() == 200


def test_tags_appear_when_the_option_is_set(world: World) -> None:
    instance = world.launch(2)
    assert world.ask(2, "/latest/meta-data/tags/instance/Name").status == 404
    world.options(instance, instance_metadata_tags="enabled")
    assert world.ask(2, "/latest/meta-data/tags/instance/").text == "Name"
    world.change(instance, tags={"Name": "db"})
    assert world.ask(2, "/latest/meta-data/tags/instance/Name").text == "db"


@pytest.mark.parametrize("hops", [1, 2, 64])
def test_a_token_travels_no_further_than_the_hop_limit(world: World, hops: int) -> None:
    world.launch(2, metadata=MetadataOptions(hop_limit=hops))
    with world.connect(2) as connection:
        connection.sendall(f"PUT {TOKEN_PATH} HTTP/1.1\r\nHost: x\r\n{TTL_HEADER}: 60\r\n\r\n".encode())
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        assert world.server._conversations is not None
        [conversation] = world.server._conversations.all
        assert conversation.transport is not None
        served_by = conversation.transport.get_extra_info("socket")
        assert served_by.getsockopt(socket.IPPROTO_IP, socket.IP_TTL) == hops


@pytest.mark.host
def test_packets_with_a_token_carry_the_hop_limit(world: World) -> None:
    world.launch(2, metadata=MetadataOptions(hop_limit=3))
    wire = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
    with wire, world.connect(2) as connection:
        wire.settimeout(10)
        connection.sendall(f"PUT {TOKEN_PATH} HTTP/1.1\r\nHost: x\r\n{TTL_HEADER}: 60\r\n\r\n".encode())
        token = connection.recv(65536).rpartition(b"\r\n")[2]
        while token not in (packet := wire.recv(65536)):
            pass
        assert packet[8] == 3


# --- what is answered ---


def test_user_data_is_given_as_it_is(world: World) -> None:
    world.launch(2)
    answer = world.ask(2, "/latest/user-data")
    assert answer.body == b"#!/bin/sh\necho \xff\x00 hello\n"
    assert answer.headers["Content-Type"] == "application/octet-stream"
    world.launch(3, user_data="")
    assert world.ask(3, "/latest/user-data").status == 404


def test_headers_are_ec2s(world: World) -> None:
    world.launch(2)
    answer = world.ask(2, ID_PATH)
    assert answer.headers["Server"] == "EC2ws"
    assert answer.headers["Accept-Ranges"] == "none"
    assert answer.headers["Content-Type"] == "text/plain"
    assert answer.headers["Content-Length"] == "19"
    assert answer.headers["Last-Modified"] == "Fri, 02 Jan 2026 03:04:05 GMT"
    missing = world.ask(2, "/latest/nothing")
    assert (missing.status, missing.headers["Server"], missing.headers["Content-Type"]) == (404, "EC2ws", "text/html")
    assert b"404 - Not Found" in missing.body


def test_head_has_the_headers_and_no_body(world: World) -> None:
    world.launch(2)
    answer = world.ask(2, ID_PATH, "HEAD")
    assert (answer.status, answer.headers["Content-Length"], answer.body) == (200, "19", b"")
    assert world.ask(2, "/latest/nothing", "HEAD").status == 404


@pytest.mark.parametrize(
    "target",
    [ID_PATH + "?a=b", ID_PATH + "#x", "http://169.254.169.254" + ID_PATH, "http://169.254.169.254:80" + ID_PATH],
)
def test_targets_that_mean_the_same(world: World, target: str) -> None:
    instance = world.launch(2)
    assert world.ask(2, target).text == instance.id


def test_signatures_are_given_and_the_certificate_kept(world: World) -> None:
    world.launch(2)
    signature = world.ask(2, "/latest/dynamic/instance-identity/signature")
    assert signature.status == 200 and len(signature.body.splitlines()) == 6
    assert world.ask(2, "/latest/dynamic/instance-identity/rsa2048").body == (
        world.ask(2, "/latest/dynamic/instance-identity/pkcs7").body
    )


def test_a_boot_as_cloud_init_does_it(world: World) -> None:
    """Version one to see that something is there, then a token, the newest version, and a crawl of all there is."""
    instance = world.launch(2, metadata=MetadataOptions(instance_metadata_tags="enabled"))
    assert world.ask(2, ID_PATH).text == instance.id
    headers = world.with_token(2)
    assert world.ask(2, "/2021-03-23/meta-data/instance-id", headers=headers).text == instance.id
    crawled = dict(crawl(world, 2, "/2021-03-23/meta-data/", headers))
    tree = build(gather(world.store, instance), world.server._identity)
    for path, body in crawled.items():
        found = tree.lookup(path)
        assert found is not None and found.body == body, path
    assert set(crawled) == set(leaves(tree._root.children["2021-03-23"], "/2021-03-23/", "meta-data"))
    assert world.ask(2, "/2021-03-23/user-data", headers=headers).status == 200
    document = world.ask(2, "/2021-03-23/dynamic/instance-identity/document", headers=headers)
    assert json.loads(document.body)["instanceId"] == instance.id


def crawl(world: World, number: int, folder: str, headers: dict[str, str]) -> Iterator[tuple[str, bytes]]:
    for line in world.ask(number, folder, headers=headers).text.splitlines():
        index, is_key, _ = line.partition("=")
        name = f"{index}/openssh-key" if is_key else line
        if name.endswith("/"):
            yield from crawl(world, number, folder + name, headers)
        else:
            answer = world.ask(number, folder + name, headers=headers)
            assert answer.status == 200, folder + name
            yield folder + name, answer.body


def leaves(node: Folder | Leaf, path: str, *only: str) -> Iterator[str]:
    """Paths of all that is there, listed or not."""
    if not isinstance(node, Folder):
        yield path.rstrip("/")
        return
    for name in only or node.children:
        yield from leaves(node.children[name], f"{path}{name}/")


# --- events ---


def test_each_phase_is_told_once_per_start(world: World, clock: Any) -> None:
    instance = world.launch(2)
    world.ask(2, "/")
    world.ask(2, TOKEN_PATH, "PUT", {TTL_HEADER: "60"})
    world.ask(2, "/latest/meta-data/nothing")
    world.ask(2, ID_PATH, headers={TOKEN_HEADER: "bad"})
    assert world.events == []
    for _ in range(2):
        world.ask(2, ID_PATH)
        world.ask(2, "/latest/user-data")
    assert world.events == [(instance.id, "metadata"), (instance.id, "user-data")]
    world.change(instance, tags={}, boots=1)
    world.ask(2, ID_PATH)
    assert len(world.events) == 2
    clock.pass_(seconds=60)
    world.change(instance, launched_at=clock())
    world.ask(2, ID_PATH)
    assert world.events[2:] == [(instance.id, "metadata")]


def test_missing_user_data_is_no_event(world: World) -> None:
    world.launch(2, user_data="")
    world.ask(2, "/latest/user-data")
    assert world.events == []


# --- opening and shutting ---


def test_a_vpc_answers_when_open_has_returned_and_no_more_after_shut(start_world: Callable[[], World]) -> None:
    world = start_world()
    world.launch(2)
    assert world.server.vpcs() == []
    world.open()
    assert world.server.vpcs() == [VPC]
    with world.connect(2) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(65536)
        world.server.shut(VPC)
        assert read_all(connection) == b""
    with pytest.raises(ConnectionRefusedError):
        world.connect(2)
    assert world.server.vpcs() == []
    world.server.shut(VPC)
    world.open()
    assert world.ask(2, ID_PATH).status == 200


def test_opening_again_keeps_the_socket_when_the_address_is_taken(world: World) -> None:
    world.launch(2)

    def taken() -> socket.socket:
        raise RuntimeError("wrapped") from OSError(errno.EADDRINUSE, "in use")

    world.server.open(VPC, taken)
    assert world.ask(2, ID_PATH).status == 200
    with pytest.raises(RuntimeError, match="wrapped"):
        world.server.open(OTHER_VPC, taken)


def test_opening_again_takes_over_when_the_vpc_was_made_anew(world: World) -> None:
    world.launch(2)
    before = world.ports[VPC]
    with world.connect(2) as connection:
        connection.sendall(f"GET {ID_PATH} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert connection.recv(65536)
        assert world.open() != before
        connection.sendall(f"GET {ID_PATH} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
    assert world.ask(2, ID_PATH).status == 200
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", before), timeout=10)


def test_a_socket_that_cannot_be_made_is_the_callers_error(world: World) -> None:
    def fail() -> socket.socket:
        raise OSError(errno.EADDRNOTAVAIL, "no such address")

    with pytest.raises(OSError, match="no such address"):
        world.server.open(VPC, fail)


# --- several addresses, and IPv6 ---


def test_a_guest_is_known_by_each_of_its_addresses(world: World) -> None:
    first = world.launch(2, interface={"more_private_ips": ("127.0.0.20",), "prefixes": ("127.0.0.32/28",)})
    second = world.launch(3)
    for number in (2, 20, 32, 40, 47):
        assert world.ask(number, "/latest/meta-data/instance-id").text == first.id, number
    assert world.ask(3, "/latest/meta-data/instance-id").text == second.id
    assert world.ask(48, "/latest/meta-data/instance-id").status == 404


def test_a_guest_is_known_by_its_second_interface(world: World) -> None:
    instance = world.launch(2)
    [interface] = world.store.all(NetworkInterface, instance_id=instance.id)
    assert interface.attachment is not None
    more = replace(
        interface,
        id="eni-000000000000000ff",
        private_ip="127.0.0.60",
        mac="02:00:00:00:00:60",
        attachment=replace(interface.attachment, device_index=1),
    )
    with world.store.write() as tx:
        tx.put(more)
    assert world.ask(60, "/latest/meta-data/local-ipv4").text == "127.0.0.2"
    macs = world.ask(60, "/latest/meta-data/network/interfaces/macs/").text.split()
    assert sorted(macs) == ["02:00:00:00:00:02/", "02:00:00:00:00:60/"]
    number = world.ask(2, "/latest/meta-data/network/interfaces/macs/02:00:00:00:00:60/device-number")
    assert number.text == "1"


def test_an_elastic_ip_is_seen_at_the_next_request(world: World) -> None:
    instance = world.launch(2)
    [interface] = world.store.all(NetworkInterface, instance_id=instance.id)
    elastic = ElasticIp(
        id="eipalloc-1",
        account=interface.account,
        region=interface.region,
        created=world.clock(),
        public_ip="203.0.113.200",
        interface_id=interface.id,
        private_ip=interface.private_ip,
    )
    assert world.ask(2, "/latest/meta-data/public-ipv4").text == "203.0.113.2"
    with world.store.write() as tx:
        tx.put(elastic)
    assert world.ask(2, "/latest/meta-data/public-ipv4").text == "203.0.113.200"


def ask_ipv6(port: int, path: str, method: str = "GET", **headers: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("::1", port, timeout=10)
    try:
        connection.request(method, path, headers={"Connection": "close", **headers})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def test_ipv6_answers_whoever_has_it_enabled(start_world: Callable[[], World]) -> None:
    world = start_world()
    port = world.open_ipv6()
    instance = world.launch(2, interface={"ipv6_addresses": ("::1",)})
    assert ask_ipv6(port, "/latest/meta-data/instance-id")[0] == 403
    world.options(instance, http_protocol_ipv6="enabled")
    assert ask_ipv6(port, "/latest/meta-data/instance-id") == (200, instance.id)
    assert world.ask(2, "/latest/meta-data/instance-id").text == instance.id
    token = ask_ipv6(port, TOKEN_PATH, "PUT", **{TTL_HEADER: "60"})[1]
    assert ask_ipv6(port, "/latest/meta-data/mac", **{TOKEN_HEADER: token}) == (200, "02:00:00:00:00:02")
    world.server.shut(VPC)
    assert world.server.vpcs() == []
    with pytest.raises(ConnectionRefusedError):
        ask_ipv6(port, "/latest/meta-data/instance-id")


def test_the_hop_limit_holds_for_ipv6(start_world: Callable[[], World]) -> None:
    world = start_world()
    port = world.open_ipv6()
    options = MetadataOptions(hop_limit=3, http_protocol_ipv6="enabled")
    world.launch(2, interface={"ipv6_addresses": ("::1",)}, metadata=options)
    with socket.create_connection(("::1", port), timeout=10) as connection:
        connection.sendall(f"PUT {TOKEN_PATH} HTTP/1.1\r\nHost: x\r\n{TTL_HEADER}: 60\r\n\r\n".encode())
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        assert world.server._conversations is not None
        [conversation] = world.server._conversations.all
        assert conversation.transport is not None
        served_by = conversation.transport.get_extra_info("socket")
        assert served_by.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS) == 3
