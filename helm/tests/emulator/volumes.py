"""Volumes of a pod, as the kubelet lays them out on the node."""

import os
import pathlib
import shutil
import subprocess
import time


class Volumes:
    """All volumes of one pod. ConfigMaps and Secrets follow their objects when `refresh` is called."""

    def __init__(self, home, node_root, specs, group, objects):
        self.home = home
        self.specs = {s["name"]: s for s in specs}
        self.group = group
        self.objects = objects
        self.mounted = []
        self.paths = {}
        for name, spec in self.specs.items():
            if "hostPath" in spec:
                self.paths[name] = self._host_path(node_root, spec["hostPath"])
                continue
            path = self.paths[name] = home / name
            path.mkdir(parents=True)
            if "emptyDir" in spec:
                if spec["emptyDir"].get("medium") == "Memory":
                    size = spec["emptyDir"].get("sizeLimit", "64Mi").removesuffix("i")
                    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path], check=True)
                    self.mounted.append(path)
                if group is not None:
                    os.chown(path, -1, group)
                path.chmod(0o2777)
            elif "configMap" in spec or "secret" in spec:
                self._write(spec, path)
            else:
                raise NotImplementedError(f"volume {spec}")

    @staticmethod
    def _host_path(node_root, spec):
        path = pathlib.Path(f"{node_root}{spec['path']}")
        if spec.get("type") == "DirectoryOrCreate":
            path.mkdir(parents=True, exist_ok=True)
        elif spec.get("type") == "Directory" and not path.is_dir():
            raise FileNotFoundError(f"hostPath {path} is not a directory")
        return path

    def refresh(self):
        """Takes over changed objects. An object that is gone changes nothing."""
        for name, spec in self.specs.items():
            if "configMap" in spec or "secret" in spec:
                self._write(spec, self.paths[name])

    def _write(self, spec, path):
        """A directory of its own for every state, and one link that leads to the current one: all files change at once."""
        kind = "ConfigMap" if "configMap" in spec else "Secret"
        source = spec.get("configMap") or spec["secret"]
        found = self.objects(kind, source.get("name") or source["secretName"])
        if found is None:
            if source.get("optional") or (path / "..data").exists():
                return
            raise FileNotFoundError(f'{kind.lower()} "{source.get("name") or source["secretName"]}" not found')
        data = {k: v.encode() if isinstance(v, str) else v for k, v in found["data"].items()}
        link = path / "..data"
        if link.exists() and {p.name: p.read_bytes() for p in link.iterdir()} == data:
            return
        before = link.resolve() if link.exists() else None
        fresh = path / time.strftime(f"..%Y_%m_%d_%H_%M_%S.{time.monotonic_ns() % 10**9}")
        fresh.mkdir()
        for file, content in data.items():
            (fresh / file).write_bytes(content)
            (fresh / file).chmod(source.get("defaultMode", 0o644) | (0o440 if self.group is not None else 0))
            if self.group is not None:
                os.chown(fresh / file, -1, self.group)
        temporary = path / "..data_tmp"
        temporary.symlink_to(fresh.name)
        temporary.rename(link)
        for file in data:
            if not (path / file).is_symlink():
                (path / file).symlink_to(f"..data/{file}")
        for old in path.iterdir():
            if old.is_symlink() and old.name != "..data" and old.name not in data:
                old.unlink()
        if before:
            shutil.rmtree(before)

    def close(self):
        for path in self.mounted:
            subprocess.run(["umount", "-l", path], capture_output=True)
        self.mounted = []
