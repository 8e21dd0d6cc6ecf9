"""What a program with the stock Python client does with a cluster: one function a habit, each checks what it finds.

Run as `walk.py KUBECONFIG`, with a pod `cat` of the component of tools and a pod `web` of hello's there.
"""

import inspect
import json
import sys
import tempfile
import threading
import time

from kubernetes import client, config, dynamic, utils, watch
from kubernetes.client.exceptions import ApiException
from kubernetes.informer import SharedInformer
from kubernetes.leaderelection import electionconfig, leaderelection
from kubernetes.leaderelection.resourcelock.configmaplock import ConfigMapLock
from kubernetes.stream import portforward, stream

NAMESPACE = "default"
PATIENCE_SECONDS = 60


def refused(status, call, *args, **kwargs):
    """The `Status` that a call is refused with."""
    try:
        call(*args, **kwargs)
    except ApiException as error:
        assert error.status == status, error
        return json.loads(error.body)
    raise AssertionError(f"{call} is not refused with {status}")


def is_gone(read, name):
    try:
        read(name, NAMESPACE)
        return False
    except ApiException as error:
        assert error.status == 404, error
        return True


def wait_for(what, condition):
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < end, f"waited in vain until {what}"
        time.sleep(0.02)


def config_map(name, **data):
    return client.V1ConfigMap(metadata=client.V1ObjectMeta(name=name, labels={"by": "python"}), data=data)


def objects_come_and_go(core):
    made = core.create_namespaced_config_map(NAMESPACE, config_map("a", key="1"))
    assert made.metadata.uid and made.metadata.creation_timestamp.year >= 2020
    assert refused(409, core.create_namespaced_config_map, NAMESPACE, config_map("a"))["reason"] == "AlreadyExists"
    stale = made.metadata.resource_version
    made.data["key"] = "2"
    made = core.replace_namespaced_config_map("a", NAMESPACE, made)
    made.metadata.resource_version = stale
    assert refused(409, core.replace_namespaced_config_map, "a", NAMESPACE, made)["reason"] == "Conflict"
    bad = client.V1ConfigMap(metadata=client.V1ObjectMeta(name="Not A Name"), data={"bad key": ""})
    causes = refused(422, core.create_namespaced_config_map, NAMESPACE, bad)["details"]["causes"]
    assert [cause["field"] for cause in causes] == ["metadata.name", "data[bad key]"], causes
    dry = core.create_namespaced_config_map(NAMESPACE, config_map("dry"), dry_run="All")
    assert dry.metadata.uid
    assert refused(404, core.read_namespaced_config_map, "dry", NAMESPACE)["details"]["name"] == "dry"
    core.delete_namespaced_config_map("a", NAMESPACE, propagation_policy="Foreground")
    wait_for("it is gone", lambda: is_gone(core.read_namespaced_config_map, "a"))


def lists_come_in_pages(core):
    for number in range(7):
        core.create_namespaced_config_map(NAMESPACE, config_map(f"page-{number}"))
    names, token = [], None
    while token != "":
        page = core.list_namespaced_config_map(NAMESPACE, label_selector="by=python", limit=3, _continue=token)
        names += [item.metadata.name for item in page.items]
        token = page.metadata._continue or ""
    assert names == [f"page-{number}" for number in range(7)], names
    one = core.list_namespaced_config_map(NAMESPACE, field_selector="metadata.name=page-3")
    assert [item.metadata.name for item in one.items] == ["page-3"]
    core.delete_collection_namespaced_config_map(NAMESPACE, label_selector="by=python")
    assert not core.list_namespaced_config_map(NAMESPACE, label_selector="by=python").items


def watches_tell_every_change(core):
    version = core.list_namespaced_config_map(NAMESPACE).metadata.resource_version
    core.create_namespaced_config_map(NAMESPACE, config_map("w", key="1"))
    core.patch_namespaced_config_map("w", NAMESPACE, {"data": {"key": "2"}})
    core.delete_namespaced_config_map("w", NAMESPACE)
    seen, watching = [], watch.Watch()
    for event in watching.stream(
        core.list_namespaced_config_map, NAMESPACE, label_selector="by=python", resource_version=version
    ):
        seen.append((event["type"], event["object"].data["key"]))
        if event["type"] == "DELETED":
            watching.stop()
    assert seen == [("ADDED", "1"), ("MODIFIED", "2"), ("DELETED", "2")], seen
    assert not list(watch.Watch().stream(core.list_namespaced_secret, NAMESPACE, timeout_seconds=1))


def patches_of_every_type(apps):
    container = {"name": "c", "image": "i:1", "env": [{"name": "A", "value": "1"}]}
    body = {
        "metadata": {"name": "patched"},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"app": "p"}},
            "template": {"metadata": {"labels": {"app": "p"}}, "spec": {"containers": [container]}},
        },
    }
    apps.create_namespaced_deployment(NAMESPACE, body)

    def patch(content, kind, **more):
        return apps.patch_namespaced_deployment("patched", NAMESPACE, content, _content_type=kind, **more)

    env = {"spec": {"template": {"spec": {"containers": [{"name": "c", "env": [{"name": "B", "value": "2"}]}]}}}}
    made = patch(env, "application/strategic-merge-patch+json")
    assert sorted(one.name for one in made.spec.template.spec.containers[0].env) == ["A", "B"]
    made = patch({"metadata": {"labels": {"a": "b", "c": "d"}}}, "application/merge-patch+json")
    assert made.metadata.labels == {"a": "b", "c": "d"}
    made = patch([{"op": "remove", "path": "/metadata/labels/a"}], "application/json-patch+json")
    assert made.metadata.labels == {"c": "d"}
    applied = {"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"replicas": 0, "minReadySeconds": 3}}
    made = patch(applied, "application/apply-patch+yaml", field_manager="python", force=True)
    owner = [entry for entry in made.metadata.managed_fields if entry.manager == "python"]
    assert [entry.operation for entry in owner] == ["Apply"] and made.spec.min_ready_seconds == 3
    scale = apps.read_namespaced_deployment_scale("patched", NAMESPACE)
    assert (scale.kind, scale.spec.replicas or 0, scale.status.selector) == ("Scale", 0, "app=p")
    apps.delete_namespaced_deployment("patched", NAMESPACE)


def any_kind_without_its_class(api):
    resources = dynamic.DynamicClient(api, cache_file=tempfile.mktemp()).resources
    maps = resources.get(api_version="v1", kind="ConfigMap")
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "d"}, "data": {"key": "1"}}
    made = maps.server_side_apply(body, namespace=NAMESPACE, field_manager="one")
    assert made.data.key == "1"
    body["data"]["key"] = "2"
    try:
        maps.server_side_apply(body, namespace=NAMESPACE, field_manager="two")
        raise AssertionError("no conflict")
    except dynamic.exceptions.ConflictError as error:
        assert 'conflict with \\"one\\": .data.key' in str(error.body), error.body
    made = maps.server_side_apply(body, namespace=NAMESPACE, field_manager="two", force_conflicts=True)
    assert made.data.key == "2"
    for event in maps.watch(namespace=NAMESPACE, name="d", timeout=PATIENCE_SECONDS):
        assert (event["type"], event["object"].data.key) == ("ADDED", "2")
        break
    maps.delete(name="d", namespace=NAMESPACE)
    groups = {resource.group_version for resource in resources.search()}
    assert {"v1", "apps/v1", "rbac.authorization.k8s.io/v1", "resource.k8s.io/v1"} <= groups, groups


def every_list_reads_into_its_class(api):
    """The client refuses to build an object that lacks a field that its kind requires."""
    read = 0
    for name, group in inspect.getmembers(client, inspect.isclass):
        if not name.endswith("Api"):
            continue
        for method, _ in inspect.getmembers(group, inspect.isfunction):
            is_plain = method.startswith("list_") and not method.endswith("_with_http_info")
            if not is_plain or "namespaced" in method or name == "CustomObjectsApi":
                continue
            # The class insists on a time that events of the older form do not have, in the original neither.
            if name == "EventsV1Api":
                continue
            try:
                answer = getattr(group(api), method)()
            except ApiException as error:
                # Versions that the original does not serve without being told to.
                assert error.status == 404 and ("alpha" in name or "beta" in name), (name, method, error)
                continue
            assert answer.kind.endswith("List"), (method, answer.kind)
            read += 1
    assert read >= 60, read


def commands_logs_and_ports(core):
    def run(*command, **streams):
        return stream(
            core.connect_get_namespaced_pod_exec, "cat", NAMESPACE, command=list(command), stderr=True, stdout=True, **streams
        )

    assert run("printenv", "GREETING") == "Ahoy\n"
    session = run("cat", stdin=True, _preload_content=False)
    session.write_stdin("typed\n")
    assert session.readline_stdout(timeout=PATIENCE_SECONDS) == "typed"
    session.close()
    session = run("cat", "/none", _preload_content=False)
    session.run_forever(timeout=PATIENCE_SECONDS)
    assert session.returncode == 1 and "/none" in session.read_stderr()
    ports = portforward(core.connect_get_namespaced_pod_portforward, "web", NAMESPACE, ports="8080")
    socket = ports.socket(8080)
    socket.settimeout(PATIENCE_SECONDS)
    socket.sendall(b"GET /through HTTP/1.1\r\nHost: web\r\n\r\n")
    answer = b""
    while b"you asked for /through" not in answer:
        part = socket.recv(4096)
        assert part, answer
        answer += part
    wait_for("the log shows the request", lambda: "/through" in core.read_namespaced_pod_log("web", NAMESPACE))


def a_leader_is_elected():
    led = []

    def candidate(name):
        lock = ConfigMapLock("leader", NAMESPACE, name)
        done = threading.Event()
        settings = electionconfig.Config(
            lock, lease_duration=30, renew_deadline=20, retry_period=1,
            onstarted_leading=lambda: (led.append(name), done.wait()), onstopped_leading=lambda: None,
        )
        threading.Thread(target=leaderelection.LeaderElection(settings).run, daemon=True).start()

    candidate("first")
    wait_for("the first leads", lambda: led == ["first"])
    candidate("second")
    record = client.CoreV1Api().read_namespaced_config_map("leader", NAMESPACE)
    holder = record.metadata.annotations["control-plane.alpha.kubernetes.io/leader"]
    assert json.loads(holder.replace("'", '"'))["holderIdentity"] == "first" and led == ["first"], holder


def an_informer_follows(core):
    seen = []
    informer = SharedInformer(core.list_namespaced_config_map, NAMESPACE, label_selector="by=python")
    for kind in ["ADDED", "MODIFIED", "DELETED"]:
        informer.add_event_handler(kind, lambda found, kind=kind: seen.append((kind, found.metadata.name)))
    core.create_namespaced_config_map(NAMESPACE, config_map("before"))
    informer.start()
    wait_for("what was there is known", lambda: seen == [("ADDED", "before")])
    core.create_namespaced_config_map(NAMESPACE, config_map("after"))
    wait_for("what comes is known", lambda: seen[1:] == [("ADDED", "after")])
    core.patch_namespaced_config_map("before", NAMESPACE, {"data": {"a": "b"}})
    wait_for("what changes is known", lambda: seen[2:] == [("MODIFIED", "before")])
    core.delete_namespaced_config_map("before", NAMESPACE)
    wait_for("what goes is known", lambda: seen[3:] == [("DELETED", "before")])
    assert [found.metadata.name for found in informer.cache.list()] == ["after"]
    informer._stop_event.set()


def manifests_are_created(api):
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write("apiVersion: v1\nkind: Namespace\nmetadata: {name: python}\n---\n"
                   "apiVersion: v1\nkind: Service\nmetadata: {name: s, namespace: python}\nspec: {ports: [{port: 80}]}\n")
        file.flush()
        made = utils.create_from_yaml(api, file.name)
    assert [one[0].kind for one in made] == ["Namespace", "Service"]
    allowed = client.AuthorizationV1Api(api).create_self_subject_access_review(
        {"spec": {"resourceAttributes": {"verb": "delete", "resource": "pods", "namespace": "python"}}}
    )
    assert allowed.status.allowed
    assert client.VersionApi(api).get_code().git_version.startswith("v1.36.")
    client.CoreV1Api(api).delete_namespace("python")


def main():
    config.load_kube_config(sys.argv[1])
    api = client.ApiClient()
    core, apps = client.CoreV1Api(api), client.AppsV1Api(api)
    objects_come_and_go(core)
    lists_come_in_pages(core)
    watches_tell_every_change(core)
    patches_of_every_type(apps)
    any_kind_without_its_class(api)
    every_list_reads_into_its_class(api)
    a_leader_is_elected()
    an_informer_follows(core)
    manifests_are_created(api)
    commands_logs_and_ports(client.CoreV1Api())
    print("walked")


main()
