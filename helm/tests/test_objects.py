"""What schemas cannot see: whether the objects fit each other and keep what the chart promises."""

import json
import re

import pytest
import yaml

from chart import CASES, CHART, HELMS, only, render, selects, workload

HELM = next(iter(HELMS))


@pytest.fixture(params=CASES)
def case(request):
    return request.param


@pytest.fixture
def objects(case):
    return render(HELM, case)


@pytest.fixture
def pod(objects):
    return workload(objects)["spec"]["template"]


@pytest.fixture
def values(case):
    return yaml.safe_load((CHART / "ci" / f"{case}-values.yaml").read_text())


@pytest.fixture
def remora(pod):
    return next(c for c in pod["spec"]["containers"] if c["name"] == "remora")


def test_every_version_of_helm_renders_the_same(case):
    results = [sorted(json.dumps(o, sort_keys=True) for o in render(v, case)) for v in HELMS]
    assert all(r == results[0] for r in results)


def test_names_are_unique_and_in_the_namespace(objects):
    names = [(o["kind"], o["metadata"]["name"]) for o in objects]
    assert len(names) == len(set(names))
    for thing in objects:
        assert len(thing["metadata"]["name"]) <= 63
        if thing["metadata"].get("labels", {}).get("helm.sh/chart"):
            assert thing["metadata"]["namespace"] == "edge"


def test_no_ports_are_declared_on_the_host_network(pod):
    containers = pod["spec"]["containers"] + pod["spec"].get("initContainers", [])
    if pod["spec"].get("hostNetwork"):
        assert not any(c.get("ports") for c in containers)
        assert pod["spec"]["dnsPolicy"] == "ClusterFirstWithHostNet"
    else:
        assert not any(p.get("hostPort") for c in containers for p in c.get("ports", []))


def test_either_surge_or_unavailable(objects, pod):
    spec = workload(objects)["spec"]
    strategy = spec.get("updateStrategy") or spec["strategy"]
    if strategy["type"] == "OnDelete":
        return
    rolling = strategy["rollingUpdate"]
    positive = [k for k in ("maxSurge", "maxUnavailable") if str(rolling[k]).rstrip("%") != "0"]
    assert len(positive) == 1, rolling
    # Two pods of a node can share its ports only if one hands them to the other.
    if pod["spec"].get("hostNetwork") and positive == ["maxSurge"]:
        assert any(v["name"] == "handoff" for v in pod["spec"]["volumes"])


def test_pods_of_a_node_meet_in_a_directory_of_their_own(objects, pod, remora):
    config = only(objects, "ConfigMap", "-chart")["data"]["chart.cfg"]
    found = [v for v in pod["spec"]["volumes"] if v["name"] == "handoff"]
    assert bool(found) == bool(re.search(r"^ +handoff /run/remora-handoff/$", config, re.M))
    if not found:
        assert not any("hostPath" in v for v in pod["spec"]["volumes"])
        return
    assert pod["spec"]["hostNetwork"]
    assert {"name": "handoff", "mountPath": "/run/remora-handoff"} in remora["volumeMounts"]
    user = pod["spec"]["securityContext"]["runAsUser"]
    assert found[0]["hostPath"] == {"path": f"/run/remora/edge.rel-remora/uid-{user}", "type": "DirectoryOrCreate"}
    first = [c for c in pod["spec"].get("initContainers", []) if c["name"] == "handoff"]
    # Root needs nobody to make it.
    assert bool(first) == (user != 0)
    for container in first:
        assert container["command"] == [*remora["command"], "--handoff-dir", "/run/remora-handoff", f"{user}:{user}"]
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["CHOWN"]}


def test_an_upgrade_reads_the_configuration_first(objects, pod, remora):
    """With the same files, variables and lists as the pods, but no certificates and no directories."""
    job = only(objects, "Job")["spec"]["template"]["spec"]
    hooks = [o for o in objects if o["metadata"].get("annotations", {}).get("helm.sh/hook") == "pre-upgrade"]
    check = job["containers"][0]
    own = [c for c in pod["spec"].get("initContainers", []) if c["name"] != "handoff"]
    assert job.get("initContainers", []) == own
    assert check["args"][:2] == ["-c", "-V"]
    tail = remora["args"].index("-f")
    assert check["args"][4:] == remora["args"][tail:]
    assert check["env"] == remora["env"] and check.get("envFrom") == remora.get("envFrom")
    made = {o["metadata"]["name"]: o["data"] for o in hooks if o["kind"] == "ConfigMap"}
    chart = only(objects, "ConfigMap", "-chart")["data"]["chart.cfg"]
    given = {"/run/remora-handoff/", "/etc/remora/tls/"}
    assert not any(path in made[job["volumes"][0]["configMap"]["name"]]["chart.cfg"] for path in given)
    assert set(made[job["volumes"][0]["configMap"]["name"]]["chart.cfg"].split()) - {"allow-plaintext"} <= set(chart.split())
    conf = next(v for v in pod["spec"]["volumes"] if v["name"] == "conf")["configMap"]["name"]
    data = {o["metadata"]["name"]: o["data"] for o in objects if o["kind"] == "ConfigMap"}
    checked = job["volumes"][1]["configMap"]["name"]
    assert checked == conf or made[checked] == data[conf]


def test_selectors_match_the_pods(objects, pod):
    labels = pod["metadata"]["labels"]
    assert selects(workload(objects)["spec"]["selector"]["matchLabels"], labels)
    for thing in objects:
        spec = thing.get("spec", {})
        if thing["kind"] == "Service":
            assert selects(spec["selector"], labels)
        if thing["kind"] in ("PodDisruptionBudget", "PodMonitor"):
            assert selects(spec["selector"]["matchLabels"], labels)
        if thing["kind"] == "NetworkPolicy":
            assert selects(spec["podSelector"]["matchLabels"], labels)
        if thing["kind"] == "ServiceMonitor":
            services = [o for o in objects if o["kind"] == "Service"]
            found = [s for s in services if selects(spec["selector"]["matchLabels"], s["metadata"]["labels"])]
            assert [s["metadata"]["name"] for s in found] == ["rel-proxy-metrics"]
            assert spec["endpoints"][0]["port"] == found[0]["spec"]["ports"][0]["name"]
        # Test pods must not take traffic or count as peers.
        if thing["kind"] == "Pod":
            for service in (o for o in objects if o["kind"] == "Service"):
                assert not selects(service["spec"]["selector"], thing["metadata"]["labels"])


def test_volumes_and_mounted_files_exist(objects, pod, remora, case):
    """Everything that is mounted is there, and every path the program is given leads into a mount."""
    volumes = {v["name"]: v for v in pod["spec"]["volumes"]}
    mounts = {m["mountPath"]: m["name"] for m in remora["volumeMounts"]}
    assert len(mounts) == len(remora["volumeMounts"])
    assert set(mounts.values()) <= set(volumes)
    made = {o["metadata"]["name"] for o in objects if o["kind"] == "ConfigMap"}
    made |= {o["spec"]["secretName"] for o in objects if o["kind"] == "Certificate"}
    given = {"plaintext": {"proxies"}, "secret": {"proxies-tls"}}.get(case, set())
    for volume in volumes.values():
        source = volume.get("configMap", {}).get("name") or volume.get("secret", {}).get("secretName")
        if source:
            assert source in made | given, volume
    # No subPath: such a mount never changes, so nothing could be reloaded.
    assert not any(m.get("subPath") for m in remora["volumeMounts"])
    files = [a.split(",")[0] for a in remora["args"] if a.startswith("/")]
    files += re.findall(r"(?<![\w.])/(?:etc|run)/remora/[\w./-]+", only(objects, "ConfigMap", "-chart")["data"]["chart.cfg"])
    assert files
    for path in files:
        assert any(path == m or path.startswith(m + "/") for m in mounts), path


def test_a_changed_configuration_does_not_restart_pods(pod, remora):
    assert not any("checksum" in k for k in pod["metadata"].get("annotations", {}))
    assert {"-W", "--watch"} <= set(remora["args"])


def test_probes_ask_the_own_socket(objects, remora):
    config = only(objects, "ConfigMap", "-chart")["data"]["chart.cfg"]
    assert "admin bind unix@/run/remora/admin.sock mode 600\n" in config
    for name, question in (("startupProbe", "live"), ("readinessProbe", "ready"), ("livenessProbe", "live")):
        command = remora[name]["exec"]["command"]
        assert command == [remora["command"][0], "--probe", question, "/run/remora/admin.sock"]
        assert remora[name]["timeoutSeconds"] > 5  # what the program itself allows


def test_a_drain_ends_before_the_pod_is_killed(objects, pod):
    config = only(objects, "ConfigMap", "-chart")["data"]["chart.cfg"]
    grace = int(re.search(r"^ +grace (\d+)s$", config, re.M)[1])
    hard = int(re.search(r"^ +hard-stop-after (\d+)s$", config, re.M)[1])
    assert grace < hard < pod["spec"]["terminationGracePeriodSeconds"]


def test_pods_obey_pod_security_restricted(objects, values):
    """The standard's rules, unless the values say otherwise: for the workload, the Job before an upgrade, and the pod of the test."""
    specs = {o["kind"]: o["spec"].get("template", o)["spec"] for o in objects if o["kind"] in ("DaemonSet", "Deployment", "Job", "Pod")}
    assert len(specs) >= 2
    for kind, spec in specs.items():
        for container in spec["containers"] + spec.get("initContainers", []):
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False
            assert security["capabilities"]["drop"] == ["ALL"]
            assert not security.get("privileged")
            assert set(security["capabilities"].get("add", [])) <= {"CHOWN" if container["name"] == "handoff" else "NET_BIND_SERVICE"}
            assert not any(p.get("hostPort") for p in container.get("ports", []))
        assert not spec.get("hostPID") and not spec.get("hostIPC")
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
        if values.get("restricted", True) or kind in ("Job", "Pod"):
            assert not spec.get("hostNetwork")
            assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["runAsUser"] > 0
            assert {s["name"] for s in spec["securityContext"].get("sysctls", [])} <= {"net.ipv4.ip_unprivileged_port_start"}
            allowed = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
            assert all(set(v) - {"name"} <= allowed for v in spec.get("volumes", []))


def test_the_program_can_change_nothing_but_its_sockets(remora, pod):
    assert remora["securityContext"]["readOnlyRootFilesystem"]
    writable = {m["name"] for m in remora["volumeMounts"] if not m.get("readOnly")}
    assert writable - {"handoff"} == {"run"}
    assert next(v for v in pod["spec"]["volumes"] if v["name"] == "run")["emptyDir"]["medium"] == "Memory"


def test_clients_keep_their_addresses(objects):
    for service in (o for o in objects if o["kind"] == "Service"):
        if service["spec"].get("type") in ("LoadBalancer", "NodePort"):
            assert service["spec"]["externalTrafficPolicy"] == "Local"


def test_peers_find_each_other_by_the_name_in_their_certificate(objects, case):
    config = only(objects, "ConfigMap", "-chart")["data"]["chart.cfg"]
    if case == "alone":
        assert "peers" not in config
        assert not [o for o in objects if o["kind"] in ("Certificate", "Issuer")]
        return
    service = only(objects, "Service", "-peers")
    assert service["spec"]["clusterIP"] == "None" and service["spec"]["publishNotReadyAddresses"]
    name, port = re.search(r"discover dns (\S+)\.:(\d+) ", config).groups()
    domain = "k8s.example.org" if case == "issuer" else "cluster.local"
    assert name == f"{service['metadata']['name']}.edge.svc.{domain}"
    assert int(port) == service["spec"]["ports"][0]["targetPort"]
    certificates = [o for o in objects if o["kind"] == "Certificate" and not o["spec"].get("isCA")]
    assert ("verify required" in config) == (case != "plaintext") == ("allow-plaintext" not in config)
    assert bool(certificates) == (case not in ("plaintext", "secret"))
    for certificate in certificates:
        assert certificate["spec"]["dnsNames"] == [name]
        assert {"server auth", "client auth"} <= set(certificate["spec"]["usages"])
        issuers = {o["metadata"]["name"] for o in objects if o["kind"] == "Issuer"}
        assert certificate["spec"]["issuerRef"]["name"] in issuers | {"mesh"}


def test_only_peers_reach_the_port_of_the_peers(objects, pod):
    config = only(objects, "ConfigMap", "-chart")["data"]["chart.cfg"]
    policies = [o for o in objects if o["kind"] == "NetworkPolicy"]
    if pod["spec"].get("hostNetwork"):
        assert not policies  # it would not bind them, and must not look as if
        return
    if "discover dns" not in config or not policies:
        return
    port = int(re.search(r"discover dns \S+:(\d+) ", config)[1])
    rules = [r for r in policies[0]["spec"]["ingress"] if port in [p["port"] for p in r["ports"]]]
    assert len(rules) == 1 and len(rules[0]["from"]) == 1
    assert selects(rules[0]["from"][0]["podSelector"]["matchLabels"], pod["metadata"]["labels"])


def test_services_lead_to_a_bind_line(objects, case):
    """For the configurations that are in the values."""
    if case == "plaintext":
        return
    data = dict(only(objects, "ConfigMap", "-chart")["data"])
    data |= next(o for o in objects if o["kind"] == "ConfigMap" and "remora.cfg" in o["data"])["data"]
    bound = {int(p) for text in data.values() for p in re.findall(r"^ +(?:admin )?bind \S*:(\d+)", text, re.M)}
    for service in (o for o in objects if o["kind"] == "Service"):
        for port in service["spec"].get("ports", []):
            assert port["targetPort"] in bound, service["metadata"]["name"]


def test_policy_lets_through_what_services_need(objects, pod):
    for policy in (o for o in objects if o["kind"] == "NetworkPolicy"):
        open_ports = {p["port"] for rule in policy["spec"]["ingress"] for p in rule["ports"]}
        container = next(c for c in pod["spec"]["containers"] if c["name"] == "remora")
        assert open_ports == {p["containerPort"] for p in container["ports"]}


def test_names_in_dns():
    direct = only(render(HELM, "host-network"), "Service", "-nodes")
    assert direct["spec"]["clusterIP"] == "None"
    assert not direct["spec"].get("publishNotReadyAddresses")
    notes = direct["metadata"]["annotations"]
    assert notes["external-dns.alpha.kubernetes.io/hostname"] == "www.example.org"
    assert notes["external-dns.alpha.kubernetes.io/endpoints-type"] == "NodeExternalIP"
    balanced = only(render(HELM, "secret"), "Service", "rel-remora")
    assert balanced["metadata"]["annotations"]["external-dns.alpha.kubernetes.io/hostname"] == "proxy.example.org"


def test_tests_exist_where_the_port_is_open(objects):
    config = only(objects, "ConfigMap", "-chart")["data"]["chart.cfg"]
    tests = [o for o in objects if o["kind"] == "Pod"]
    assert len(tests) == config.count("frontend remora-test")
    for pod in tests:
        assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
        env = {e["name"]: e["value"] for e in pod["spec"]["containers"][0]["env"]}
        assert re.search(rf"^ +bind \S*:{env['PORT']} ", config, re.M)
        assert f"discover dns {env['PEERS']}.:" in config
