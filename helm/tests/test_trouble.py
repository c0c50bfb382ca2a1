"""What goes wrong around pods, and what they make of it: names, strangers, certificates, directories."""

import contextlib
import os
import re
import socket
import ssl
import subprocess
import threading

import pytest

from emulator import images, tables
from emulator.cluster import Stuck
from emulator.release import Release, by_name, exact, says
from emulator.waiting import until

pytestmark = images.needed


def certificate(pod):
    """When the peers' certificate of a pod runs out, as its metrics say."""
    found = tables.metrics(pod, "peers")
    return next(v for k, v in found.items() if k.startswith("remora_certificate_expiry_seconds{") and 'tls.crt"' in k)


def stranger(host, home):
    """Something that speaks TLS under the peers' port, with a certificate of its own making."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=x",
         "-addext", "subjectAltName=DNS:rel-remora-peers.edge.svc.cluster.local", "-keyout", home / "x.key", "-out", home / "x.crt"],
        check=True, capture_output=True)  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(home / "x.crt", home / "x.key")
    context.set_alpn_protocols(["h2"])
    with host.entered():
        door = socket.create_server((host.address, 10000))

    def serve():
        while True:
            try:
                link, _ = door.accept()
            except OSError:
                return
            try:
                context.wrap_socket(link, server_side=True).close()
            except OSError:
                link.close()

    threading.Thread(target=serve, daemon=True).start()
    return door


def test_names_strangers_and_certificates(cluster, home):
    """Two pods that start while DNS is silent, meet when it speaks, do not fall for a stranger, and take a renewed certificate."""
    release = Release(cluster, "pod-network")
    for _ in range(2):
        cluster.add_node()
    cluster.names.stall(True)
    release.upgrade(peers={"every": "1s", "learnTimeout": "2s"})
    cluster.rollout()
    one, two = cluster.running()
    until(lambda: "the learn-timeout is over" in one.log())
    cluster.names.stall(False)
    until(lambda: all("session to peer" in p.log() for p in (one, two)), 40)

    # Someone who is no Remora turns up under the peers' name.
    other = cluster.network.host(8)
    door = stranger(other, cluster.home)
    cluster.strangers = {other.address}
    cluster.changed()
    until(lambda: re.search(rf"WARNING.*peer {re.escape(other.address)}:10000", one.log()))
    said = next(line for line in one.log().splitlines() if f"peer {other.address}:10000" in line and "WARNING" in line)
    assert re.search("certificate|UnknownIssuer", said), said
    assert f"session to peer {other.address}:10000 is up" not in one.log()
    cluster.strangers = set()
    cluster.changed()
    door.close()

    # Who will run out of a certificate within two weeks is told in time.
    for pod in (one, two):
        until(lambda: re.search(r"WARNING.*certificate '/etc/remora/tls/tls.crt' expires on .*, in \d days?;", pod.log()))

    # A renewed certificate is taken over in place, and new sessions use it.
    before = certificate(one)
    cluster.renew("rel-remora-peers")
    until(lambda: certificate(one) > before + 80000)
    cluster.add_node()
    cluster.rollout()
    three = next(p for p in cluster.running() if p not in (one, two))
    until(lambda: re.search("learned [0-9]+ tables? with .* from peer", three.log()))
    assert not any(p.restarts for p in cluster.running())
    passed, said = release.test()
    assert passed, said
    assert tables.ask(one, "show peers")


def test_a_name_that_lags_behind(cluster):
    """The name does not show a new pod for long, as with a cache in between. It is taught all the same: it asks the others, and
    they come to where it came from."""
    release = Release(cluster, "pod-network")
    for _ in range(2):
        cluster.add_node()
    release.upgrade()
    cluster.rollout()
    one, two = cluster.running()
    until(lambda: all("session to peer" in p.log() for p in (one, two)))
    cluster.names.lag = 3600
    cluster.add_node()
    cluster.rollout()
    three = next(p for p in cluster.running() if p not in (one, two))
    until(lambda: re.search("learned [0-9]+ tables? with .* from peer", three.log()))
    assert "the learn-timeout is over" not in three.log()
    for pod in (one, two):
        until(lambda: re.search(rf"{re.escape(three.address)}:10000 is dialed, though", pod.log()))


def test_a_directory_that_others_may_write_to(cluster):
    """Nobody takes over from whoever put a socket there: the pod does not start, and says what to do."""
    release = Release(cluster, "host-network")
    node = cluster.add_node()
    place = node.root / "run/remora/edge.rel-remora/uid-65532"
    place.mkdir(parents=True)
    place.chmod(0o777)
    release.upgrade()
    pod = cluster.start_pod(node, cluster.all("DaemonSet")[0]["spec"]["template"], "alone")
    until(lambda: "everybody may write to it" in pod.log())
    assert not pod.ready
    pod.terminate()
    # So it is with somebody else's.
    place.chmod(0o755)
    os.chown(place, 1000, 1000)
    pod = cluster.start_pod(node, cluster.all("DaemonSet")[0]["spec"]["template"], "alone")
    until(lambda: "belongs to user 1000, not to 65532" in pod.log())
    # Removed, it is made anew.
    os.rmdir(place)
    pod.terminate()
    pod.gone.wait(10)
    cluster.rollout()
    assert (place.stat().st_uid, place.stat().st_mode & 0o7777) == (65532, 0o700)


@contextlib.contextmanager
def mounted(place):
    """A file system of its own; yields a function that makes it read-only, or writable again."""
    place.mkdir(parents=True)
    mount = lambda *words: subprocess.run(["mount", *words, place], check=True, capture_output=True)
    mount("-t", "tmpfs", "-o", "mode=755", "tmpfs")
    try:
        yield lambda yes: mount("-o", f"remount,{'ro' if yes else 'rw'}")
    finally:
        subprocess.run(["umount", "-l", place], check=True)


@pytest.mark.parametrize("root", [False, True])
def test_a_directory_that_cannot_be_written(cluster, root):
    """The pod does not start, and says why: without the directory the next one could not follow it. Who runs already goes on."""
    release = Release(cluster, "host-network")
    node = cluster.add_node()
    name = f"uid-{0 if root else 65532}"
    with mounted(node.root / "run/remora/edge.rel-remora" / name) as read_only:
        read_only(True)
        release.upgrade(privilegedPorts=root)
        pod = cluster.start_pod(node, cluster.all("DaemonSet")[0]["spec"]["template"], "alone")
        until(lambda: "Read-only file system" in pod.log())
        said = next(line for line in pod.log().splitlines() if "Read-only file system" in line)
        assert ("'handoff /run/remora-handoff/': " if root else "--handoff-dir '/run/remora-handoff': ") in said and "ALERT" in said, said
        assert not pod.ready
        pod.terminate()
        pod.gone.wait(10)

        # Once it can be written, pods start. Should it be read-only again later, who runs goes on, also over a reload.
        read_only(False)
        cluster.rollout()
        [pod] = cluster.running()
        read_only(True)
        traffic = by_name(cluster)
        try:
            traffic.wait_for(50)
            release.upgrade(config=release.values["config"].replace("first", "second"), configCheck={"enabled": False})
            until(lambda: says(traffic, "second"))
            exact(cluster, traffic)
        finally:
            traffic.close()
        assert pod.ready and not pod.restarts


def test_a_pod_that_knows_of_no_hand_off_cannot_be_followed(cluster):
    """The new pod says why it fails, the old one goes on; with maxUnavailable the update gets through."""
    release = Release(cluster, "host-network")
    cluster.add_node()
    release.upgrade(handoff={"enabled": False})
    cluster.rollout()
    [old] = cluster.running()
    release.upgrade(handoff={"enabled": True})
    cluster.rollout(enough=lambda: any("Address already in use" in p.log() for p in cluster.running() if p is not old))
    with pytest.raises(Stuck):
        cluster.rollout(4)
    new = next(p for p in cluster.running() if p is not old)
    assert "Address already in use" in new.log()
    assert old.ready and not old.terminating
    release.upgrade(updateStrategy={"maxUnavailable": 1}, drain={"graceSeconds": 1, "hardStopSeconds": 15})
    cluster.rollout(40)
    [last] = cluster.running()
    assert last is not old


@pytest.mark.parametrize("back", [False, True])
def test_another_user_cannot_follow(cluster, back):
    """Neither root the other user nor the other way round. The old pod can even start again; with maxUnavailable it goes on."""
    release = Release(cluster, "host-network")
    cluster.add_node()
    release.upgrade(privilegedPorts=back)
    cluster.rollout()
    [old] = cluster.running()
    release.upgrade(privilegedPorts=not back)
    cluster.rollout(enough=lambda: any("Address already in use" in p.log() for p in cluster.running() if p is not old))
    with pytest.raises(Stuck):
        cluster.rollout(4)
    new = next(p for p in cluster.running() if p is not old)
    assert "Address already in use" in new.log() and "taking over" not in new.log()
    new.terminate()
    new.gone.wait(10)
    old.running["remora"].kill()
    until(lambda: old.restarts == 1 and old.ready)
    release.upgrade(updateStrategy={"maxUnavailable": 1}, drain={"graceSeconds": 1, "hardStopSeconds": 15})
    cluster.rollout(40)
    [last] = cluster.running()
    assert last is not old


def test_what_a_dead_pod_leaves_behind(cluster):
    """A pod that is killed leaves its socket in the directory: nobody waits for it, and it is cleaned up."""
    release = Release(cluster, "host-network")
    node = cluster.add_node()
    release.upgrade()
    cluster.rollout()
    [pod] = cluster.running()
    place = node.root / "run/remora/edge.rel-remora/uid-65532"

    def sockets():
        return [name for name in os.listdir(place) if name.endswith(".sock")]

    [before] = sockets()
    pod.running["remora"].kill()
    until(lambda: pod.restarts == 1 and pod.ready and len(sockets()) == 1 and sockets() != [before])
    assert "taking over" not in pod.log()


def test_ports_below_1024_on_the_host_network(cluster, image):
    """As root with one capability, which is not the one to read what belongs to others."""
    release = Release(cluster, "host-network")
    cluster.add_node()
    config = release.values["config"].replace(":8080", ":80")
    release.upgrade(privilegedPorts=True, config=config)
    cluster.rollout()
    [old] = cluster.running()
    traffic = by_name(cluster, 80)
    try:
        traffic.wait_for(50)
        cluster.images["remora:0.2.0"] = image
        release.upgrade(image={"tag": "0.2.0"})
        cluster.rollout()
        assert old not in cluster.running() and "taking over" in cluster.running()[0].log()
        exact(cluster, traffic)
    finally:
        traffic.close()
