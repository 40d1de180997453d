#!/usr/bin/env python3
"""What the webhook undoes, and what it leaves alone: a Deployment of two revisions in place of kubectl."""
import json
import unittest

import webhook


class Cluster(webhook.Rollback):
    """`model` of namespace `here`: its ReplicaSets by revision, and what kubectl was asked to change."""

    def __init__(self, sets, revision, generation=1):
        super().__init__("here/model", ["ProbegateAccuracyLow"], ["kubectl"], False)
        self.sets, self.revision, self.generation = sets, revision, generation
        self.notes, self.changes = {}, []

    def run(self, *arguments):
        if arguments[:2] == ("get", "deployment"):
            return json.dumps({
                "metadata": {"generation": self.generation, "annotations": {webhook.REVISION: self.revision, **self.notes}},
                "status": {"observedGeneration": 1},
            })
        if arguments[:2] == ("get", "replicasets"):
            owner = {"ownerReferences": [{"kind": "Deployment", "name": "model"}]}
            return json.dumps({"items": [
                {"metadata": {"name": name, "annotations": {webhook.REVISION: revision}, **owner}}
                for revision, name in self.sets.items()
            ]})
        self.changes.append(" ".join(arguments))
        return ""

    def undone(self):
        return [change for change in self.changes if change.startswith("rollout undo")]


def alert(pod, **labels):
    about = {"alertname": "ProbegateAccuracyLow", "namespace": "here", "pod": pod, **labels}
    return {"status": "firing", "startsAt": "2020-01-01T00:00:00Z", "labels": {name: value for name, value in about.items() if value}}


class Webhook(unittest.TestCase):
    def setUp(self):
        self.cluster = Cluster({"1": "model-aaa", "2": "model-bbb"}, "2")

    def left_alone(self, why, *alerts):
        self.assertIn(why, self.cluster.judge(list(alerts)))
        self.assertEqual(self.cluster.changes, [])

    def test_a_pod_of_the_current_release_calls_for_an_undo(self):
        self.assertIn("undid revision 2", self.cluster.judge([alert("other-ccc-11111"), alert("model-bbb-22222")]))
        self.assertEqual(self.cluster.undone(), ["rollout undo deployment/model"])

    def test_another_deployments_pod_does_nothing(self):
        self.left_alone("no pod of model-bbb", alert("other-ccc-11111"), alert("model-bbb-ddd-11111"))

    def test_another_namespaces_pod_does_nothing(self):
        self.left_alone("nothing to do", alert("model-bbb-11111", namespace="there"))

    def test_an_alert_that_names_no_pod_does_nothing_and_says_so(self):
        self.left_alone("no label `pod`", alert(None), alert("model-bbb-11111", namespace=None))

    def test_a_resolved_alert_or_another_one_does_nothing(self):
        self.left_alone("nothing to do", {**alert("model-bbb-11111"), "status": "resolved"}, alert("model-bbb-11111", alertname="Other"))

    def test_a_persons_own_undo_stays(self):
        # The ReplicaSet of v1 came back as revision 3, older than the alert about v2.
        self.cluster.sets, self.cluster.revision = {"2": "model-bbb", "3": "model-aaa"}, "3"
        self.left_alone("no pod of model-aaa", alert("model-bbb-22222"))

    def test_what_a_rollback_made_is_left_to_people(self):
        self.cluster.judge([alert("model-bbb-22222")])
        self.cluster.sets, self.cluster.revision = {"2": "model-bbb", "3": "model-aaa"}, "3"
        # What is left of the bad release says nothing about it.
        self.assertIn("no pod of model-aaa", self.cluster.judge([alert("model-bbb-22222")]))
        self.assertIn("a person is needed", self.cluster.judge([alert("model-aaa-33333")]))
        self.cluster.ours, self.cluster.notes = set(), {webhook.NOTE: "3"}
        self.assertIn("a person is needed", self.cluster.judge([alert("model-aaa-33333")]))
        self.assertEqual(len(self.cluster.undone()), 1)

    def test_the_first_revision_has_none_before_it(self):
        self.cluster.sets, self.cluster.revision = {"1": "model-aaa"}, "1"
        self.left_alone("has none before it", alert("model-aaa-11111"))

    def test_a_change_under_way_is_asked_about_again(self):
        self.cluster.generation = 2
        with self.assertRaises(RuntimeError):
            self.cluster.judge([alert("model-bbb-22222")])
        self.assertEqual(self.cluster.changes, [])


if __name__ == "__main__":
    unittest.main()
