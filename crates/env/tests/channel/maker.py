"""Writes packages and the index of a channel: CHANNEL and a JSON list of packages with their members.

Paths and links go into archives as they are, however evil. A package's `listed` paths and their `kind` are its members'
unless given; what is `hidden` is not listed. A member can be `repeat`ed, and have so many `zeros` behind its text.
"""

import hashlib
import io
import json
import os
import sys
import tarfile

channel, packages = sys.argv[1], json.loads(sys.argv[2])
index, made = {}, []
os.makedirs(channel + "/noarch")
os.makedirs(channel + "/linux-64")
for package in packages:
    described = {"name": package["name"], "version": package["version"], "build": "0", "build_number": 0}
    described.update(depends=[], subdir="noarch", noarch="generic")
    entries, members = [], []
    repeated = [dict(m, path="%s%d" % (m["path"], n)) for m in package["members"] for n in range(m.get("repeat", 0))]
    for member in [member for member in package["members"] if "repeat" not in member] + repeated:
        text = member.get("text", "").encode() + bytes(member.get("zeros", 0))
        info = tarfile.TarInfo(member["path"])
        info.mode, info.size = member.get("mode", 0o644), len(text)
        kind = "hardlink"
        if "link" in member:
            info.type, info.linkname, kind = tarfile.SYMTYPE, member["link"], "softlink"
        if "device" in member:
            info.type, info.devmajor, info.devminor = tarfile.CHRTYPE, 1, 3
        if not member["path"].startswith("info/") and not member.get("hidden"):
            kind = member.get("kind", kind)
            entries.append({"_path": member.get("listed", member["path"]), "path_type": kind})
            if "placeholder" in member:
                entries[-1].update(prefix_placeholder=member["placeholder"], file_mode="text")
            entries[-1].update(sha256=hashlib.sha256(text).hexdigest(), size_in_bytes=len(text))
        members.append((info, text))
    files = {"info/index.json": described, "info/paths.json": {"paths": entries, "paths_version": 1}}
    for path, content in files.items():
        text = json.dumps(content).encode()
        info = tarfile.TarInfo(path)
        info.size = len(text)
        members.insert(0, (info, text))
    name = "%s-%s-0.tar.bz2" % (package["name"], package["version"])
    with tarfile.open("%s/noarch/%s" % (channel, name), "w:bz2") as archive:
        for info, text in members:
            archive.addfile(info, io.BytesIO(text))
    with open("%s/noarch/%s" % (channel, name), "rb") as archive:
        content = archive.read()
    sums = {"sha256": hashlib.sha256(content).hexdigest(), "md5": hashlib.md5(content).hexdigest()}
    index[name] = dict(described, size=len(content), **sums)
    made.append(dict(sums, name=package["name"], version=package["version"], file=name))
for subdir, found in (("noarch", index), ("linux-64", {})):
    with open("%s/%s/repodata.json" % (channel, subdir), "w") as file:
        json.dump({"info": {"subdir": subdir}, "packages": found, "packages.conda": {}}, file)
print(json.dumps(made))
