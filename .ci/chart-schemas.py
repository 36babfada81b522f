#!/usr/bin/env python3
"""Writes JSON schemas for kubeconform, so that it needs no network:

    chart-schemas.py FOLDER SWAGGER.json CRD.yaml...

SWAGGER.json is api/openapi-spec/swagger.json of the module k8s.io/kubernetes; each kind of it, and each version of each
CRD, becomes FOLDER/kind-group-version.json. Unknown fields are refused, as the API server does with strict validation.
"""

import json
import re
import sys
from pathlib import Path

import yaml

# Written as text or as number, which the specification cannot say.
EITHER = {
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": {"type": ["string", "integer"]},
    "io.k8s.apimachinery.pkg.api.resource.Quantity": {"type": ["string", "number"]},
}
# Descriptions only take time; formats of Go, such as int-or-string, are unknown to kubeconform.
LEFT_OUT = {"description", "format", "x-kubernetes-validations"}


def strict(schema):
    """The schema with unknown fields refused, unless it says that it keeps them."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    out = {key: strict(part) for key, part in schema.items() if not (key in LEFT_OUT and not isinstance(part, dict))}
    if out.get("x-kubernetes-int-or-string"):
        out.pop("type", None)
    closed = isinstance(out.get("properties"), dict) and out.get("type", "object") == "object"
    if closed and "additionalProperties" not in out and not out.get("x-kubernetes-preserve-unknown-fields"):
        out["additionalProperties"] = False
    return out


def with_parts(name, definitions, found):
    """Adds a definition and all that it refers to."""
    if name in found:
        return
    found[name] = EITHER.get(name) or strict(definitions[name])
    for part in re.findall(r'"#/definitions/([^"]+)"', json.dumps(found[name])):
        with_parts(part, definitions, found)


def write(folder, kind, group, version, schema):
    parts = [kind.lower(), group.split(".")[0], version]
    (folder / ("-".join(filter(None, parts)) + ".json")).write_text(json.dumps(schema))


def from_swagger(folder, file):
    definitions = json.loads(file.read_text())["definitions"]
    for name, definition in definitions.items():
        for kind in definition.get("x-kubernetes-group-version-kind", [])[:1]:
            found = {}
            with_parts(name, definitions, found)
            schema = {"$ref": f"#/definitions/{name}", "definitions": found}
            write(folder, kind["kind"], kind["group"], kind["version"], schema)


def from_crd(folder, crd):
    spec = crd["spec"]
    for version in spec["versions"]:
        schema = strict(version["schema"]["openAPIV3Schema"])
        schema["properties"].update(apiVersion={"type": "string"}, kind={"type": "string"}, metadata={"type": "object"})
        write(folder, spec["names"]["kind"], spec["group"], version["name"], schema)


def main():
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    from_swagger(folder, Path(sys.argv[2]))
    for file in sys.argv[3:]:
        for document in yaml.safe_load_all(Path(file).read_text()):
            if document and document["kind"] == "CustomResourceDefinition":
                from_crd(folder, document)


main()
