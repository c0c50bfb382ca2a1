"""As much of an API server as Helm needs: objects are kept as they come, nothing is checked and nothing runs. Jobs and bare pods end at
once, as `verdict` says."""

import base64
import http.server
import json
import re
import threading
import urllib.parse

# Group and version, resource, kind, whether it is in a namespace.
RESOURCES = [
    ("v1", "configmaps", "ConfigMap"),
    ("v1", "namespaces", "Namespace"),
    ("v1", "pods", "Pod"),
    ("v1", "secrets", "Secret"),
    ("v1", "serviceaccounts", "ServiceAccount"),
    ("v1", "services", "Service"),
    ("apps/v1", "daemonsets", "DaemonSet"),
    ("apps/v1", "deployments", "Deployment"),
    ("batch/v1", "jobs", "Job"),
    ("cert-manager.io/v1", "certificates", "Certificate"),
    ("cert-manager.io/v1", "issuers", "Issuer"),
    ("networking.k8s.io/v1", "networkpolicies", "NetworkPolicy"),
    ("policy/v1", "poddisruptionbudgets", "PodDisruptionBudget"),
]
_OBJECT = re.compile(r"/(?:api|apis)/(?P<version>v1|[^/]+/v1)/(?:namespaces/(?P<space>[^/]+)/)?(?P<resource>[a-z]+)(?:/(?P<name>[^/]+))?$")


class Api:
    """Listens on a port of the loopback address; `verdict` is given a Job or a Pod and says whether it succeeds."""

    def __init__(self, verdict):
        self.verdict = verdict
        self.objects = {}
        # Requests that changed something: method, resource, name.
        self.changes = []
        self.lock = threading.RLock()
        self.number = 0
        # Number, type and object of everything that happened; who watches waits for more.
        self.events = []
        self.closed = False
        self.more = threading.Condition(self.lock)
        api = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *words):
                pass

            def answer(self):
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length)
                body = _body(body) if body and self.command != "DELETE" else None
                url = urllib.parse.urlsplit(self.path)
                asked = dict(urllib.parse.parse_qsl(url.query))
                if asked.get("watch") in ("true", "1"):
                    return self.watch(url.path, asked)
                code, thing = api.handle(self.command, url.path, asked, body)
                text = json.dumps(thing).encode()
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer

            def watch(self, path, asked):
                """What is there, if asked for, and all that happens from then on, until the client has enough."""
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Connection", "close")
                self.end_headers()
                self.close_connection = True
                try:
                    for kind, thing in api.happens(path, asked):
                        self.wfile.write(json.dumps({"type": kind, "object": thing}).encode() + b"\n")
                except OSError:
                    pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def handle(self, method, path, asked, body):
        """The status code and the answer."""
        if found := self._discovery(path):
            return 200, found
        at = _OBJECT.match(path)
        if not at:
            return _no(404, path)
        resource, name, version = at["resource"], at["name"], at["version"]
        kind = next((k for v, r, k in RESOURCES if (v, r) == (version, resource)), None)
        if not kind:
            return _no(404, path)
        with self.lock:
            if method == "GET" and not name:
                return 200, self._list(version, kind, asked)
            if method == "POST":
                name = body["metadata"]["name"]
                if (kind, name) in self.objects:
                    return _no(409, f'{resource} "{name}" already exists', "AlreadyExists")
            key = (kind, name)
            if method in ("GET", "PUT", "DELETE") and key not in self.objects:
                return _no(404, f'{resource} "{name}" not found')
            if method == "GET":
                return 200, self.objects[key]
            self.changes.append((method, resource, name))
            self.number += 1
            if method == "DELETE":
                return 200, self._tell("DELETED", self.objects.pop(key))
            if method == "PATCH" and key in self.objects:
                # Applied as a whole, what is given stands for all; else it is a difference.
                whole = isinstance(body, dict) and "kind" in body
                body = body if whole else _merged(self.objects[key], body)
            body["apiVersion"], body["kind"] = version, kind
            body["metadata"] |= {"namespace": at["space"], "resourceVersion": str(self.number), "generation": self.number, "uid": f"{kind}-{name}"}
            if kind in ("Job", "Pod"):
                body["status"] = self._ended(kind, self.verdict(body))
            told = "MODIFIED" if key in self.objects else "ADDED"
            self.objects[key] = body
            return 201 if told == "ADDED" else 200, self._tell(told, body)

    def _tell(self, what, thing):
        self.events.append((self.number, what, thing))
        self.more.notify_all()
        return thing

    def happens(self, path, asked):
        """Types and objects of the events that belong to a path."""
        with self.lock:
            now = self.handle("GET", path, asked, None)[1]
            kind = now["kind"].removesuffix("List")
            seen = int(asked.get("resourceVersion") or 0)
            if asked.get("sendInitialEvents") == "true":
                seen = self.number
                yield from (("ADDED", thing) for thing in now["items"])
                end = {"resourceVersion": str(seen), "annotations": {"k8s.io/initial-events-end": "true"}}
                yield "BOOKMARK", {"apiVersion": now["apiVersion"], "kind": kind, "metadata": end}
        while not self.closed:
            with self.more:
                fresh = [e for e in self.events if e[0] > seen]
                if not fresh:
                    self.more.wait(1)
                    continue
            for seen, what, thing in fresh:
                if thing["kind"] == kind and self._chosen(thing, asked):
                    yield what, thing

    @staticmethod
    def _chosen(thing, asked):
        """Whether it is among those that were asked for."""
        wanted = dict(p.split("=", 1) for p in asked.get("labelSelector", "").split(",") if "=" in p and "!=" not in p)
        name = dict(p.split("=", 1) for p in asked.get("fieldSelector", "").split(",") if "=" in p).get("metadata.name")
        labels = thing["metadata"].get("labels", {})
        return all(labels.get(k) == v for k, v in wanted.items()) and name in (None, thing["metadata"]["name"])

    def _list(self, version, kind, asked):
        found = [o for (k, _), o in self.objects.items() if k == kind and self._chosen(o, asked)]
        return {"apiVersion": version, "kind": f"{kind}List", "metadata": {"resourceVersion": str(self.number)}, "items": found}

    @staticmethod
    def _ended(kind, good):
        if kind == "Pod":
            return {"phase": "Succeeded" if good else "Failed"}
        done = {"type": "Complete" if good else "Failed", "status": "True", "reason": "BackoffLimitExceeded"}
        return {"conditions": [done], "succeeded": int(good), "failed": int(not good)}

    @staticmethod
    def _discovery(path):
        if path == "/version":
            return {"major": "1", "minor": "31", "gitVersion": "v1.31.0"}
        if path == "/api":
            return {"kind": "APIVersions", "versions": ["v1"]}
        if path == "/apis":
            groups = []
            for version in dict.fromkeys(v for v, _, _ in RESOURCES if "/" in v):
                here = {"groupVersion": version, "version": "v1"}
                groups.append({"name": version.split("/")[0], "versions": [here], "preferredVersion": here})
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
        # The only thing to be known of the schemas is that the server checks fields itself.
        place = lambda version: f"apis/{version}" if "/" in version else f"api/{version}"
        if path == "/openapi/v3":
            return {"paths": {place(v): {"serverRelativeURL": f"/openapi/v3/{place(v)}"} for v, _, _ in RESOURCES}}
        if path.startswith("/openapi/v3/"):
            paths = {}
            for version, resource, kind in RESOURCES:
                if place(version) == path.removeprefix("/openapi/v3/"):
                    names = {"group": version.rpartition("/")[0], "version": "v1", "kind": kind}
                    patch = {"parameters": [{"name": "fieldValidation", "in": "query"}], "x-kubernetes-group-version-kind": names, "responses": {}}
                    paths[f"/{place(version)}/{resource}/{{name}}"] = {"patch": patch}
            return {"openapi": "3.0.0", "info": {"title": "x", "version": "1"}, "paths": paths}
        version = re.sub("^/apis?/", "", path)
        verbs = ["create", "delete", "get", "list", "patch", "update", "watch"]
        found = [{"name": r, "singularName": "", "kind": k, "namespaced": k != "Namespace", "verbs": verbs} for v, r, k in RESOURCES if v == version]
        return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": found} if found else None

    def config(self, home):
        """A file for KUBECONFIG."""
        path = home / "kubeconfig"
        path.write_text(json.dumps({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": self.url}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "edge"}}],
            "users": [{"name": "u", "user": {}}],
        }))  # fmt: skip
        path.chmod(0o600)
        return path

    def close(self):
        self.closed = True
        self.server.shutdown()
        self.server.server_close()


def _no(code, text, reason="NotFound"):
    return code, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": text}


def _body(data):
    """JSON, or a Secret in the form of Protocol Buffers, in which Helm sends its own."""
    if not data.startswith(b"k8s\0"):
        return json.loads(data)
    raw = dict(_fields(data[4:]))[2]
    secret = dict(_fields(raw))
    meta = dict(_fields(secret[1]))
    entries = lambda message, number: [dict(_fields(value)) for n, value in _fields(message) if n == number]
    return {
        "metadata": {"name": meta[1].decode(), "labels": {e[1].decode(): e[2].decode() for e in entries(secret[1], 11)}},
        "data": {e[1].decode(): base64.b64encode(e[2]).decode() for e in entries(raw, 2)},
        "type": secret[3].decode(),
    }


def _fields(message):
    """Number and value of each field of a message."""

    def varint():
        nonlocal at
        value, shift = 0, 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    at = 0
    while at < len(message):
        tag = varint()
        value = varint()
        if tag & 7 == 2:
            value, at = message[at : at + value], at + value
        yield tag >> 3, value


def _merged(old, patch):
    """A difference applied: maps one by one, what is null goes, lists of things with names by their names."""
    if isinstance(old, dict) and isinstance(patch, dict):
        fresh = dict(old)
        for key, value in patch.items():
            if value is None:
                fresh.pop(key, None)
            elif not key.startswith("$"):
                fresh[key] = _merged(old.get(key), value)
        return fresh
    if isinstance(old, list) and isinstance(patch, list) and all(isinstance(x, dict) and "name" in x for x in old + patch):
        fresh = {x["name"]: x for x in old}
        for thing in patch:
            if thing.get("$patch") == "delete":
                fresh.pop(thing["name"], None)
            else:
                fresh[thing["name"]] = _merged(fresh.get(thing["name"]), thing)
        return list(fresh.values())
    return patch
