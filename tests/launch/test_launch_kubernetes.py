"""launch/k8s/: valid for the API servers that have what they use, and equal to what jax and the exit codes need."""

import pathlib
import re

import kubernetes_validate
import pytest
import yaml

LAUNCH = pathlib.Path(__file__).parents[2] / "launch" / "k8s"
VERSIONS = ("1.29", "1.37")


def documents(name):
  return {document["kind"]: document for document in yaml.safe_load_all((LAUNCH / name).read_text())}


JOB = documents("indexed-job.yaml")["Job"]
SERVICE = documents("indexed-job.yaml")["Service"]
JOBSET = documents("jobset.yaml")["JobSet"]
ACCOUNT = documents("service-account.yaml")
SLICE = JOBSET["spec"]["replicatedJobs"][0]
TEMPLATE = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "slice"}, **SLICE["template"]}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("document", [JOB, SERVICE, TEMPLATE, *ACCOUNT.values()], ids=lambda found: found["kind"])
def test_schema(document, version):
  kubernetes_validate.validate(document, version, strict=True)


def test_the_schema_would_notice():
  wrong = {**JOB, "spec": {**JOB["spec"], "podFailurePolice": {}}}
  with pytest.raises(kubernetes_validate.ValidationError):
    kubernetes_validate.validate(wrong, VERSIONS[0], strict=True)


def test_jobset_has_only_keys_of_its_api():
  """JobSet is a custom resource, whose schema comes in no package: v1alpha2, the keys we use."""
  assert JOBSET["apiVersion"] == "jobset.x-k8s.io/v1alpha2"
  assert set(JOBSET) == {"apiVersion", "kind", "metadata", "spec"}
  assert set(JOBSET["spec"]) <= {"failurePolicy", "network", "replicatedJobs", "startupPolicy", "successPolicy"}
  assert set(SLICE) <= {"name", "replicas", "template", "groupName", "dependsOn"}
  policy = JOBSET["spec"]["failurePolicy"]
  assert set(policy) <= {"maxRestarts", "restartStrategy", "rules"}
  assert policy["restartStrategy"] == "BlockingRecreate"
  keys = {"name", "action", "onJobFailureReasons", "onJobFailureMessagePatterns", "targetReplicatedJobs"}
  assert all(set(rule) <= keys and {"name", "action"} <= set(rule) for rule in policy["rules"])


def pod_action(rules, *, code=1, lost=False):
  """Returns what the API server does with a failed pod: the first rule that matches; Count if none does."""
  for rule in rules:
    if code in rule.get("onExitCodes", {}).get("values", ()):
      return rule["action"]
    if lost and {"type": "DisruptionTarget", "status": "True"} in rule.get("onPodConditions", ()):
      return rule["action"]
  return "Count"


def set_action(*, code=1, lost=False):
  """Returns what JobSet does with a slice one of whose pods failed."""
  rules = TEMPLATE["spec"]["podFailurePolicy"]["rules"]
  failed = pod_action(rules, code=code, lost=lost) == "FailJob"
  reason = "PodFailurePolicy" if failed else "BackoffLimitExceeded"
  message = f"Container ssljax for pod default/ssljax-slice-0-0 failed with exit code {code} matching FailJob rule"
  for rule in JOBSET["spec"]["failurePolicy"]["rules"]:
    patterns = rule.get("onJobFailureMessagePatterns", [""])
    if reason in rule["onJobFailureReasons"] and any(re.search(pattern, message) for pattern in patterns):
      return rule["action"]
  return "RestartJobSet"


CASES = [
  ({"code": 75}, "Ignore", "RestartJobSetAndIgnoreMaxRestarts"),
  ({"code": 137, "lost": True}, "Ignore", "RestartJobSetAndIgnoreMaxRestarts"),
  ({"code": 2}, "FailJob", "FailJobSet"),
  ({"code": 1}, "Count", "RestartJobSet"),
  ({"code": 134}, "Count", "RestartJobSet"),
  ({"code": 22}, "Count", "RestartJobSet"),
]


@pytest.mark.parametrize(("failure", "job", "jobset"), CASES)
def test_exit_codes(failure, job, jobset):
  assert pod_action(JOB["spec"]["podFailurePolicy"]["rules"], **failure) == job
  assert set_action(**failure) == jobset


@pytest.mark.parametrize("job", [JOB, TEMPLATE], ids=["job", "jobset"])
def test_pods_have_time_to_save_and_are_as_many_as_processes(job):
  spec = job["spec"]
  assert spec["parallelism"] == spec["completions"] > 1
  assert spec["template"]["spec"]["terminationGracePeriodSeconds"] == 120
  assert spec["template"]["spec"]["restartPolicy"] == "Never"  # else no podFailurePolicy
  [container] = spec["template"]["spec"]["containers"]
  assert container["args"][0] == "train" and any(word.startswith("--workdir=") for word in container["args"])


def test_jax_finds_the_first_pod_and_may_ask():
  pod = JOB["spec"]["template"]["spec"]
  assert JOB["spec"]["completionMode"] == "Indexed"
  # The address of the first pod is JOB-0.SUBDOMAIN, which a headless service answers for.
  assert pod["subdomain"] == SERVICE["metadata"]["name"] and SERVICE["spec"]["clusterIP"] == "None"
  assert SERVICE["spec"]["selector"] == {"job-name": JOB["metadata"]["name"]}
  assert pod["serviceAccountName"] == ACCOUNT["ServiceAccount"]["metadata"]["name"]
  binding, role = ACCOUNT["RoleBinding"], ACCOUNT["Role"]
  assert binding["subjects"] == [{"kind": "ServiceAccount", "name": pod["serviceAccountName"]}]
  assert binding["roleRef"]["name"] == role["metadata"]["name"]
  allowed = {(resource, verb) for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]}
  assert {("pods", "list"), ("jobs", "get"), ("services", "list")} <= allowed
